"""Random images of CIFAR-10's size, and a config with the normalization of the released code."""

import numpy as np

from anchor_jax import config as config_lib
from anchor_jax.config import Config
from anchor_jax.data import Normalization

IMAGE_SHAPE, NUM_CLASSES = (32, 32, 3), 10


def base() -> Config:
    """Return the default config with the normalization constants of the released code for CIFAR."""
    config = config_lib.base()
    config.data.mean, config.data.std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    return config


def normalization_of(config: Config) -> Normalization:
    """Return the normalization of a config."""
    return Normalization(config.data.mean, config.data.std)


def random_images(num: int) -> np.ndarray:
    """Return random images, uint8 `[num, H, W, C]`; each call draws new ones."""
    return np.random.default_rng().integers(0, 256, (num, *IMAGE_SHAPE), np.uint8)
