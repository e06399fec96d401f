"""Corrupted test sets as published: one dataset per corruption and severity."""

import dataclasses
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap, read_array

from anchor_jax.core import checks
from anchor_jax.core.errors import SkippedFilesWarning, UserError
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.data import orientation as orientations
from anchor_jax.data import resampling
from anchor_jax.data.class_mapping import complete_class_rows, with_class_rows
from anchor_jax.data.content import UNKNOWN, content_of_files
from anchor_jax.data.corruptions import SEVERITIES
from anchor_jax.data.dataset import Dataset, validate_dataset
from anchor_jax.data.dataset_spec import CORRUPTED_TFDS, image_options, more_channels
from anchor_jax.data.eval_dataset import EvalDataset, eval_dataset_from_rows, match_channels
from anchor_jax.data.files import FileList, check_regular_file, open_file, reading_errors
from anchor_jax.data.image_files import (
    Skipped,
    files_beside,
    find_images,
    is_hidden,
    skipped_file,
    subfolders,
    warn_skipped,
)
from anchor_jax.data.labels import classes_of, read_labels
from anchor_jax.data.local_copies import local_data, local_tfds
from anchor_jax.data.sources import open_stream
from anchor_jax.data.sources.tfds import tfds_data_dir

# name in TFDS -> published name, where they differ
_PUBLISHED_NAMES = {"frosted_glass_blur": "glass_blur", "elastic": "elastic_transform"}

_NPY_LAYOUT = (
    "expected: <corruption>.npy (uint8 [5N, H, W, C], severity by severity) and labels.npy (integers or strings [5N])"
)
_FOLDER_LAYOUT = (
    "expected layout: <path>/<corruption>/<severity>/<class name>/<image>.png, where corruptions may be in groups"
)
_NUMBER = re.compile(r"\d+(\.\d+)?")
_MAX_LISTED = 200_000  # images of a folder that are listed for the hash of their content


@short_repr
@dataclasses.dataclass(frozen=True)
class CorruptedSet:
    """A corrupted test set: every corruption at every severity.

    Attributes:
      name: how reports and messages refer to it.
      members: sorted names of the corruptions, spelled as in ImageNet-C and ImageNet-C-bar.
      num_examples: N, equal for all members and severities.
      stream: (member, severity) -> `EvalDataset` with images and labels like those of the run.
      severities: 1..5, from mild to strong.
      split: of a source, "" if there are none.
      content: as of `EvalDataset`, of all members and severities.

    Example:
      >>> import anchor_jax as aj
      >>> clean = aj.data.open_dataset("digits@test", image_shape=(8, 8, 1))
      >>> shifted = aj.data.CorruptedSet("none", ("identity",), clean.num_examples, lambda member, severity: clean)
      >>> shifted.stream("identity", 5).name
      'digits-test'
    """

    name: str
    members: tuple[str, ...]
    num_examples: int
    stream: Callable[[str, int], EvalDataset]
    severities: tuple[int, ...] = SEVERITIES
    split: str = ""
    content: Callable[[], str] = UNKNOWN


class _Subset(NamedTuple):
    """One corruption at one severity; what can be checked before it is opened."""

    label_names: tuple[str, ...]
    num_examples: int
    open: Callable[[], EvalDataset]


_Subsets = Mapping[str, Mapping[int, _Subset]]  # corruption -> severity -> subset


