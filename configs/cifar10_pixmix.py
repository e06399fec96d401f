"""CIFAR-10 under PixMix: the paper's protocol with a stronger augmentation.

    python train.py --config configs/cifar10_pixmix.py --workdir runs/cifar10_pixmix

After the crop and the mirror of the protocol: PixMix (Hendrycks et al. 2022, arXiv 2112.05135), which mixes pictures
in: fractals that are made at the start, or those of --config.augmentation.mixing_images_dir=FOLDER.

Time and result: not yet measured.
"""

from anchor_jax.config import Config
from configs import cifar10


def get_config() -> Config:
    config = cifar10.get_config()
    config.augmentation.policy = "pixmix"
    return config
