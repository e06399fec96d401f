"""Labelled images as NumPy arrays: scikit-learn's digits, TFDS, a folder of images or an .npz file."""

import contextlib
import difflib
import hashlib
import io
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from anchor_jax import errors
from anchor_jax.errors import UserError

_IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_FOLDER_LAYOUT = "expected layout: <data.path>/<split>/<class name>/<image>.png"
_MAX_NUMBERED_CLASSES = 1_000_000
_ROWS_PER_TASK = 64
_CACHE_FORMAT = 1  # raise when the same files decode to other pixels, so that old caches are not read


class Dataset(NamedTuple):
    """All images of one split, in a fixed order."""

    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray  # int32 [N], in [0, len(label_names))
    label_names: tuple[str, ...]


class _Request(NamedTuple):
    split: str
    name: str
    path: str
    image_size: int
    cache_dir: str


class _Example(NamedTuple):
    file: Path | bytes  # where the encoded image is, or the encoded image itself
    label: int
    where: str  # what an error message calls the image


def load(
    source: str,
    split: str,
    *,
    name: str = "",
    path: str | os.PathLike[str] = "",
    image_size: int = 0,
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
        image_size: 0 keeps the stored size; S resizes the shorter side to S and crops the centre to S x S
            ("tfds" and "folder").
        cache_dir: folder of the decoded images (default: $ANCHOR_JAX_CACHE, then $XDG_CACHE_HOME/anchor_jax,
            then ~/.cache/anchor_jax).

    Returns:
        `Dataset` with images uint8 [N, H, W, C] and labels int32 [N].

    Raises:
        UserError: an unknown source, data set or split, a data set that is not prepared, or unusable files.
    """
    if source not in _SOURCES:
        raise errors.unknown("data source", source, _SOURCES)
    if image_size < 0:
        raise UserError(f"data.image_size={image_size}; allowed: 0 (the stored size) or a number of pixels")
    request = _Request(split, name, os.fspath(path), image_size, os.fspath(cache_dir or ""))
    dataset = _validated(_SOURCES[source](request), f"{source} split '{split}'")
    height, width = dataset.images.shape[1:3]
    if image_size and (height, width) != (image_size, image_size):
        raise UserError(
            f"data.image_size={image_size}, but images of source '{source}' are {height}x{width} and only "
            "'tfds' and 'folder' are resized; set data.image_size=0"
        )
    return dataset


def select_rows(labels: np.ndarray, size: int, *, per_class: bool = False, seed: int) -> np.ndarray:
    """Draws the rows of a reference bank, without replacement; the same seed gives the same rows.

    Args:
        labels: integer labels [N] of the data that the bank is drawn from.
        size: number of rows; 0 takes all.
        per_class: draw as equal numbers from every class as the data allows, instead of uniformly.
        seed: seed of the draw.

    Returns:
        int32 [size] (or [N]): distinct rows in ascending order.

    Raises:
        UserError: `size` is negative, above N, or below the number of classes when `per_class` is set.
    """
    num_rows = len(labels)
    if not 0 <= size <= num_rows:
        raise UserError(f"anchoring.bank_size={size}; allowed: 0 (all) to {num_rows}, the size of the data")
    if size == 0:
        return np.arange(num_rows, dtype=np.int32)
    num_classes = len(np.unique(labels))
    if per_class and size < num_classes:
        raise UserError(
            f"anchoring.bank_size={size} drawn per class; allowed: 0 (all) or {num_classes} (the number of "
            f"classes) to {num_rows}"
        )
    shuffled = np.random.default_rng(seed).permutation(num_rows)
    if per_class:
        shuffled = _round_robin(shuffled, labels)
    return np.sort(shuffled[:size]).astype(np.int32)


def _round_robin(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Reorders rows: the first of every class, then the second of every class, and so on."""
    by_class = np.argsort(labels[rows], kind="stable")
    counts = np.unique(labels, return_counts=True)[1]
    turn = np.empty_like(rows)
    turn[by_class] = np.concatenate([np.arange(count) for count in counts])
    return rows[np.argsort(turn, kind="stable")]


def _validated(dataset: Dataset, where: str) -> Dataset:
    images, labels, names = dataset
    if images.dtype != np.uint8:
        raise UserError(f"images of {where}: uint8 expected, got {images.dtype}")
    if images.ndim != 4 or 0 in images.shape:
        raise UserError(f"images of {where}: non-empty [N, H, W, C] expected, got {list(images.shape)}")
    if labels.dtype.kind not in "iu":
        raise UserError(f"labels of {where}: integers expected, got {labels.dtype}")
    if labels.shape != (len(images),):
        raise UserError(f"labels of {where}: [{len(images)}] expected, got {list(labels.shape)}")
    if len(names) < 2:
        raise UserError(f"{where} has {len(names)} class; at least 2 are needed")
    if labels.min() < 0 or labels.max() >= len(names):
        raise UserError(f"labels of {where}: 0 to {len(names) - 1} expected, got {labels.min()} to {labels.max()}")
    return Dataset(images, labels.astype(np.int32), names)


@contextlib.contextmanager
def _reading(what: str, mend: str) -> Iterator[None]:
    """Tells every failure to read `what` as one UserError that ends in how to mend it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Pillow, zipfile, NumPy and TFDS raise a dozen kinds on damaged bytes
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"cannot read {what} ({type(error).__name__}: {reason}); {mend}") from error


def _given_path(request: _Request, expected: str) -> Path:
    if not request.path:
        raise UserError(f"data.path is empty; {expected}")
    return Path(request.path).expanduser().absolute()


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


def _tfds(request: _Request) -> Dataset:
    if not request.name:
        raise UserError("data.name is empty; source 'tfds' needs the name of a data set, such as 'cifar10'")
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    data_dir = Path(request.path or default).expanduser().absolute()
    prepare = _prepare_command(request.name, data_dir)
    mend = f"check data.name, or prepare the data set again: {prepare}"
    with _reading(f"tfds data set '{request.name}' in '{data_dir}'", mend):
        builder = _tfds_builder(request.name, data_dir)
        mode, label_names = _classification_features(builder)
        records = _tfds_records(builder, request.split, prepare)
        files = sorted(Path(builder.data_dir).iterdir())
    title = f"{builder.info.full_name}-{request.split}"

    def example(row: int) -> _Example:
        where = f"example {row} of {title}"
        with _reading(where, mend):
            record = records[row]
        return _Example(record["image"], record["label"], where)

    def decode() -> Dataset:
        return Dataset(*_decode_all(example, len(records), mode, request.image_size), label_names)

    return _cached(request, title, files, decode)


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


def _folder(request: _Request) -> Dataset:
    root = _given_path(request, f"source 'folder' needs a folder; {_FOLDER_LAYOUT}")
    with _reading(f"folder '{root}'", _FOLDER_LAYOUT):
        splits = _subfolders(root)
        if request.split not in splits:
            raise UserError(
                f"no split '{request.split}' in '{root}'; it holds: {', '.join(splits) or 'no folders'}; "
                f"{_FOLDER_LAYOUT}"
            )
        label_names = _subfolders(root / request.split)
        examples = list(_folder_examples(root / request.split, label_names))

    def decode() -> Dataset:
        mode = "L" if all(_mode(example) == "L" for example in examples) else "RGB"
        decoded = _decode_all(examples.__getitem__, len(examples), mode, request.image_size)
        return Dataset(*decoded, tuple(label_names))

    return _cached(request, f"{root.name}-{request.split}", [Path(e.where) for e in examples], decode)


def _subfolders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _folder_examples(split: Path, label_names: list[str]) -> Iterator[_Example]:
    if not label_names:
        raise UserError(f"no class folders in '{split}'; {_FOLDER_LAYOUT}")
    for label, label_name in enumerate(label_names):
        files = [p for p in (split / label_name).iterdir() if p.suffix.lower() in _IMAGE_SUFFIXES]
        files = sorted(p for p in files if not p.name.startswith("."))
        if not files:
            raise UserError(f"no images in class folder '{split / label_name}'; {_FOLDER_LAYOUT}")
        for file in files:
            yield _Example(file, label, str(file))


# --- decoding -------------------------------------------------------------------------------------------


def _decode_all(
    example: Callable[[int], _Example], num: int, mode: str, image_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes examples 0 to num - 1 into images [num, H, W, C] and labels [num]."""
    first = example(0)
    shape = _decode(first, mode, image_size).shape
    images, labels = np.empty((num, *shape), np.uint8), np.empty(num, np.int64)

    def fill(rows: Iterable[int]) -> None:
        for row in rows:
            current = example(row)
            image = _decode(current, mode, image_size)
            if image.shape != shape:
                raise UserError(
                    f"images differ in size: {first.where} is {shape[0]}x{shape[1]}, {current.where} is "
                    f"{image.shape[0]}x{image.shape[1]}; set data.image_size to resize them"
                )
            images[row], labels[row] = image, current.label

    tasks = [range(start, min(start + _ROWS_PER_TASK, num)) for start in range(0, num, _ROWS_PER_TASK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, tasks):
            pass
    return images, labels


def _decode(example: _Example, mode: str, image_size: int) -> np.ndarray:
    with _opened(example) as image:
        if image.mode.startswith(("I", "F")):  # Pillow would clip these to 8 bits, not scale them
            raise UserError(f"image {example.where} has pixels of mode {image.mode}; 8 bits are expected")
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # what Pillow's own warning asks for
        image = image.convert(mode)
        if image_size:
            image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)
        return np.asarray(image).reshape(image.height, image.width, len(mode))


def _mode(example: _Example) -> str:
    with _opened(example) as image:
        return image.mode


@contextlib.contextmanager
def _opened(example: _Example) -> Iterator[Image.Image]:
    file = io.BytesIO(example.file) if isinstance(example.file, bytes) else example.file
    with _reading(f"image {example.where}", "replace or remove it"), Image.open(file) as image:
        yield image


# --- the cache of decoded images ------------------------------------------------------------------------


def _cached(request: _Request, title: str, files: list[Path], decode: Callable[[], Dataset]) -> Dataset:
    """Decoded images from the cache if they were made from just these files, otherwise from `decode`."""
    cache = _cache_file(request, title, files)
    if cache.is_file():
        try:
            return _read_cache(cache)
        except UserError as error:
            warnings.warn(f"damaged cache is made again: {error}", stacklevel=4)
    dataset = _validated(decode(), title)
    try:
        _write_cache(cache, dataset)
    except OSError as error:
        warnings.warn(f"decoded images cannot be kept in '{cache.parent}': {error}", stacklevel=4)
    return dataset


def _cache_file(request: _Request, title: str, files: list[Path]) -> Path:
    default = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "anchor_jax")
    folder = Path(request.cache_dir or os.environ.get("ANCHOR_JAX_CACHE") or default).expanduser()
    digest = hashlib.sha256(repr((_CACHE_FORMAT, title)).encode())
    for file in files:
        with _reading(f"'{file}'", "replace or remove it"):
            status = file.stat()
        digest.update(repr((str(file), status.st_size, status.st_mtime_ns)).encode())
    readable = re.sub(r"[^\w.]+", "-", title, flags=re.ASCII)[:100]
    return folder / f"{readable}-{request.image_size}px-{digest.hexdigest()[:16]}.npz"


