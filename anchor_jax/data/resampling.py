"""How images are resized, always with antialiasing."""

import math
from typing import Literal

from PIL import Image, ImageOps

from anchor_jax.core import checks

Interpolation = Literal["auto", "bilinear", "bicubic"]
Resizing = Literal["auto", "box", "shorter_side", "stretch"]

AUTO: Interpolation = "auto"  # bilinear in random crops, bicubic everywhere else
_INTERPOLATIONS = (AUTO, "bilinear", "bicubic")
_RESIZINGS = (AUTO, "box", "shorter_side", "stretch")  # "auto" is "box"


def check_interpolation(interpolation: str) -> str:
    """Return the name of an interpolation.

    Raises:
      UserError: there is no such interpolation.
    """
    checks.choice("interpolation", interpolation, _INTERPOLATIONS)
    return interpolation


def check_resizing(resizing: str) -> str:
    """Return the name of a way to resize images.

    Raises:
      UserError: there is no such way.
    """
    checks.choice("resizing", resizing, _RESIZINGS)
    return resizing


def is_box(resizing: str) -> bool:
    """Return whether images are cropped and resized in one step."""
    return resizing in (AUTO, "box")


def fitted(
    image: Image.Image, size: tuple[int, int], crop_fraction: float, interpolation: str, resizing: str
) -> Image.Image:
    """Resize an image and crop its center to `size`, width and height; see `data.decoding.decode`."""
    method = filter_of_images(interpolation)
    if is_box(resizing):
        border = (1 - min(size) / round(min(size) / crop_fraction)) / 2
        return ImageOps.fit(image, size, method, bleed=border)
    resized = resized_size(image.size, size, crop_fraction, resizing)
    left, top = (round((whole - part) / 2) for whole, part in zip(resized, size, strict=True))
    return image.resize(resized, method).crop((left, top, left + size[0], top + size[1]))


def resized_size(
    image_size: tuple[int, int], size: tuple[int, int], crop_fraction: float, resizing: str
) -> tuple[int, int]:
    """Return width and height that an image is resized to before its center is cropped, rounded as in torchvision.

    >>> resized_size((500, 300), (224, 224), 0.95, "shorter_side"), resized_size((500, 300), (224, 224), 1.0, "stretch")
    ((391, 235), (224, 224))
    """
    width, height = (math.floor(side / crop_fraction) for side in size)
    if resizing == "stretch":
        return width, height
    own_width, own_height = image_size
    if own_width * height <= own_height * width:
        return width, width * own_height // own_width
    return height * own_width // own_height, height


def filter_of_crops(interpolation: str) -> Image.Resampling:
    """Return Pillow's filter for the random crops of training."""
    return Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR


def filter_of_images(interpolation: str) -> Image.Resampling:
    """Return Pillow's filter for complete images, such as those of evaluation, and references."""
    return Image.Resampling.BILINEAR if interpolation == "bilinear" else Image.Resampling.BICUBIC
