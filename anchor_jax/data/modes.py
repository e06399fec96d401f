"""Pillow's modes of images with one or three channels, and the conversion of arrays between them."""

from typing import Literal

import numpy as np
from PIL import Image

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError

Mode = Literal["auto", "L", "RGB"]

AUTO: Mode = "auto"  # grayscale if all images are, otherwise RGB; arrays as they are
MODES: dict[int, Mode] = {1: "L", 3: "RGB"}  # channels -> Pillow's mode

_IMAGES_AT_ONCE = 512


def mode_of(image_shape: tuple[int, ...]) -> Mode:
    """Return the mode in which images like these are read: "L", "RGB", or "auto" for another number of channels."""
    return MODES.get(image_shape[-1], AUTO)


def check_mode(mode: str) -> str:
    """Return a mode; "", its name for "auto" in version 0.1, becomes "auto".

    Raises:
      UserError: there is no such mode.
    """
    mode = AUTO if mode == "" else mode
    checks.choice("mode", mode, (AUTO, *MODES.values()))
    return mode


def convert_images(images: np.ndarray, mode: str, origin: str) -> np.ndarray:
    """Convert images to a mode: RGB to grayscale by Pillow's conversion (ITU-R BT.601), grayscale to three channels.

    Args:
      images: uint8 `[N, H, W, C]`.
      mode: "auto" keeps the images.
      origin: what error messages call the images.

    Raises:
      UserError: the images have neither 1 nor 3 channels.
    """
    if mode in (AUTO, MODES.get(images.shape[-1])):
        return images
    if images.shape[-1] not in MODES:
        raise UserError(
            f"mode='{mode}' takes images with 1 or 3 channels; {origin} has {images.shape[-1]}; set data.mode='{AUTO}'"
        )
    converted = np.empty((*images.shape[:-1], len(mode)), np.uint8)
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        rows = slice(start, start + _IMAGES_AT_ONCE)
        converted[rows] = convert_batch(images[rows], mode)
    return converted


def convert_batch(images: np.ndarray, mode: str) -> np.ndarray:
    """Convert a batch to Pillow's `mode`; stacked vertically, it is a single image to Pillow."""
    column = images.reshape(-1, *images.shape[2:])
    converted = Image.fromarray(column if column.shape[-1] > 1 else column[..., 0]).convert(mode)
    return np.asarray(converted).reshape(*images.shape[:-1], len(mode))
