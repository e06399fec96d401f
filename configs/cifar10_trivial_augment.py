"""CIFAR-10 with ResNet-18 and TrivialAugment: the protocol of `cifar10` with a stronger augmentation.

    python train.py --config configs/cifar10_trivial_augment.py --workdir runs/cifar10_trivial_augment

After the crop and flip of the protocol: TrivialAugment (Müller & Hutter 2021, arXiv 2103.10158).

Time and result: not yet measured.
"""

from anchor_jax.config import Config
from configs import cifar10


def get_config() -> Config:
    config = cifar10.get_config()
    config.augmentation.policy = "trivial_augment"
    return config
