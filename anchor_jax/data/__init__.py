"""Labelled images: where they come from, and what a network sees of them."""

from anchor_jax.data.anomalies import photographs
from anchor_jax.data.augmentation import (
    Normalization,
    augment,
    load_mixing_images,
    measure_normalization,
    mixup_or_cutmix,
    normalize,
    random_erasing,
)
from anchor_jax.data.corruptions import corrupt
from anchor_jax.data.dataset import Dataset
from anchor_jax.data.dataset_spec import open_dataset
from anchor_jax.data.feeding import Batch, TrainStream, open_train_stream
from anchor_jax.data.loading import load_test, load_train, open_test, select_rows
from anchor_jax.data.published_corruptions import CorruptedSet, check_differs, open_corrupted
from anchor_jax.data.sources import load, open_stream
from anchor_jax.data.streaming import EvalDataset, class_rows, eval_dataset

__all__ = [
    "Batch",
    "CorruptedSet",
    "Dataset",
    "EvalDataset",
    "Normalization",
    "TrainStream",
    "augment",
    "check_differs",
    "class_rows",
    "corrupt",
    "eval_dataset",
    "load",
    "load_mixing_images",
    "load_test",
    "load_train",
    "measure_normalization",
    "mixup_or_cutmix",
    "normalize",
    "open_corrupted",
    "open_dataset",
    "open_stream",
    "open_test",
    "open_train_stream",
    "photographs",
    "random_erasing",
    "select_rows",
]
