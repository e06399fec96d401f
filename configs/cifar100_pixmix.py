"""CIFAR-100 with ResNet-18 and PixMix: the protocol of `cifar100` with a stronger augmentation.

    python train.py --config configs/cifar100_pixmix.py --workdir runs/cifar100_pixmix

After the crop and flip of the protocol: PixMix (Hendrycks et al. 2022, arXiv 2112.05135), which mixes in other images:
generated fractals, or those in --config.augmentation.mixing_images_dir=FOLDER.

Time and result: not yet measured. The paper reports 59.6% on CIFAR-100-C at severity 5, and 58.5% for a standard
network.
"""

from anchor_jax.config import Config
from configs import cifar100


def get_config() -> Config:
    config = cifar100.get_config()
    config.augmentation.policy = "pixmix"
    return config
