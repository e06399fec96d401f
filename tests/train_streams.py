"""Read training streams of images like those of ImageNet."""

from pathlib import Path

import imagenet_like as likeness
import numpy as np

from anchor_jax.config import base
from anchor_jax.data import open_train_stream
from anchor_jax.data.decoding import Example

AREA = (0.08, 1.0)
SIZE = 24
BATCH_SIZE = 64
STEPS_PER_EPOCH = likeness.NUM["train"] // BATCH_SIZE


def folder_config(imagenet_like: likeness.ImagenetLike):
    """Return the section `data` of a config for the folder."""
    config = base().data
    config.source, config.path, config.image_size = "folder", str(imagenet_like.folder), SIZE
    return config


def file_example(file: Path) -> Example:
    return Example(file, 0, str(file))


def read_batches(data, num, *, first_step=0, shard=(0, 1), area=AREA, batch_size=BATCH_SIZE):
    """Return the images and labels of some batches, and check their shapes and dtypes."""
    with open_train_stream(data, area=area, seed=5, batch_size=batch_size, shard=shard) as stream:
        generator = stream.batches(first_step)
        batches = [next(generator) for _ in range(num)]
    for images, labels in batches:
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
        assert images.shape == (batch_size // shard[1], SIZE, SIZE, 3) == (len(labels), *stream.image_shape)
    return np.stack([batch.images for batch in batches]), np.stack([batch.labels for batch in batches])