def _read_cache(cache: Path) -> Dataset:
    with _opened_npz(cache, "decoding again") as arrays:
        names = tuple(arrays["label_names"].tolist())
        return _validated(Dataset(arrays["images"], arrays["labels"], names), str(cache))


def _write_cache(cache: Path, dataset: Dataset) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    # A folder beside the final place: on the same disk, so the move is atomic, and gone after any failure.
    with tempfile.TemporaryDirectory(dir=cache.parent, prefix="incomplete-") as scratch:
        incomplete = os.path.join(scratch, cache.name)
        np.savez(incomplete, images=dataset.images, labels=dataset.labels, label_names=dataset.label_names)
        os.replace(incomplete, cache)


# --- .npz files -----------------------------------------------------------------------------------------


def _npz(request: _Request) -> Dataset:
    x, y = f"x_{request.split}", f"y_{request.split}"
    expected = f"expected: an .npz file with the arrays {x} (uint8 [N, H, W, C]) and {y} (integers [N])"
    path = _given_path(request, expected)
    with _opened_npz(path, expected) as arrays:
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


@contextlib.contextmanager
def _opened_npz(path: Path, mend: str) -> Iterator[Any]:
    # np.load leaves a damaged file open if it opened it itself
    with _reading(f"'{path}'", mend), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        yield arrays


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
    if highest >= _MAX_NUMBERED_CLASSES:
        raise UserError(f"labels in '{path}' go up to {highest}; allowed: below {_MAX_NUMBERED_CLASSES}")
    return tuple(str(label) for label in range(highest + 1))


_SOURCES: dict[str, Callable[[_Request], Dataset]] = {
    "digits": _digits,
    "tfds": _tfds,
    "folder": _folder,
    "npz": _npz,
}
