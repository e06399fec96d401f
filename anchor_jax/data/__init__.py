"""Labelled images: where they come from, and what a network sees of them."""

from anchor_jax.data.anomalies import photographs
from anchor_jax.data.augmentation import (
    Normalization,
    augmented,
    erased,
    measure_normalization,
    mixed,
    mixing_pictures,
    normalize,
)
from anchor_jax.data.corruptions import corrupt
from anchor_jax.data.dataset import Dataset
from anchor_jax.data.dataset_spec import open_spec
from anchor_jax.data.feeding import Batch, Feed, open_feed
from anchor_jax.data.loading import load_test, load_train, open_test, select_rows
from anchor_jax.data.published_corruptions import CorruptedSet, check_differs, open_corrupted
from anchor_jax.data.sources import load, open_stream
from anchor_jax.data.streaming import Stream, class_rows, stream_of

__all__ = [
    "Batch",
    "CorruptedSet",
    "Dataset",
    "Feed",
    "Normalization",
    "Stream",
    "augmented",
    "check_differs",
    "class_rows",
    "corrupt",
    "erased",
    "load",
    "load_test",
    "load_train",
    "measure_normalization",
    "mixed",
    "mixing_pictures",
    "normalize",
    "open_corrupted",
    "open_feed",
    "open_spec",
    "open_stream",
    "open_test",
    "photographs",
    "select_rows",
    "stream_of",
]
