"""CIFAR-10 under RandAugment: the paper's protocol with a stronger augmentation.

    python train.py --config configs/cifar10_rand_augment.py --workdir runs/cifar10_rand_augment

After the crop and the mirror of the protocol: RandAugment (Cubuk et al. 2020, arXiv 1909.13719), two operations of
magnitude 9 of 30, torchvision's defaults; the paper does not tell its own.

Time and result: not yet measured.
"""

from anchor_jax.config import Config
from configs import cifar10


def get_config() -> Config:
    config = cifar10.get_config()
    config.augmentation.policy = "rand_augment"
    return config
