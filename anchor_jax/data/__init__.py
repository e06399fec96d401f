"""Labeled images: sources, streams, augmentation and corruptions."""

from anchor_jax.data.augmentation import (
    Normalization,
    augment,
    load_mixing_images,
    measure_normalization,
    mixup_or_cutmix,
    normalize,
    random_erasing,
)
from anchor_jax.data.bank import select_rows
from anchor_jax.data.class_mapping import class_rows
from anchor_jax.data.clean_copies import check_differs
from anchor_jax.data.corruptions import corrupt
from anchor_jax.data.dataset import Dataset
from anchor_jax.data.dataset_spec import open_dataset
from anchor_jax.data.eval_dataset import EvalDataset, eval_dataset
from anchor_jax.data.loading import load_test, load_train, open_test
from anchor_jax.data.preprocessing import Preprocessing
from anchor_jax.data.published_corruptions import CorruptedSet, open_corrupted
from anchor_jax.data.sample_photographs import photographs
from anchor_jax.data.sources import load, open_stream
from anchor_jax.data.train_stream import Batch, TrainStream, open_train_stream

open_spec = open_dataset  # its name in version 0.1

__all__ = [
    "Batch",
    "CorruptedSet",
    "Dataset",
    "EvalDataset",
    "Normalization",
    "Preprocessing",
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
