"""Corrupted sets that are the clean set under another name."""

import numpy as np
import pytest
from small_datasets import LABEL_NAMES

from anchor_jax.core.errors import UserError
from anchor_jax.data import Dataset, check_differs, eval_dataset


def _stream(images: np.ndarray, name: str):
    return eval_dataset(Dataset(images, np.arange(len(images), dtype=np.int32) % 3, LABEL_NAMES), name)


def test_check_differs_rejects_the_clean_set():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (700, 5, 5, 3), np.uint8)
    clean, other = _stream(images, "test"), _stream(images ^ 1, "fog-1")
    check_differs(clean, other)
    for same in (images, images[::-1], rng.permutation(images)):
        with pytest.raises(UserError, match=r"the first images of 'fog-2' are all in the clean set 'test': they"):
            check_differs(clean, other, _stream(same, "fog-2"))


def test_check_differs_accepts_some_equal_images():
    images = np.random.default_rng(0).integers(0, 256, (100, 5, 5, 3), np.uint8)
    almost = images.copy()
    almost[31, 0, 0, 0] ^= 1
    check_differs(_stream(images, "test"), _stream(almost, "contrast-1"))
