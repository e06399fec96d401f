"""Helpers of the tests of data sources: image files, comparisons, and a ban on decoding."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anchor_jax.data import Dataset, sources


def assert_same_dataset(a: Dataset, b: Dataset) -> None:
    """Two datasets are equal, and have the dtypes of `load`."""
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a.label_names == b.label_names
    assert (a.images.dtype, a.labels.dtype) == (b.images.dtype, b.labels.dtype) == (np.uint8, np.int32)


def forbid_decoding(monkeypatch) -> None:
    """Fail the test if `load` decodes images instead of reading its cache."""

    def fail(*args):
        raise AssertionError("decoded although it is cached")

    monkeypatch.setattr(sources, "decode_all", fail)


def write_image(file: Path, size=(6, 6), mode="RGB", value=None, seed=0, **options: Any) -> np.ndarray:
    """Write an image of random pixels, or of one value; return its pixels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    random = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    pixels = random if value is None else np.full(shape, value, np.uint8)
    Image.fromarray(pixels).save(file, **options)
    return pixels


def write_small_folder(root: Path) -> Path:
    """Write a split "train" of four 6 x 6 images in three classes and three formats; return `root`."""
    for seed, name in enumerate(("cat/b.png", "cat/a.PNG", "ant/z.bmp", "dog/y.webp")):
        write_image(root / "train" / name, seed=seed, lossless=True)
    return root
