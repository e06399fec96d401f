"""Open a split of a dataset: in memory (`load`), in batches (`open_stream`) or encoded (`open_encoded`).

To add a data source, write a function `SourceRequest -> Dataset | EncodedDataset` in a file of this package, and
register it in `SOURCES`. Configs then accept it as `data.source`, and `open_dataset` and `eval.py` accept it as
"SOURCE:PATH@SPLIT".
"""

import dataclasses
import math
import os
from typing import NamedTuple

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data import orientation as orientations
from anchor_jax.data import resampling
from anchor_jax.data.cache import load_cached
from anchor_jax.data.dataset import Dataset, check_label_names, validate_dataset, warn_similar_names
from anchor_jax.data.decoding import EncodedDataset, Size, decode_all
from anchor_jax.data.eval_dataset import EvalDataset, eval_dataset, eval_dataset_from_encoded
from anchor_jax.data.modes import AUTO, check_mode, convert_images
from anchor_jax.data.sources.digits import open_digits
from anchor_jax.data.sources.folder import open_folder
from anchor_jax.data.sources.npz import open_npz_split
from anchor_jax.data.sources.source import Source, SourceRequest
from anchor_jax.data.sources.tfds import open_tfds

SOURCES: dict[str, Source] = {
    "tfds": Source(open_tfds, located_by="name", is_encoded=True),
    "folder": Source(open_folder, located_by="path", is_encoded=True),
    "npz": Source(open_npz_split, located_by="path", is_encoded=False),
    "digits": Source(open_digits, located_by="", is_encoded=False),
}
_ENCODED = ", ".join(name for name, source in SOURCES.items() if source.is_encoded)