def open_corrupted(
    spec: str,
    *,
    image_shape: tuple[int, ...],
    label_names: tuple[str, ...],
    tfds_dir: str | os.PathLike[str] = "",
    interpolation: str = resampling.AUTO,
    resizing: str = resampling.AUTO,
    orientation: str = orientations.AUTO,
    channels: int = 0,
) -> CorruptedSet:
    """Open a published corrupted set, and check that it is complete and matches the run.

    Image files and TFDS images are resized to the run's size, but taken as cropped already, as the published ones are.

    Specs:
      tfds:NAME[@SPLIT]: "cifar10_corrupted" or "imagenet2012_corrupted". Its members are all prepared configurations
        `NAME/corruption_severity`.
      npy:PATH: a folder of `corruption.npy`, uint8 `[5N, H, W, C]`, severity by severity, and `labels.npy`, integers
        or strings `[5N]`: the layout of CIFAR-10-C, CIFAR-100-C and CIFAR-10-C-bar.
      folder:PATH: `PATH/corruption/severity/class_name/image.JPEG`, where corruptions may be in groups, as in the
        archives of ImageNet-C. The severity is 1..5, or the strength of the corruption, five in ascending order, as the
        code of ImageNet-C-bar writes them.

    Args:
      spec: the string.
      image_shape: H, W and C of the run's images, see `open_dataset`.
      label_names: class names of the run; see `class_rows` for sets without names.
      tfds_dir: see `open_dataset`.
      interpolation: see `open_dataset`.
      resizing: see `open_dataset`.
      orientation: see `open_dataset`.
      channels: see `open_dataset`.

    Returns:
      `CorruptedSet`.

    Raises:
      UserTypeError: an argument has the wrong type.
      UserError: the spec is malformed, files cannot be read, a severity or labels are missing, the number of examples
        differs between subsets, or classes or images do not match the run.

    Example:
      >>> import pathlib, tempfile
      >>> import anchor_jax as aj
      >>> import numpy as np
      >>> folder = pathlib.Path(tempfile.mkdtemp()) / "mine-C"
      >>> folder.mkdir()
      >>> np.save(folder / "fog.npy", np.zeros((10, 4, 4, 3), np.uint8))  # 2 images at 5 severities
      >>> np.save(folder / "labels.npy", np.tile(["cat", "dog"], 5))
      >>> corrupted = aj.data.open_corrupted(f"npy:{folder}", image_shape=(4, 4, 3), label_names=("cat", "dog"))
      >>> corrupted.name, corrupted.members, corrupted.num_examples
      ('mine-C', ('fog',), 2)
      >>> corrupted.stream("fog", 5).name
      'mine-C-fog-5'
    """
    checks.text("spec", spec)
    image_shape = checks.image_shape("image_shape", image_shape, channels)
    label_names = checks.several("label_names", label_names)
    interpolation, resizing = resampling.check_interpolation(interpolation), resampling.check_resizing(resizing)
    orientations.check_orientation(orientation)
    options = image_options(image_shape, interpolation=interpolation, resizing=resizing, orientation=orientation)
    match = re.fullmatch(r"tfds:([^@:/]+)(?:@(.+))?|(npy|folder):(.+)", spec)
    if not match:
        allowed = f"tfds:NAME[@SPLIT] ({', '.join(CORRUPTED_TFDS)}), npy:PATH, folder:PATH"
        raise UserError(f"unknown corrupted set '{spec}'; allowed: {allowed}")
    tfds_name, split, kind, path = match.groups()
    if tfds_name:
        name, split = tfds_name, split or CORRUPTED_TFDS.get(tfds_name, "test")
        root = local_tfds(tfds_data_dir(os.fspath(tfds_dir)), name)
        subsets = _tfds_subsets(name, split, root, image_shape, options)
        list_files = partial(_list_prepared, root / name)
    else:
        root = local_data(f"{kind}:PATH", path)
        name = root.name
        subsets = _npy_subsets(root, image_shape) if kind == "npy" else _folder_subsets(root, options)
        list_files = partial(_list_npy if kind == "npy" else _list_images, root)
    class_rows = _check_subsets(subsets, label_names, name)

    def stream(member: str, severity: int) -> EvalDataset:
        dataset = dataclasses.replace(subsets[member][severity].open(), name=f"{name}-{member}-{severity}")
        dataset = match_channels(dataset, image_shape)
        return with_class_rows(dataset, label_names, class_rows[dataset.label_names])

    members = tuple(sorted(subsets))
    num_examples = stream(members[0], 1).num_examples

    @cache
    def content() -> str:
        num_images = num_examples * len(members) * len(SEVERITIES)
        with reading_errors(f"'{root}'", "check its files"):
            return content_of_files(list_files(num_images), name if tfds_name else "", split, members, num_images)

    return CorruptedSet(name, members, num_examples, stream, split=split or "", content=content)


def _check_subsets(
    subsets: _Subsets, label_names: tuple[str, ...], name: str
) -> dict[tuple[str, ...], np.ndarray | None]:
    """Check that all subsets are complete; return the rows of their classes, by their names, among those of the run."""
    class_rows: dict[tuple[str, ...], np.ndarray | None] = {}
    first_member = min(subsets)
    for member, by_severity in sorted(subsets.items()):
        missing = [str(severity) for severity in SEVERITIES if severity not in by_severity]
        if missing:
            raise UserError(f"'{member}' of {name} lacks severity {', '.join(missing)}; all of 1 to 5 are needed")
        for severity, subset in sorted(by_severity.items()):
            expected = subsets[first_member][1].num_examples
            if subset.num_examples != expected:
                raise UserError(
                    f"'{member}' at severity {severity} of {name} has {subset.num_examples} examples, but "
                    f"'{first_member}' at severity 1 has {expected}; the numbers must be equal"
                )
            if subset.label_names not in class_rows:
                origin = f"'{member}' at severity {severity} of {name}"
                class_rows[subset.label_names] = complete_class_rows(subset.label_names, label_names, origin)
    return class_rows


