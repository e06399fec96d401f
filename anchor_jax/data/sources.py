"""Labelled images, whole or as a stream: scikit-learn's digits, TFDS, a folder of images or an .npz file."""

import difflib
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.core import checks, errors
from anchor_jax.core.errors import UserError
from anchor_jax.data.cache import load_cached
from anchor_jax.data.dataset import Dataset, absolute, check_classes, open_npz, reading_errors, validate_dataset
from anchor_jax.data.decoding import Encoded, Example, decode_all, mode_of
from anchor_jax.data.streaming import EvalDataset, eval_dataset, eval_dataset_from_encoded

_IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_FOLDER_LAYOUT = "expected layout: <data.path>/<split>/<class name>/<image>.png"
_MAX_NUMBERED_CLASSES = 1_000_000


class _Request(NamedTuple):
    split: str
    name: str
    path: str
    image_size: int
    crop_fraction: float


def _request(split: str, name: str, path: str | os.PathLike[str], image_size: int, crop_fraction: float) -> _Request:
    checks.text("split", split)
    checks.text("name", name)
    checks.path("path", path)
    checks.number("crop_fraction", crop_fraction, high=math.inf)
    return _Request(split, name, os.fspath(path), checks.integer("image_size", image_size), crop_fraction)


def load(
    source: str,
    split: str,
    *,
    name: str = "",
    path: str | os.PathLike[str] = "",
    image_size: int = 0,
    crop_fraction: float = 1.0,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Loads one split of a data set into memory; nothing is ever downloaded.

    Decoded images of "tfds" and "folder" are kept as one .npz file, so the next load takes a moment.

    Args:
      source: "digits" (scikit-learn's 8x8 digits, ready anywhere), "tfds" (a prepared TensorFlow Datasets
        set with the features `image` and `label`), "folder" (`path/split/class_name/image.png`) or
        "npz" (one file with the arrays `x_{split}`, `y_{split}` and maybe `label_names`).
      split: name of the split; "tfds" also takes slices such as "train[:90%]".
      name: the data set's name, for "tfds" only.
      path: TFDS data directory (default: $TFDS_DATA_DIR, then ~/tensorflow_datasets), image folder or file.
      image_size: 0 keeps the stored size; S resizes the shorter side to `round(S / crop_fraction)` and crops the
        centre to S x S ("tfds" and "folder").
      crop_fraction: in (0, 1].
      cache_dir: folder of the decoded images (default: $ANCHOR_JAX_CACHE, then $XDG_CACHE_HOME/anchor_jax,
        then ~/.cache/anchor_jax).

    Returns:
      `Dataset` with images uint8 [N, H, W, C] and labels int32 [N].

    Raises:
      UserTypeError: an argument is of the wrong type.
      UserError: an unknown source, data set or split, a data set that is not prepared, or unusable files.
    """
    found, where = _opened(source, _request(split, name, path, image_size, crop_fraction))
    if isinstance(found, Encoded):
        found = load_cached(found, decode_all, os.fspath(cache_dir or ""))
    return _sized(validate_dataset(found, where), source, image_size)


def open_stream(
    source: str,
    split: str,
    *,
    name: str = "",
    path: str | os.PathLike[str] = "",
    image_size: int = 0,
    crop_fraction: float = 1.0,
    mode: str = "",
    title: str = "",
) -> EvalDataset:
    """Opens one split of a data set as a stream of the very images that `load` gives; they pass through no cache.

    Args:
      source: see `load`.
      split: see `load`.
      name: see `load`.
      path: see `load`.
      image_size: see `load`.
      crop_fraction: see `load`.
      mode: "L" or "RGB", to which images of "tfds" and "folder" are converted; "": as `load` does.
      title: name of the stream; "": the source and split.

    Returns:
      `EvalDataset`, of which "tfds" and "folder" hold a few batches in memory at a time.

    Raises:
      UserError: as `load` does; for damaged images, sizes and labels when their batch is asked for.
    """
    found, where = _opened(source, _request(split, name, path, image_size, crop_fraction))
    if isinstance(found, Dataset):
        return eval_dataset(_sized(validate_dataset(found, where), source, image_size), title or where)
    check_classes(found.label_names, found.title)
    return eval_dataset_from_encoded(found._replace(mode=lambda: mode) if mode else found, title or where)


def open_encoded(
    source: str,
    split: str,
    *,
    name: str = "",
    path: str | os.PathLike[str] = "",
    image_size: int = 0,
    crop_fraction: float = 1.0,
) -> Encoded:
    """Opens one split of "tfds" or "folder" for random access, without a look at its images; see `load`.

    Raises:
      UserError: another source, fewer than two classes, or as `load` does.
    """
    checks.known("data source", source, _SOURCES)
    if source not in _ENCODED:
        raise UserError(
            f"source '{source}' is no stream of encoded images; allowed: {', '.join(_ENCODED)}; for a set that fits "
            "into memory set config.data.streaming=False"
        )
    found, _ = _opened(source, _request(split, name, path, image_size, crop_fraction))
    assert isinstance(found, Encoded)
    check_classes(found.label_names, found.title)
    return found


def open_images(
    path: str | os.PathLike[str], *, image_size: int, mode: str, title: str, crop_fraction: float = 1.0
) -> EvalDataset:
    """Opens all images below a folder, at any depth, as a stream of the one class "image", sorted by path.

    Args:
      path: the folder; what is hidden in it is left out.
      image_size: see `load`.
      mode: see `open_stream`.
      title: name of the stream.
      crop_fraction: see `load`.

    Raises:
      UserError: no folder, or no images in it; for damaged images and sizes when their batch is asked for.
    """
    root = absolute(path)
    with reading_errors(f"folder '{root}'", "give a folder of images"):
        os.listdir(root)  # rglob finds nothing in what is no folder
        files = sorted(file for file in root.rglob("*") if is_image(file.name) and not _hidden(file.relative_to(root)))
    if not files:
        raise UserError(f"no images in '{root}' or below it; their names end in {', '.join(sorted(_IMAGE_SUFFIXES))}")
    names = [os.path.relpath(file, root) for file in files]
    encoded = _encoded_files(root.name, ("image",), Files(root, names), np.zeros(len(files), np.int32))
    encoded = encoded._replace(image_size=image_size, crop_fraction=crop_fraction)
    return eval_dataset_from_encoded(encoded._replace(mode=lambda: mode) if mode else encoded, title)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _opened(source: str, request: _Request) -> tuple[Dataset | Encoded, str]:
    """What a source has, and what a message calls it."""
    checks.known("data source", source, _SOURCES)
    size, fraction = request.image_size, request.crop_fraction
    if size < 0:
        raise UserError(f"data.image_size={size}; allowed: 0 (the stored size) or a number of pixels")
    if fraction != 1 and not (0 < fraction < 1 and size and source in _ENCODED):
        raise UserError(
            f"data.crop_fraction={fraction}; allowed: 1, or in (0, 1) where data.image_size is given, of the sources "
            f"{', '.join(_ENCODED)}"
        )
    found = _SOURCES[source](request)
    if isinstance(found, Encoded):
        found = found._replace(image_size=size, crop_fraction=fraction)
    return found, f"{source} split '{request.split}'"


def _sized(dataset: Dataset, source: str, image_size: int) -> Dataset:
    height, width = dataset.images.shape[1:3]
    if image_size and (height, width) != (image_size, image_size):
        raise UserError(
            f"data.image_size={image_size}, but images of source '{source}' are {height}x{width} and only "
            "'tfds' and 'folder' are resized; set data.image_size=0"
        )
    return dataset


def _given_path(request: _Request, expected: str) -> Path:
    if not request.path:
        raise UserError(f"data.path is empty; {expected}")
    return absolute(request.path)


# --- digits ---------------------------------------------------------------------------------------------


def _digits(request: _Request) -> Dataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if request.split not in ("train", "test"):
        raise errors.unknown("split of digits", request.split, ("train", "test"))
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    train, test = train_test_split(np.arange(len(labels)), test_size=360, random_state=0, stratify=labels)
    rows = train if request.split == "train" else test
    images = np.rint(pixels[rows] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return Dataset(images, labels[rows], tuple("0123456789"))


# --- TensorFlow Datasets --------------------------------------------------------------------------------


def _tfds(request: _Request) -> Encoded:
    if not request.name:
        raise UserError("data.name is empty; source 'tfds' needs the name of a data set, such as 'cifar10'")
    data_dir = tfds_data_dir(request.path)
    prepare = _prepare_command(request.name, data_dir)
    mend = f"check data.name, or prepare the data set again: {prepare}"
    with reading_errors(f"tfds data set '{request.name}' in '{data_dir}'", mend):
        builder = _tfds_builder(request.name, data_dir)
        mode, label_names = _classification_features(builder)
        records = _tfds_records(builder, request.split, prepare)
        files = sorted(Path(builder.data_dir).iterdir())
    title = f"{builder.info.full_name}-{request.split}"

    return Encoded(title, label_names, len(records), _RecordExamples(records, title, mend), lambda: mode, 0, files)


class _RecordExamples(NamedTuple):
    """The examples of a prepared set; it can be sent to another process, which opens the files anew."""

    records: Sequence[Any]
    title: str
    mend: str

    def __call__(self, row: int) -> Example:
        where = f"example {row} of {self.title}"
        with reading_errors(where, self.mend):
            record = self.records[row]
        return Example(record["image"], record["label"], where)


def tfds_data_dir(path: str) -> Path:
    """Where prepared sets are: `path`, then $TFDS_DATA_DIR, then ~/tensorflow_datasets."""
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return absolute(path or default)


def _tfds_builder(name: str, data_dir: Path) -> Any:
    # Read from the prepared files alone: this finds any version and a user's own data sets, and needs
    # neither TensorFlow nor the network.
    from tensorflow_datasets.core import read_only_builder, registered

    try:
        return read_only_builder.builder_from_files(name, data_dir=str(data_dir))
    except registered.DatasetNotFoundError as error:
        raise _not_prepared(name, data_dir) from error


def _not_prepared(name: str, data_dir: Path) -> UserError:
    import tensorflow_datasets as tfds

    found = sorted(data_dir.glob("*/*/features.json")) + sorted(data_dir.glob("*/*/*/features.json"))
    prepared = [str(file.parent.relative_to(data_dir)) for file in found]
    present = f"prepared in '{data_dir}': {', '.join(prepared) or 'nothing'}"
    known = tfds.list_builders(with_community_datasets=False)  # the community list is on the network
    base = re.split("[/:]", name)[0]
    if base in known:
        command = _prepare_command(name, data_dir)
        return UserError(f"tfds data set '{name}' is not prepared; {present}; to prepare it: {command}")
    nearest = ", ".join(difflib.get_close_matches(base, known)) or "none"
    return UserError(f"unknown tfds data set '{name}'; nearest names: {nearest}; {present}")


def _prepare_command(name: str, data_dir: Path) -> str:
    # Only array_record and parquet can be read without TensorFlow, and TFDS writes tfrecord if not told.
    builder = f"tfds.builder('{name}', data_dir='{data_dir}', file_format='array_record')"
    return (
        f'python -c "import tensorflow_datasets as tfds; {builder}.download_and_prepare()" '
        "(preparing, unlike reading, needs tensorflow installed)"
    )


def _classification_features(builder: Any) -> tuple[str, tuple[str, ...]]:
    """Checks that the set holds labelled 8-bit images; returns Pillow's mode for them and the class names."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    image, label = features.get("image"), features.get("label")
    is_image = isinstance(image, tfds.features.Image) and image.np_dtype == np.uint8
    if not (is_image and isinstance(label, tfds.features.ClassLabel)):
        raise UserError(
            f"{builder.info.full_name} has the features {', '.join(features)}; image classification needs "
            "'image' (Image, uint8) and 'label' (ClassLabel)"
        )
    return "L" if features["image"].shape[-1] == 1 else "RGB", tuple(label.names)


def _tfds_records(builder: Any, split: str, prepare: str) -> Sequence[Any]:
    """Records of a split, the images still encoded: bytes `image` and integer `label` in each."""
    import tensorflow_datasets as tfds

    try:
        records = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        if len(records) == 0:  # len itself raises ValueError for a slice that ends before it starts
            raise ValueError("empty split")
    except NotImplementedError as error:
        raise UserError(
            f"{builder.info.full_name} is stored as {builder.info.file_format.value}, which cannot be read "
            f"without TensorFlow; delete '{builder.data_dir}' or set another data.path, then: {prepare}"
        ) from error
    except ValueError as error:
        names = list(builder.info.splits)
        raise UserError(
            f"split '{split}' of {builder.info.full_name} is unknown or empty; allowed: {', '.join(names)}, "
            f"and slices such as '{names[0]}[:90%]'"
        ) from error
    return records


# --- a folder of images ---------------------------------------------------------------------------------


class Files(Sequence[Path]):
    """Files of one folder. Their names are one string, in which millions take no more room than they do on disk."""

    def __init__(self, folder: Path, names: Iterable[str]):
        encoded = [os.fsencode(name) for name in names]
        self._folder = folder
        self._names = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> Path:  # pyright: ignore[reportIncompatibleMethodOverride]  # no slices
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self._folder / os.fsdecode(self._names[self._ends[row] : self._ends[row + 1]])


def _folder(request: _Request) -> Encoded:
    root = _given_path(request, f"source 'folder' needs a folder; {_FOLDER_LAYOUT}")
    with reading_errors(f"folder '{root}'", _FOLDER_LAYOUT):
        splits = subfolders(root)
        if request.split not in splits:
            raise UserError(
                f"no split '{request.split}' in '{root}'; it holds: {', '.join(splits) or 'no folders'}; "
                f"{_FOLDER_LAYOUT}"
            )
        label_names = subfolders(root / request.split)
        files, labels = _folder_files(root / request.split, label_names)
    return _encoded_files(f"{root.name}-{request.split}", tuple(label_names), files, labels)


class _FileExamples(NamedTuple):
    """The examples of a folder."""

    files: Sequence[Path]
    labels: np.ndarray  # int32 [N]

    def __call__(self, row: int) -> Example:
        file = self.files[row]
        return Example(file, int(self.labels[row]), str(file))


def _encoded_files(title: str, label_names: tuple[str, ...], files: Sequence[Path], labels: np.ndarray) -> Encoded:
    example = _FileExamples(files, labels)

    @cache
    def mode() -> str:
        return "L" if all(mode_of(example(row)) == "L" for row in range(len(files))) else "RGB"

    return Encoded(title, label_names, len(files), example, mode, 0, files)


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _folder_files(split: Path, label_names: list[str]) -> tuple[Files, np.ndarray]:
    """All images of a split, class by class, and their labels."""
    if not label_names:
        raise UserError(f"no class folders in '{split}'; {_FOLDER_LAYOUT}")
    names, counts = [], []
    for label_name in label_names:
        found = sorted(filter(is_image, os.listdir(split / label_name)))
        if not found:
            raise UserError(f"no images in class folder '{split / label_name}'; {_FOLDER_LAYOUT}")
        names += [os.path.join(label_name, name) for name in found]
        counts.append(len(found))
    return Files(split, names), np.repeat(np.arange(len(label_names), dtype=np.int32), counts)


def is_image(name: str) -> bool:
    """Whether a file with this name is taken for an image."""
    return os.path.splitext(name)[1].lower() in _IMAGE_SUFFIXES and not name.startswith(".")


# --- .npz files -----------------------------------------------------------------------------------------


def _npz(request: _Request) -> Dataset:
    x, y = f"x_{request.split}", f"y_{request.split}"
    expected = f"expected: an .npz file with the arrays {x} (uint8 [N, H, W, C]) and {y} (integers [N])"
    path = _given_path(request, expected)
    with open_npz(path, expected) as arrays:
        for key in (x, y):
            if key not in arrays.files:
                raise UserError(f"no array '{key}' in '{path}'; it holds: {', '.join(arrays.files)}")
        images, labels = np.asarray(arrays[x]), np.asarray(arrays[y])
        label_names = _npz_label_names(arrays, str(path))
    if images.ndim == 3:
        images = images[..., None]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return Dataset(images, labels, label_names)


def _npz_label_names(arrays: Any, path: str) -> tuple[str, ...]:
    """The array `label_names`, or numbers up to the highest label of all splits, so that they agree."""
    if "label_names" in arrays.files:
        names = np.asarray(arrays["label_names"])
        if names.dtype.kind != "U" or names.ndim != 1:
            raise UserError(
                f"label_names in '{path}': strings [classes] expected, got {names.dtype} {list(names.shape)}"
            )
        return tuple(names.tolist())
    labels = [np.asarray(arrays[key]) for key in arrays.files if key.startswith("y_")]
    highest = max((int(y.max()) for y in labels if y.size and y.dtype.kind in "iu"), default=-1)
    return numbered_classes(highest, path)


def numbered_classes(highest_label: int, path: str) -> tuple[str, ...]:
    """Names of classes that have none: numbers."""
    if highest_label >= _MAX_NUMBERED_CLASSES:
        raise UserError(f"labels in '{path}' go up to {highest_label}; allowed: below {_MAX_NUMBERED_CLASSES}")
    return tuple(str(label) for label in range(highest_label + 1))


_SOURCES: dict[str, Callable[[_Request], Dataset | Encoded]] = {
    "digits": _digits,
    "tfds": _tfds,
    "folder": _folder,
    "npz": _npz,
}
_ENCODED = ("tfds", "folder")  # those of encoded images, which are resized
