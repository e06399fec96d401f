"""The PyTorch side of `augmentation.py`: torchvision's transforms of Pillow images, one after the other."""

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

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
    """Images uint8 `[N, S, S, 3]` -> Pillow's, augmented."""
    transform = TRANSFORMS[name](images.shape[1])
    return [transform(Image.fromarray(image)) for image in images]