def load(
    source: str,
    split: str,
    *,
    name: str = "",
    path: str | os.PathLike[str] = "",
    image_size: Size = 0,
    crop_fraction: float = 1.0,
    interpolation: str = resampling.AUTO,
    resizing: str = resampling.AUTO,
    orientation: str = orientations.AUTO,
    mode: str = AUTO,
    channels: int = 0,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Load one split of a dataset into memory; nothing is ever downloaded.

    The decoded images of "tfds" and "folder" are cached as one .npz file, so that loading them again is fast.

    Args:
      source: "digits" (scikit-learn's 8 x 8 digits, always available), "tfds" (a prepared TensorFlow Datasets dataset
        with the features `image` and `label`), "folder" (`path/split/class_name/image.png`, at any depth) or "npz" (a
        file with the arrays `x_{split}`, `y_{split}` and optionally `label_names`). Without `label_names`, the distinct
        labels of all splits of an "npz" are its classes, named by the labels.
      split: name of the split; "tfds" also accepts slices such as "train[:90%]".
      name: name of the dataset, for "tfds" only.
      path: TFDS data directory (default: $TFDS_DATA_DIR, or else ~/tensorflow_datasets), image folder or file.
      image_size: S, in pixels. The shorter side is resized to `round(S / crop_fraction)`, and the center is cropped to
        S x S ("tfds" and "folder" only). 0 keeps the stored size; (H, W) is the same for oblong images.
      crop_fraction: in (0, 1].
      interpolation: how images are resized, "bilinear" or "bicubic", with antialiasing; "auto": bicubic.
      resizing: "box": resize and crop in one step; "shorter_side": the shorter side is resized to
        `floor(S / crop_fraction)` pixels, then the center is cropped, as in torchvision and timm, whose pixels these
        are; "stretch": both sides are resized to as many pixels, so that the aspect ratio changes; "auto": "box".
      orientation: "exif" or "auto" turns images upright, if their EXIF data say how; "stored" does not.
      mode: convert the images to "L" (grayscale) or "RGB"; "auto": grayscale if all image files of the split are,
        otherwise RGB, and arrays as they are.
      channels: the number C of channels, or 0 for any up to 4. Arrays with a longer last axis are mostly
        `[N, C, H, W]`, so that their number must be given, such as 13 of multispectral images.
      cache_dir: folder of the cache (default: $ANCHOR_JAX_CACHE, or else $XDG_CACHE_HOME/anchor_jax, or else
        ~/.cache/anchor_jax).

    Returns:
      `Dataset` with images uint8 `[N, H, W, C]` and labels int32 `[N]`.

    Raises:
      UserTypeError: an argument has the wrong type.
      UserError: the source, dataset or split is unknown, the dataset is not prepared, or its files cannot be used.

    Example:
      >>> import anchor_jax as aj
      >>> train = aj.data.load("digits", "train")
      >>> train.images.shape, train.images.dtype, train.labels.dtype
      ((1437, 8, 8, 1), dtype('uint8'), dtype('int32'))
    """
    opened = _open(
        source, split, name, path, image_size, crop_fraction, interpolation, resizing, orientation, mode, channels
    )
    dataset = opened.data
    if isinstance(dataset, EncodedDataset):
        dataset = load_cached(dataset, decode_all, os.fspath(cache_dir or ""))
    return _finished(opened._replace(data=dataset), source, image_size, channels)


def open_stream(
    source: str,
    split: str,
    *,
    name: str = "",
    path: str | os.PathLike[str] = "",
    image_size: Size = 0,
    crop_fraction: float = 1.0,
    interpolation: str = resampling.AUTO,
    resizing: str = resampling.AUTO,
    orientation: str = orientations.AUTO,
    mode: str = AUTO,
    channels: int = 0,
    title: str = "",
) -> EvalDataset:
    """Open one split of a dataset in batches; the images equal those of `load`, without a cache.

    Args:
      source: see `load`. For "tfds" and "folder" only a few batches are in memory at a time.
      split: see `load`.
      name: see `load`.
      path: see `load`.
      image_size: see `load`.
      crop_fraction: see `load`.
      interpolation: see `load`.
      resizing: see `load`.
      orientation: see `load`.
      mode: see `load`.
      channels: see `load`.
      title: name of the returned dataset; "": the source and split.

    Returns:
      `EvalDataset`.

    Raises:
      UserTypeError: an argument has the wrong type.
      UserError: as `load`. An image that is corrupt or differs in size, and an invalid label, raise when their batch is
        read.

    Example:
      >>> import anchor_jax as aj
      >>> test = aj.data.open_stream("digits", "test", title="digits")
      >>> test.name, test.num_examples
      ('digits', 360)
    """
    opened = _open(
        source, split, name, path, image_size, crop_fraction, interpolation, resizing, orientation, mode, channels
    )
    title, dataset = title or opened.title, opened.data
    if isinstance(dataset, Dataset):
        stream = eval_dataset(_finished(opened, source, image_size, channels), title, channels=channels)
    else:
        check_label_names(dataset.label_names, dataset.title)
        stream = eval_dataset_from_encoded(dataset, title)
        check_channels(stream.image_shape, channels, opened.title)
    return dataclasses.replace(stream, split=split)


def open_encoded(
    source: str,
    split: str,
    *,
    name: str = "",
    path: str | os.PathLike[str] = "",
    image_size: Size = 0,
    crop_fraction: float = 1.0,
    interpolation: str = resampling.AUTO,
    resizing: str = resampling.AUTO,
    orientation: str = orientations.AUTO,
    mode: str = AUTO,
) -> EncodedDataset:
    """Open one split of "tfds" or "folder" for random access; no image is read. The arguments are those of `load`.

    Raises:
      UserError: the images of the source are not encoded, there are fewer than two classes, or as `load`.
    """
    check_is_encoded(source)
    dataset = _open(
        source, split, name, path, image_size, crop_fraction, interpolation, resizing, orientation, mode
    ).data
    assert isinstance(dataset, EncodedDataset)
    check_label_names(dataset.label_names, dataset.title)
    return dataset


def check_is_encoded(source: str) -> None:
    """Raise a `UserError` unless images of a source are decoded later, so that they can be streamed."""
    checks.known("data source", source, SOURCES)
    if not SOURCES[source].is_encoded:
        raise UserError(
            f"source '{source}' cannot be streamed; allowed: {_ENCODED}; for a dataset that fits into memory set "
            "config.data.streaming=False"
        )


class _OpenedSplit(NamedTuple):
    """A split, not yet validated, its name in error messages, and the mode to read it in."""

    data: Dataset | EncodedDataset
    title: str
    mode: str


def _open(
    source: str,
    split: str,
    name: str,
    path: str | os.PathLike[str],
    image_size: Size,
    crop_fraction: float,
    interpolation: str,
    resizing: str,
    orientation: str,
    mode: str,
    channels: int = 0,
) -> _OpenedSplit:
    checks.text("split", split)
    checks.text("name", name)
    checks.path("path", path)
    checks.number("crop_fraction", crop_fraction, high=math.inf)
    resampling.check_interpolation(interpolation)
    resampling.check_resizing(resizing)
    orientations.check_orientation(orientation)
    given = image_size if isinstance(image_size, tuple) else (image_size,)
    sides = [checks.integer("image_size", side) for side in given]
    checks.count("channels", channels, least=0)
    mode = check_mode(mode)
    checks.known("data source", source, SOURCES)
    if (isinstance(image_size, tuple) and (len(sides) != 2 or min(sides) < 1)) or min(sides) < 0:
        raise UserError(f"data.image_size={image_size}; allowed: 0 (the stored size), a number of pixels, or (H, W)")
    is_encoded = SOURCES[source].is_encoded
    if crop_fraction != 1 and not (0 < crop_fraction < 1 and image_size and is_encoded):
        raise UserError(
            f"data.crop_fraction={crop_fraction}; allowed: 1, or in (0, 1) together with data.image_size for the "
            f"sources {_ENCODED}"
        )
    dataset = SOURCES[source].open(SourceRequest(split, name, os.fspath(path)))
    if isinstance(dataset, EncodedDataset):
        dataset = dataset._replace(
            image_size=(sides[0], sides[1]) if len(sides) == 2 else sides[0],
            crop_fraction=crop_fraction,
            interpolation=interpolation,
            resizing=resizing,
            orientation=orientation,
            given_mode=mode,
        )
    opened = _OpenedSplit(dataset, f"{source} split '{split}'", mode)
    warn_similar_names(dataset.label_names, opened.title)
    return opened


def _finished(opened: _OpenedSplit, source: str, image_size: Size, channels: int) -> Dataset:
    """Validate a split in memory, convert its images to the mode, and check their shape."""
    assert isinstance(opened.data, Dataset)
    images, labels, label_names = validate_dataset(opened.data, opened.title, channels)
    images = convert_images(images, opened.mode, opened.title)
    check_channels(images.shape, channels, opened.title)
    check_image_size(images.shape, source, image_size)
    return Dataset(images, labels, label_names)


def check_channels(shape: tuple[int, ...], channels: int, title: str) -> None:
    """Raise a `UserError` unless images have the given number of channels, or none is given (0)."""
    if channels and shape[-1] != channels:
        raise UserError(
            f"config.data.channels={channels}, but images of {title} are {list(shape[-3:])}; give images with that "
            "number of channels; for 1 or 3, config.data.mode='L' or 'RGB' converts them"
        )


def check_image_size(shape: tuple[int, ...], source: str, image_size: Size) -> None:
    """Raise a `UserError` unless images `[..., H, W, C]` have the given size, or none is given (0)."""
    height, width = shape[-3:-1]
    if image_size and (height, width) != (image_size if isinstance(image_size, tuple) else (image_size, image_size)):
        raise UserError(
            f"data.image_size={image_size}, but images of source '{source}' are {height}x{width}, and only those of "
            f"{_ENCODED} are resized; set data.image_size=0"
        )