# TensorFlow Datasets


def _tfds_subsets(
    name: str, split: str, data_dir: Path, image_shape: tuple[int, ...], options: dict[str, Any]
) -> _Subsets:
    subsets: dict[str, dict[int, _Subset]] = {}
    for configuration in sorted({file.parts[-3] for file in data_dir.glob(f"{name}/*/*/features.json")}):
        if match := re.fullmatch(r"(\w+)_([1-5])", configuration):
            member = _PUBLISHED_NAMES.get(match[1], match[1])
            subset = _tfds_subset(f"{name}/{configuration}", split, data_dir, image_shape, options)
            subsets.setdefault(member, {})[int(match[2])] = subset
    if not subsets:
        builder = f"tfds.builder('{name}', config=c, data_dir='{data_dir}', file_format='array_record')"
        raise UserError(
            f"no corruption of the TFDS dataset '{name}' is prepared in '{data_dir}'; corrupted datasets of TFDS: "
            f"{', '.join(CORRUPTED_TFDS)}; to prepare one: "
            f'python -c "import tensorflow_datasets as tfds; '
            f"[{builder}.download_and_prepare() for c in tfds.builder_cls('{name}').builder_configs]\" "
            "(preparing, unlike reading, needs tensorflow installed)"
        )
    return subsets


def _list_prepared(root: Path, num_images: int) -> FileList:
    del num_images  # the images are in few files
    files = (file.relative_to(root) for file in sorted(root.glob("*/*/*")) if file.is_file())
    return FileList(root, map(str, files))


def _tfds_subset(
    name: str, split: str, data_dir: Path, image_shape: tuple[int, ...], options: dict[str, Any]
) -> _Subset:
    # opened now for its metadata, and again for every read, so that many datasets do not keep their files open
    reopen = partial(open_stream, "tfds", split, name=name, path=data_dir, title=name, **options)
    dataset = match_channels(reopen(), image_shape)
    return _Subset(dataset.label_names, dataset.num_examples, reopen)


# .npy files


def _npy_subsets(root: Path, image_shape: tuple[int, ...]) -> _Subsets:
    with reading_errors(f"folder '{root}'", _NPY_LAYOUT):
        names = [name for name in sorted(os.listdir(root)) if not is_hidden(name)]
    files = [root / name for name in names if name.endswith(".npy") and name != "labels.npy"]
    if not files:
        raise UserError(f"no corruptions in '{root}'; {_NPY_LAYOUT}")
    labels = _read_npy_labels(root / "labels.npy")
    classes = classes_of({"labels.npy": labels}, f"'{root / 'labels.npy'}'")
    rows = classes.rows(labels)
    subsets = {file.stem: _npy_severities(file, rows, classes.label_names, image_shape) for file in files}
    warn_skipped(root, [skipped_file(name) for name in names if not name.endswith(".npy")], read=".npy")
    return subsets


def _list_npy(root: Path, num_images: int) -> FileList:
    del num_images
    return FileList(root, sorted(name for name in os.listdir(root) if name.endswith(".npy") and not is_hidden(name)))


