"""CIFAR-10 with ResNet-18 and PixMix: the protocol of `cifar10` with a stronger augmentation.

    python train.py --config configs/cifar10_pixmix.py --workdir runs/cifar10_pixmix

After the crop and flip of the protocol: PixMix (Hendrycks et al. 2022, arXiv 2112.05135), which mixes in other images:
generated fractals, or those in --config.augmentation.mixing_images_dir=FOLDER.

Time and result: not yet measured.
"""

from anchor_jax.config import Config
from configs import cifar10


def get_config() -> Config:
    config = cifar10.get_config()
    config.augmentation.policy = "pixmix"
    return config
