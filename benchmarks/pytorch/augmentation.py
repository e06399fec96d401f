"""torchvision's transforms of Pillow images, one image at a time on one core; see `benchmarks.speed.augmentation`."""

import numpy as np
import torch
from PIL import Image

from benchmarks.pytorch.torchvision_import import import_torchvision

transforms = import_torchvision().transforms

TRANSFORMS = {
    "crop and flip": lambda size: transforms.Compose(
        [transforms.RandomCrop(size, padding=4), transforms.RandomHorizontalFlip()]
    ),
    "resized crop and flip": lambda size: transforms.Compose(
        [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    ),
    "trivial_augment": lambda size: transforms.TrivialAugmentWide(),
    "rand_augment": lambda size: transforms.RandAugment(),
}

torch.set_num_threads(1)


def augment(name: str, images: np.ndarray) -> list[Image.Image]:
    """Return images, uint8 `[N, S, S, 3]`, as augmented Pillow images."""
    transform = TRANSFORMS[name](images.shape[1])
    return [transform(Image.fromarray(image)) for image in images]
