"""Corrupted test sets as they are published: by corruption, in five severities."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.format import open_memmap, read_array

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data.corruptions import SEVERITIES
from anchor_jax.data.dataset import Dataset, absolute, check_regular, open_file, reading_errors, validate_dataset
from anchor_jax.data.dataset_spec import CORRUPTED_TFDS, matching_images
from anchor_jax.data.sources import is_image, numbered_classes, open_stream, subfolders, tfds_data_dir
from anchor_jax.data.streaming import (
    EvalDataset,
    check_same_classes,
    eval_dataset_from_rows,
    match_channels,
    remap_labels,
)

# where TFDS differs from the names of the published sets
_PUBLISHED_NAMES = {"frosted_glass_blur": "glass_blur", "elastic": "elastic_transform"}

_NPY_LAYOUT = "expected: <corruption>.npy (uint8 [5N, H, W, C], severity after severity) and labels.npy (integers [5N])"
_FOLDER_LAYOUT = "expected layout: <path>/<corruption>/<severity>/<class name>/<image>.png, corruptions maybe in groups"
_NUMBER = re.compile(r"\d+(\.\d+)?")
_NUM_COMPARED = 32  # images of a corrupted set with the clean one


@dataclasses.dataclass(frozen=True)
class CorruptedSet:
    """A corrupted test set, every member of it in every severity.

    Attributes:
      name: what reports and messages call it.
      members: names of the corruptions, sorted, as ImageNet-C and ImageNet-C-bar spell them.
      num_examples: N, the same in every member and severity.
      stream: (member, severity) -> its `EvalDataset`, images and labels as those of the run.
      severities: 1 to 5, from mild to strong.
    """

    name: str
    members: tuple[str, ...]
    num_examples: int
    stream: Callable[[str, int], EvalDataset]
    severities: tuple[int, ...] = SEVERITIES


class _Part(NamedTuple):
    """One severity of one corruption, known before it is opened."""

    label_names: tuple[str, ...]
    num_examples: int
    open: Callable[[], EvalDataset]


_Parts = Mapping[str, Mapping[int, _Part]]  # corruption -> severity -> part


def open_corrupted(
    spec: str,
    *,
    image_shape: tuple[int, ...],
    label_names: tuple[str, ...],
    tfds_dir: str | os.PathLike[str] = "",
) -> CorruptedSet:
    """Opens a published corrupted set, refused as a whole if part of it is missing or not what it should be.

    Specs:
      tfds:NAME[@SPLIT]: "cifar10_corrupted" or "imagenet2012_corrupted", of which all prepared configurations
        `NAME/corruption_severity` are members.
      npy:PATH: a folder of `corruption.npy`, uint8 `[5N, H, W, C]`, severity after severity, and `labels.npy`,
        integers `[5N]`: CIFAR-10-C, CIFAR-100-C and CIFAR-10-C-bar.
      folder:PATH: `PATH/corruption/severity/class_name/image.JPEG`, the corruptions maybe in groups, as the archives
        of ImageNet-C unpack; a severity is 1 to 5, or the strength of the corruption, five in ascending order, as the
        code of ImageNet-C-bar writes them.

    Args:
      spec: one of these.
      image_shape: H, W and C of the run's images, see `open_spec`.
      label_names: of the run; see `class_rows` for sets without names.
      tfds_dir: see `open_spec`.

    Raises:
      UserTypeError: an argument is of the wrong type.
      UserError: a malformed spec, files that cannot be read, a missing severity, other numbers of examples in some
        severities, classes or images that are not the run's, missing or wrong labels.
    """
    checks.text("spec", spec)
    checks.image_shape("image_shape", image_shape)
    checks.several("label_names", label_names)
    match = re.fullmatch(r"tfds:([^@:/]+)(?:@(.+))?|(npy|folder):(.+)", spec)
    if not match:
        allowed = f"tfds:NAME[@SPLIT] ({', '.join(CORRUPTED_TFDS)}), npy:PATH, folder:PATH"
        raise UserError(f"unknown corrupted set '{spec}'; allowed: {allowed}")
    name, parts = _found(match, tfds_data_dir(os.fspath(tfds_dir)), image_shape)
    _check(parts, label_names, name)

    def stream(member: str, severity: int) -> EvalDataset:
        part = parts[member][severity].open()
        named = dataclasses.replace(part, name=f"{name}-{member}-{severity}")
        return remap_labels(match_channels(named, image_shape), label_names)

    members = tuple(sorted(parts))
    return CorruptedSet(name, members, stream(members[0], 1).num_examples, stream)


def _found(spec: re.Match[str], tfds_dir: Path, image_shape: tuple[int, ...]) -> tuple[str, _Parts]:
    """Name and parts of a corrupted set."""
    tfds_name, split, kind, path = spec.groups()
    if tfds_name:
        return tfds_name, _tfds_parts(tfds_name, split, tfds_dir, image_shape)
    root = absolute(path)
    return root.name, (_npy_parts if kind == "npy" else _folder_parts)(root, image_shape)


def _check(parts: _Parts, label_names: tuple[str, ...], name: str) -> None:
    first_member = min(parts)
    for member, severities in sorted(parts.items()):
        missing = [str(severity) for severity in SEVERITIES if severity not in severities]
        if missing:
            raise UserError(f"'{member}' of {name} lacks severity {', '.join(missing)}; all of 1 to 5 are needed")
        for severity, part in sorted(severities.items()):
            expected = parts[first_member][1].num_examples
            if part.num_examples != expected:
                raise UserError(
                    f"'{member}' of severity {severity} of {name} has {part.num_examples} examples, but "
                    f"'{first_member}' of severity 1 has {expected}; all must have as many"
                )
            check_same_classes(part.label_names, label_names, f"'{member}' of severity {severity} of {name}")


# --- TensorFlow Datasets --------------------------------------------------------------------------------


def _tfds_parts(name: str, split: str | None, data_dir: Path, image_shape: tuple[int, ...]) -> _Parts:
    parts: dict[str, dict[int, _Part]] = {}
    split = split or CORRUPTED_TFDS.get(name, "test")
    for configuration in sorted({file.parts[-3] for file in data_dir.glob(f"{name}/*/*/features.json")}):
        if match := re.fullmatch(r"(\w+)_([1-5])", configuration):
            member = _PUBLISHED_NAMES.get(match[1], match[1])
            part = _tfds_part(f"{name}/{configuration}", split, data_dir, image_shape)
            parts.setdefault(member, {})[int(match[2])] = part
    if not parts:
        builder = f"tfds.builder('{name}', config=c, data_dir='{data_dir}', file_format='array_record')"
        raise UserError(
            f"no corruptions of tfds data set '{name}' are prepared in '{data_dir}'; those of TFDS: "
            f"{', '.join(CORRUPTED_TFDS)}; to prepare one: "
            f'python -c "import tensorflow_datasets as tfds; '
            f"[{builder}.download_and_prepare() for c in tfds.builder_cls('{name}').builder_configs]\" "
            "(preparing, unlike reading, needs tensorflow installed)"
        )
    return parts


def _tfds_part(name: str, split: str, data_dir: Path, image_shape: tuple[int, ...]) -> _Part:
    opened = partial(open_stream, "tfds", split, name=name, path=data_dir, title=name, **matching_images(image_shape))
    stream = match_channels(opened(), image_shape)
    return _Part(stream.label_names, stream.num_examples, opened)  # opened anew: so many sets keep no files open


# --- .npy files -----------------------------------------------------------------------------------------


def _npy_parts(root: Path, image_shape: tuple[int, ...]) -> _Parts:
    with reading_errors(f"folder '{root}'", _NPY_LAYOUT):
        files = [root / name for name in sorted(os.listdir(root)) if name.endswith(".npy") and name != "labels.npy"]
    if not files:
        raise UserError(f"no corruptions in '{root}'; {_NPY_LAYOUT}")
    labels = _npy_labels(root / "labels.npy")
    label_names = numbered_classes(int(labels.max()), str(root / "labels.npy"))
    return {file.stem: _npy_severities(file, labels, label_names, image_shape) for file in files}


def _npy_labels(file: Path) -> np.ndarray:
    with reading_errors(f"'{file}'", _NPY_LAYOUT), open_file(file) as opened:
        labels = read_array(opened, allow_pickle=False)
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or not len(labels) or len(labels) % len(SEVERITIES):
        raise UserError(f"'{file}': integers [5N] expected, got {labels.dtype} {list(labels.shape)}")
    if (labels.reshape(len(SEVERITIES), -1) != labels[: len(labels) // len(SEVERITIES)]).any():
        raise UserError(f"'{file}': the same N labels five times expected, once for each severity")
    return labels


def _npy_severities(
    file: Path, labels: np.ndarray, label_names: tuple[str, ...], image_shape: tuple[int, ...]
) -> dict[int, _Part]:
    images, labels, _ = validate_dataset(Dataset(_mapped(file), labels, label_names), f"'{file}'")
    num = len(labels) // len(SEVERITIES)

    def part(severity: int) -> _Part:
        rows = slice((severity - 1) * num, severity * num)

        def read(batch: slice) -> np.ndarray:
            return np.array(_mapped(file)[rows][batch])  # mapped anew: what other batches read does not stay in memory

        stream = match_channels(
            eval_dataset_from_rows(read, labels[rows], label_names, images.shape[1:], file.stem), image_shape
        )
        return _Part(label_names, num, lambda: stream)

    return {severity: part(severity) for severity in SEVERITIES}


def _mapped(file: Path) -> np.ndarray:
    with reading_errors(f"'{file}'", _NPY_LAYOUT):
        check_regular(file)
        return open_memmap(file, mode="r")


# --- folders --------------------------------------------------------------------------------------------


def _folder_parts(root: Path, image_shape: tuple[int, ...]) -> _Parts:
    parts = {}
    with reading_errors(f"folder '{root}'", _FOLDER_LAYOUT):
        for corruption in _corruption_folders(root):
            if corruption.name in parts:
                raise UserError(f"'{corruption.name}' is twice in '{root}'; {_FOLDER_LAYOUT}")
            severities = _severity_names(corruption).items()
            parts[corruption.name] = {
                number: _folder_part(corruption, name, image_shape) for number, name in severities
            }
    if not parts:
        raise UserError(f"no corruptions in '{root}'; {_FOLDER_LAYOUT}")
    return parts


def _corruption_folders(root: Path) -> Iterator[Path]:
    """The folders of severities in a folder, or in groups in it."""
    for name in subfolders(root):
        if _holds_severities(root / name):
            yield root / name
            continue
        group = [root / name / inner for inner in subfolders(root / name)]
        strange = [folder for folder in group if not _holds_severities(folder)]
        if strange or not group:
            raise UserError(f"no severities in '{(strange or [root / name])[0]}'; {_FOLDER_LAYOUT}")
        yield from group


def _holds_severities(folder: Path) -> bool:
    inner = subfolders(folder)
    return bool(inner) and all(_NUMBER.fullmatch(name) for name in inner)


def _severity_names(corruption: Path) -> dict[int, str]:
    """Severity -> name of its folder, which is its number or the strength of the corruption."""
    names = sorted(subfolders(corruption), key=float)
    if set(names) <= set(map(str, SEVERITIES)):
        return {int(name): name for name in names}
    if len(names) != len(SEVERITIES):
        raise UserError(f"'{corruption}' has the severities {', '.join(names)}; 1 to 5 or five strengths are needed")
    return dict(zip(SEVERITIES, names, strict=True))


def _folder_part(corruption: Path, severity: str, image_shape: tuple[int, ...]) -> _Part:
    classes = subfolders(corruption / severity)
    num = sum(sum(map(is_image, os.listdir(corruption / severity / name))) for name in classes)
    opened = partial(open_stream, "folder", severity, path=corruption, **matching_images(image_shape))
    return _Part(tuple(classes), num, opened)


# --- against the clean set ------------------------------------------------------------------------------


def check_differs(clean: EvalDataset, *corrupted: EvalDataset) -> None:
    """Refuse a corrupted set that is the clean one under another name, in the same order or another.

    Such as `cifar10_corrupted` taken from TFDS without the name of a corruption (hendrycks/robustness#29).

    Args:
      clean: the test set, which is looked at once as a whole.
      corrupted: streams, of whose first images one at least must be no image of the clean set.

    Raises:
      UserError: names the first stream of which none differs.
    """
    known = {_digest(image) for images, _ in clean.batches(256) for image in images}
    for stream in corrupted:
        if all(_digest(image) in known for image in stream.first(_NUM_COMPARED)[0]):
            raise UserError(
                f"the first images of '{stream.name}' are all in the clean set '{clean.name}': they are not corrupted; "
                "give the set that was published"
            )


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
