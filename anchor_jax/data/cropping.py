"""Random crops of encoded images, resized, as torchvision's `RandomResizedCrop` draws and makes them; on the host.

JPEG files are decoded by libjpeg-turbo, by way of simplejpeg, all others by Pillow. Where a crop is much larger than
what it is resized to, its file is decoded at 1/2, 1/4 or 1/8 of its scale. What resizes is the Rust crate
fast_image_resize, by way of cykooz_resizer: Pillow's algorithm in vector instructions.
"""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer

from anchor_jax.data.dataset import reading
from anchor_jax.data.decoding import Example, converted, opened

_ASPECT_RATIOS = (3 / 4, 4 / 3)  # torchvision's
_TRIES = 10  # likewise

_SCALES = (8, 4, 2)  # 1/8, 1/4 and 1/2, for which libjpeg-turbo has fast transforms
_GAP = (
    2  # times that a crop is still larger than its target where it is decoded at one of them, as in Pillow's thumbnails
)

Box = tuple[int, int, int, int]  # left, top, right and bottom edge, in pixels


def random_resized_crop(example: Example, image_size: int, area: Sequence[float], seed: list[int]) -> np.ndarray:
    """A random part of an image, resized to a square: bilinear with antialiasing.

    Args:
      example: the image; an orientation that EXIF asks for is not applied, as in `decoded`.
      image_size: S.
      area: least and greatest fraction of the image's area, from which that of the crop is drawn.
      seed: natural numbers, from which the crop follows.

    Returns:
      uint8 `[S, S, 3]`: within one grey level of Pillow's `crop` and `resize`, but for crops of JPEG files that
      are at least 4 S wide and high. Those are decoded at a reduced scale, which on photographs is less than one grey
      level away in the mean, and less than 20 anywhere.

    Raises:
      UserError: the image cannot be read, or has more than 8 bits.
    """
    content = _content(example)
    with opened(example._replace(file=content)) as image:
        box = random_box(np.random.default_rng(seed), *image.size, area)
        if image.format == "JPEG" and image.mode in ("RGB", "L"):
            scale = reduction(box, image_size)
            width, height = (math.ceil(pixels / scale) for pixels in image.size)
            with contextlib.suppress(ValueError):  # damaged: Pillow has the last word
                pixels = simplejpeg.decode_jpeg(content, "RGB", min_height=height, min_width=width)
                return _resized(pixels, [edge / scale for edge in box], image_size)
        return _resized(np.asarray(converted(image, "RGB", example.where)), box, image_size)


def random_box(rng: np.random.Generator, width: int, height: int, area: Sequence[float]) -> Box:
    """Where a random crop is: `RandomResizedCrop.get_params` of torchvision, for an image of this size."""
    least, greatest = area
    low, high = map(math.log, _ASPECT_RATIOS)
    for _ in range(_TRIES):
        target = width * height * rng.uniform(least, greatest)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    return _central_box(width, height)


def _central_box(width: int, height: int) -> Box:
    """The largest one in the centre whose aspect ratio is allowed."""
    least, greatest = _ASPECT_RATIOS
    w, h = min(width, round(height * greatest)), min(height, round(width / least))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _content(example: Example) -> bytes:
    if isinstance(example.file, Path):
        with reading(f"image {example.where}", "replace or remove it"):
            return example.file.read_bytes()
    return example.file


def reduction(box: Box, image_size: int) -> int:
    """1, 2, 4 or 8: by how much an image may be reduced before this part of it is resized."""
    left, top, right, bottom = box
    shorter = min(right - left, bottom - top)
    return next((scale for scale in _SCALES if shorter >= scale * _GAP * image_size), 1)


def _resized(pixels: np.ndarray, box: Sequence[float], image_size: int) -> np.ndarray:
    """What is in a box of uint8 `[H, W, 3]`, and nothing around it, as uint8 `[S, S, 3]`."""
    left, top, right, bottom = box
    x, y = math.floor(left), math.floor(top)
    part = pixels[y : math.ceil(bottom), x : math.ceil(right)]
    height, width, _ = part.shape
    source = ImageData(width, height, PixelType.U8x3, part.tobytes())
    target = ImageData(image_size, image_size, PixelType.U8x3)
    inner = CropBox(left - x, top - y, right - left, bottom - top)
    Resizer().resize(source, target, ResizeOptions(ResizeAlg.convolution(FilterType.bilinear), crop_box=inner))
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(image_size, image_size, 3)
