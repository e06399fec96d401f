"""The pictures that PixMix mixes in."""

import os

import numpy as np
from PIL import Image

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data.augmentation.fractals import fractals
from anchor_jax.data.sources import open_images
from anchor_jax.data.streaming import MODES

MOST_BYTES = 256 * 2**20  # of pictures on a device
NUM_FRACTALS = 512

_SEED = 0


def load_mixing_images(folder: str | os.PathLike[str], size: int, channels: int) -> np.ndarray:
    """Pictures for "pixmix", an eighth larger than the images, of which a random window is mixed in.

    Args:
      folder: of images, at any depth; their shorter side is resized and their centre cropped. "": 512 fractals, the
        same ones every time.
      size: the longer side of the images, in pixels.
      channels: 1 (grey) or 3.

    Returns:
      uint8 `[M, S, S, channels]`, S = size + size // 8, as the 36 pixels of the published code for images of 32. At
      most as many as fit into 256 MiB, 69,000 for images of 32 and 1,400 for those of 224; of a larger folder, that
      many evenly spaced among the sorted files.

    Raises:
      UserTypeError: `folder` is no path, or `size` or `channels` no integer.
      UserError: `size` is below 1, another number of channels, no such folder, or no images in it, or damaged ones.
    """
    checks.path("folder", folder)
    checks.count("size", size)
    if checks.integer("channels", channels) not in MODES:
        raise UserError(f"'pixmix' takes images of 1 or 3 channels, but those of the run have {channels}")
    size += size // 8
    most = max(MOST_BYTES // (size * size * channels), 1)
    if not os.fspath(folder):
        return _in_mode(fractals(_SEED, min(NUM_FRACTALS, most), size), MODES[channels])
    stream = open_images(folder, image_size=size, mode=MODES[channels], title="pictures for pixmix")
    rows = np.linspace(0, stream.num_examples - 1, min(stream.num_examples, most)).astype(int)
    return stream.take(rows)[0]


def _in_mode(pictures: np.ndarray, mode: str) -> np.ndarray:
    converted = [np.asarray(Image.fromarray(picture).convert(mode)) for picture in pictures]
    return np.stack(converted).reshape(*pictures.shape[:3], -1)
