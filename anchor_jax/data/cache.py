"""A cache of decoded images on disk, because decoding is slow and deterministic."""

import hashlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.data.dataset import Dataset, validate_dataset
from anchor_jax.data.decoding import EncodedDataset
from anchor_jax.data.files import open_npz, reading_errors
from anchor_jax.data.modes import AUTO, mode_of
from anchor_jax.data.orientation import STORED
from anchor_jax.data.resampling import AUTO as AUTO_INTERPOLATION
from anchor_jax.data.resampling import filter_of_images, is_box
from anchor_jax.runtime.atomic_files import atomic_write, cache_folder
from anchor_jax.runtime.paths import absolute_path

_FORMAT = 1  # increment when the same files decode to different pixels, which invalidates existing caches


def load_cached(
    encoded: EncodedDataset, decode: Callable[[EncodedDataset], tuple[np.ndarray, np.ndarray]], cache_dir: str
) -> Dataset:
    """Return the decoded dataset: from the cache if its files have not changed since, otherwise from `decode`.

    Args:
      encoded: the dataset.
      decode: returns its images uint8 `[N, H, W, C]` and labels `[N]`.
      cache_dir: folder of the cache; "" is the default of `anchor_jax.data.load`.
    """
    try:
        folder = absolute_path("cache_dir", cache_dir) if cache_dir else cache_folder()
    except (OSError, UserError) as error:
        if cache_dir:
            raise
        warnings.warn(f"cannot cache decoded images: {error}", stacklevel=3)
        return _decoded(encoded, decode)
    of_own_mode, cache_file = _cache_files(encoded, folder)
    for file in dict.fromkeys((of_own_mode, cache_file)):
        cached = _read_or_warn(file)
        if cached and encoded.given_mode in (AUTO, mode_of(cached.images.shape)):
            return cached
    dataset = _decoded(encoded, decode)
    try:
        _write(cache_file, dataset)
    except OSError as error:
        warnings.warn(f"cannot cache decoded images in '{cache_file.parent}': {error}", stacklevel=3)
    return dataset


def _decoded(encoded: EncodedDataset, decode: Callable[[EncodedDataset], tuple[np.ndarray, np.ndarray]]) -> Dataset:
    return validate_dataset(Dataset(*decode(encoded), encoded.label_names), encoded.title)


def _cache_files(encoded: EncodedDataset, folder: Path) -> tuple[Path, Path]:
    """Return the paths for the images in their own mode, and in the given one.

    They depend on the decoding options, and on size and modification time of every file.
    """
    title, image_size = encoded.title, encoded.image_size
    size = "x".join(map(str, image_size)) if isinstance(image_size, tuple) else image_size
    options = [_FORMAT, title, image_size, encoded.crop_fraction]
    if filter_of_images(encoded.interpolation) != filter_of_images(AUTO_INTERPOLATION):  # the only one of version 0.1
        options.append(encoded.interpolation)
    if not is_box(encoded.resizing):  # the only one of version 0.1
        options.append(encoded.resizing)
    if encoded.orientation != STORED:  # the only one of version 0.1
        options.append("upright")
    digest = hashlib.sha256(repr(tuple(options)).encode())
    for file in encoded.files:
        with reading_errors(f"'{file}'", "replace or remove it"):
            status = file.stat()
        digest.update(repr((str(file), status.st_size, status.st_mtime_ns)).encode())
    readable = re.sub(r"[^\w.]+", "-", title, flags=re.ASCII)[:100]
    of_own_mode = digest.hexdigest()
    if encoded.given_mode != AUTO:
        digest.update(encoded.given_mode.encode())
    own, given = (folder / f"{readable}-{size}px-{key[:16]}.npz" for key in (of_own_mode, digest.hexdigest()))
    return own, given


def _read_or_warn(file: Path) -> Dataset | None:
    """Read a cache; return None if there is none, or if it is corrupt."""
    try:
        return _read(file) if file.is_file() else None
    except UserError as error:
        warnings.warn(f"rebuilding a corrupt cache: {error}", stacklevel=4)
        return None


def _read(file: Path) -> Dataset:
    with open_npz(file, "decoding again") as arrays:
        names = tuple(arrays["label_names"].tolist())
        return validate_dataset(Dataset(arrays["images"], arrays["labels"], names), str(file))


def _write(file: Path, dataset: Dataset) -> None:
    with atomic_write(file) as new:
        np.savez(new, images=dataset.images, labels=dataset.labels, label_names=dataset.label_names)
