"""The images that PixMix mixes into training images."""

import os

import numpy as np

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data.augmentation.fractals import fractals
from anchor_jax.data.modes import MODES, convert_images
from anchor_jax.data.orientation import STORED
from anchor_jax.data.sources.folder import open_images

MAX_BYTES = 256 * 2**20  # of mixing images on a device
NUM_FRACTALS = 512

_SEED = 0


def load_mixing_images(folder: str | os.PathLike[str], size: int, channels: int) -> np.ndarray:
    """Load the mixing images of "pixmix"; a random window of one of them is mixed into a training image.

    Args:
      folder: of images, at any depth; the shorter side is resized, and the center is cropped. "": 512 fractals, the
        same in every call.
      size: longer side of the training images, in pixels.
      channels: 1 (grayscale) or 3.

    Returns:
      uint8 `[M, S, S, channels]`. S = size + size // 8, which is 36 for images of 32 pixels, as in the released code. M
      is limited to 256 MiB: 69,000 for images of 32 pixels and 1,400 for those of 224. From a larger folder, evenly
      spaced files are taken in sorted order.

    Raises:
      UserTypeError: `folder` is not a path, or `size` or `channels` not an integer.
      UserError: `size` is below 1, `channels` is neither 1 nor 3, there is no such folder, or it has no images or
        corrupt ones.

    Example:
      >>> import pathlib, tempfile
      >>> import anchor_jax as aj
      >>> from PIL import Image
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> for row in range(3):
      ...     Image.new("RGB", (50, 40)).save(folder / f"{row}.png")
      >>> aj.data.load_mixing_images(folder, size=32, channels=3).shape
      (3, 36, 36, 3)
    """
    checks.path("folder", folder)
    checks.count("size", size)
    if checks.integer("channels", channels) not in MODES:
        raise UserError(f"'pixmix' takes images with 1 or 3 channels, but those of the run have {channels}")
    num_fractals, (size, _, _) = mixing_images_shape(size, channels)
    if not os.fspath(folder):
        return convert_images(fractals(_SEED, num_fractals, size), MODES[channels], "fractals")
    max_images = _max_images(size, channels)
    title = "mixing images of pixmix"
    images = open_images(folder, image_size=size, mode=MODES[channels], title=title, orientation=STORED)
    rows = np.linspace(0, images.num_examples - 1, min(images.num_examples, max_images)).astype(int)
    return images.take(rows)[0]


def mixing_images_shape(size: int, channels: int) -> tuple[int, tuple[int, int, int]]:
    """Return the number of fractals that `load_mixing_images` generates, and the shape of each mixing image."""
    size += size // 8
    return min(NUM_FRACTALS, _max_images(size, channels)), (size, size, channels)


def _max_images(size: int, channels: int) -> int:
    return max(MAX_BYTES // (size * size * channels), 1)
