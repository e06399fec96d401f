"""What the speed benchmarks work on: random images of CIFAR-10's size, normalised as the released code does."""

import numpy as np

from anchor_jax import config as configuration
from anchor_jax.config import Config
from anchor_jax.data import Normalization

IMAGE_SHAPE, NUM_CLASSES = (32, 32, 3), 10


def base() -> Config:
    """The defaults, with the normalisation of the released code for CIFAR."""
    config = configuration.base()
    config.data.mean, config.data.std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    return config


def normalization_of(config: Config) -> Normalization:
    """Of a config."""
    return Normalization(config.data.mean, config.data.std)


def random_images(num: int) -> np.ndarray:
    """uint8 `[num, H, W, C]`, other ones at each call."""
    return np.random.default_rng().integers(0, 256, (num, *IMAGE_SHAPE), np.uint8)
