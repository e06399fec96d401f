"""Decoded images kept on disk, since decoding takes long and gives the same every time."""

import hashlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.data.dataset import Dataset, absolute, open_npz, reading_errors, validate_dataset
from anchor_jax.data.decoding import Encoded
from anchor_jax.runtime.atomic_files import atomic_write, cache_folder

_FORMAT = 1  # raise when the same files decode to other pixels, so that old caches are not read


def load_cached(
    encoded: Encoded, decode: Callable[[Encoded], tuple[np.ndarray, np.ndarray]], cache_dir: str
) -> Dataset:
    """Decoded images from the cache if they were made from just these files, otherwise from `decode`.

    The folder is `cache_dir`, or the default of `load` where that is empty.
    """
    cache = _cache_file(encoded, cache_dir)
    if cache.is_file():
        try:
            return _read_cache(cache)
        except UserError as error:
            warnings.warn(f"damaged cache is made again: {error}", stacklevel=3)
    dataset = validate_dataset(Dataset(*decode(encoded), encoded.label_names), encoded.title)
    try:
        _write_cache(cache, dataset)
    except OSError as error:
        warnings.warn(f"decoded images cannot be kept in '{cache.parent}': {error}", stacklevel=3)
    return dataset


def _cache_file(encoded: Encoded, cache_dir: str) -> Path:
    folder = absolute(cache_dir) if cache_dir else cache_folder()
    title, image_size = encoded.title, encoded.image_size
    digest = hashlib.sha256(repr((_FORMAT, title, image_size, encoded.crop_fraction)).encode())
    for file in encoded.files:
        with reading_errors(f"'{file}'", "replace or remove it"):
            status = file.stat()
        digest.update(repr((str(file), status.st_size, status.st_mtime_ns)).encode())
    readable = re.sub(r"[^\w.]+", "-", title, flags=re.ASCII)[:100]
    return folder / f"{readable}-{image_size}px-{digest.hexdigest()[:16]}.npz"


def _read_cache(cache: Path) -> Dataset:
    with open_npz(cache, "decoding again") as arrays:
        names = tuple(arrays["label_names"].tolist())
        return validate_dataset(Dataset(arrays["images"], arrays["labels"], names), str(cache))


def _write_cache(cache: Path, dataset: Dataset) -> None:
    with atomic_write(cache) as file:
        np.savez(file, images=dataset.images, labels=dataset.labels, label_names=dataset.label_names)
