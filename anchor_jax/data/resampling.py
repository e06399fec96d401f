"""The filters that resize images, always with antialiasing."""

from typing import Literal

from PIL import Image

from anchor_jax.core import checks

Interpolation = Literal["auto", "bilinear", "bicubic"]

AUTO: Interpolation = "auto"  # bilinear in random crops, bicubic everywhere else
_INTERPOLATIONS = (AUTO, "bilinear", "bicubic")


def check_interpolation(interpolation: str) -> str:
    """Return the name of an interpolation.

    Raises:
      UserError: there is no such interpolation.
    """
    checks.choice("interpolation", interpolation, _INTERPOLATIONS)
    return interpolation


def filter_of_crops(interpolation: str) -> Image.Resampling:
    """Return Pillow's filter for the random crops of training."""
    return Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR


def filter_of_images(interpolation: str) -> Image.Resampling:
    """Return Pillow's filter for complete images, such as those of evaluation, and references."""
    return Image.Resampling.BILINEAR if interpolation == "bilinear" else Image.Resampling.BICUBIC
