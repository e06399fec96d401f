"""CIFAR-100 under RandAugment: the paper's protocol with a stronger augmentation.

    python train.py --config configs/cifar100_rand_augment.py --workdir runs/cifar100_rand_augment

After the crop and the mirror of the protocol: RandAugment (Cubuk et al. 2020, arXiv 1909.13719), two operations of
magnitude 9 of 30, torchvision's defaults; the paper does not tell its own.

Time and result: not yet measured. The paper reports 53.7 % on CIFAR-100-C at severity 5, against 49.7 % of a
standard network.
"""

from anchor_jax.config import Config
from configs import cifar100


def get_config() -> Config:
    config = cifar100.get_config()
    config.augmentation.policy = "rand_augment"
    return config
