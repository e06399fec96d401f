"""CIFAR-100 with the recipe of `cifar10_fast`.

python train.py --config configs/cifar100_fast.py --workdir runs/cifar100_fast
"""

from anchor_jax.config import Config
from configs import cifar10_fast


def get_config() -> Config:
    config = cifar10_fast.get_config()
    config.data.name = "cifar100"
    return config
