"""CIFAR-100 with ResNet-18 and RandAugment: the protocol of `cifar100` with a stronger augmentation.

    python train.py --config configs/cifar100_rand_augment.py --workdir runs/cifar100_rand_augment

After the crop and flip of the protocol: RandAugment (Cubuk et al. 2020, arXiv 1909.13719) with torchvision's defaults:
two operations of magnitude 9 out of 30. The paper does not state its own.

Time and result: not yet measured. The paper reports 53.7% on CIFAR-100-C at severity 5, and 49.7% for a standard
network.
"""

from anchor_jax.config import Config
from configs import cifar100


def get_config() -> Config:
    config = cifar100.get_config()
    config.augmentation.policy = "rand_augment"
    return config