def _read_npy_labels(file: Path) -> np.ndarray:
    with reading_errors(f"'{file}'", _NPY_LAYOUT), open_file(file) as opened:
        labels = read_array(opened, allow_pickle=False)
        if labels.ndim != 1 or not len(labels) or len(labels) % len(SEVERITIES):
            raise UserError(f"'{file}' must be integers or strings [5N]; got {labels.dtype} {list(labels.shape)}")
        labels = read_labels(labels, f"'{file}'")
    if (labels.reshape(len(SEVERITIES), -1) != labels[: len(labels) // len(SEVERITIES)]).any():
        raise UserError(f"'{file}' must repeat the same N labels five times, once per severity")
    return labels


def _npy_severities(
    file: Path, labels: np.ndarray, label_names: tuple[str, ...], image_shape: tuple[int, ...]
) -> dict[int, _Subset]:
    """Return the five severities of one corruption."""
    dataset = Dataset(_map_file(file), labels, label_names)
    images, labels, _ = validate_dataset(dataset, f"'{file}'", more_channels(image_shape))
    num = len(labels) // len(SEVERITIES)

    def subset(severity: int) -> _Subset:
        rows = slice((severity - 1) * num, severity * num)

        def read(batch: slice | np.ndarray) -> np.ndarray:
            return np.array(_map_file(file)[rows][batch])  # mapped again: pages of earlier batches can be freed

        dataset = eval_dataset_from_rows(read, labels[rows], label_names, images.shape[1:], file.stem)
        dataset = match_channels(dataset, image_shape)
        return _Subset(label_names, num, lambda: dataset)

    return {severity: subset(severity) for severity in SEVERITIES}


def _map_file(file: Path) -> np.ndarray:
    with reading_errors(f"'{file}'", _NPY_LAYOUT):
        check_regular_file(file)
        return open_memmap(file, mode="r")


# folders of images


def _folder_subsets(root: Path, options: dict[str, Any]) -> _Subsets:
    subsets, skipped = {}, []
    with reading_errors(f"folder '{root}'", _FOLDER_LAYOUT):
        for corruption in _corruption_folders(root, skipped):
            if corruption.name in subsets:
                raise UserError(f"'{corruption.name}' occurs twice in '{root}'; {_FOLDER_LAYOUT}")
            subsets[corruption.name] = {
                severity: _folder_subset(corruption, name, options, skipped)
                for severity, name in _severity_folders(corruption).items()
            }
    if not subsets:
        raise UserError(f"no corruptions in '{root}'; {_FOLDER_LAYOUT}")
    warn_skipped(root, skipped)
    return subsets


def _list_images(root: Path, num_images: int) -> FileList:
    """List all images, or of more than `_MAX_LISTED` those of the first class of each corruption and severity."""
    names: list[str] = []
    for corruption in _corruption_folders(root, []):
        for severity in sorted(_severity_folders(corruption).values()):
            folder = (corruption / severity).relative_to(root)
            for label_name in subfolders(root / folder)[: None if num_images <= _MAX_LISTED else 1]:
                names += find_images(root, str(folder / label_name)).images
    return FileList(root, names)


def _corruption_folders(root: Path, skipped: list[Skipped]) -> Iterator[Path]:
    """Yield the folders that contain severities: subfolders of `root`, or of groups in `root`; extend `skipped`."""
    names = subfolders(root)
    skipped += files_beside(root, names, "folders of corruptions")
    for name in names:
        if _contains_severities(root / name):
            yield root / name
            continue
        inner_names = subfolders(root / name)
        skipped += files_beside(root / name, inner_names, "folders of corruptions")
        group = [root / name / inner for inner in inner_names]
        others = [folder for folder in group if not _contains_severities(folder)]
        if others or not group:
            raise UserError(f"no severities in '{(others or [root / name])[0]}'; {_FOLDER_LAYOUT}")
        yield from group


def _contains_severities(folder: Path) -> bool:
    names = subfolders(folder)
    return bool(names) and all(_NUMBER.fullmatch(name) for name in names)


def _severity_folders(corruption: Path) -> dict[int, str]:
    """Return severity -> name of its folder, which is the severity or the strength of the corruption."""
    names = sorted(subfolders(corruption), key=float)
    if set(names) <= set(map(str, SEVERITIES)):
        return {int(name): name for name in names}
    if len(names) != len(SEVERITIES):
        raise UserError(f"'{corruption}' has the severities {', '.join(names)}; 1 to 5 or five strengths are needed")
    return dict(zip(SEVERITIES, names, strict=True))


def _folder_subset(corruption: Path, severity: str, options: dict[str, Any], skipped: list[Skipped]) -> _Subset:
    folder = corruption / severity
    classes = subfolders(folder)
    found = [find_images(folder, name) for name in classes]
    skipped += files_beside(folder, classes, "class folders")
    skipped += [file for part in found for file in part.skipped]

    def reopen() -> EvalDataset:
        with warnings.catch_warnings():  # all that is skipped is reported once for the complete set
            warnings.simplefilter("ignore", SkippedFilesWarning)
            return open_stream("folder", severity, path=corruption, **options)

    return _Subset(tuple(classes), sum(len(part.images) for part in found), reopen)
