"""CIFAR-100 with ResNet-18 and TrivialAugment: the protocol of `cifar100` with a stronger augmentation.

    python train.py --config configs/cifar100_trivial_augment.py --workdir runs/cifar100_trivial_augment

After the crop and flip of the protocol: TrivialAugment (Müller & Hutter 2021, arXiv 2103.10158).

Time and result: not yet measured. The paper reports 51.2% on CIFAR-100-C at severity 5, and 47.4% for a standard
network.
"""

from anchor_jax.config import Config
from configs import cifar100


def get_config() -> Config:
    config = cifar100.get_config()
    config.augmentation.policy = "trivial_augment"
    return config
