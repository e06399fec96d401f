"""Labelled images: where they come from, and what a network sees of them."""

from anchor_jax.data.augmentation import Normalization, augment, measure_normalization, normalize
from anchor_jax.data.dataset import Dataset
from anchor_jax.data.loading import load_test, load_train, select_rows
from anchor_jax.data.sources import load

__all__ = [
    "Dataset",
    "Normalization",
    "augment",
    "load",
    "load_test",
    "load_train",
    "measure_normalization",
    "normalize",
    "select_rows",
]
