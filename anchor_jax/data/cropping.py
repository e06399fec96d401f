"""Random crops of encoded images, resized, as torchvision's `RandomResizedCrop` draws and makes them; on the host.

JPEG files are decoded by libjpeg-turbo, by way of simplejpeg, all others by Pillow. Where a crop is much larger than
what it is resized to, its file is decoded at 1/2, 1/4 or 1/8 of its scale. What resizes is the Rust crate
fast_image_resize, by way of cykooz_resizer: Pillow's algorithm in vector instructions; Pillow itself where that is not
installed, as on Linux on ARM, for which it has no wheel.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from anchor_jax.data.dataset import open_file, reading_errors
from anchor_jax.data.decoding import Example, convert, open_image

try:
    import cykooz_resizer as fast
except ImportError:
    fast = None

_ASPECT_RATIOS = (3 / 4, 4 / 3)  # torchvision's
_TRIES = 10  # likewise

_SCALES = (8, 4, 2)  # 1/8, 1/4 and 1/2, for which libjpeg-turbo has fast transforms
_GAP = 2  # how much larger than its target a crop still is at one of them, as in Pillow's thumbnails

_COLOURS = ("YCbCr", "Gray")  # of JPEG files, which simplejpeg converts to RGB as Pillow does

Box = tuple[int, int, int, int]  # left, top, right and bottom edge, in pixels
BoxIn = Callable[[int, int], Box]  # of an image of this width and height


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
    example = example._replace(file=_content(example))

    def box_in(width: int, height: int) -> Box:
        return random_box(np.random.default_rng(seed), width, height, area)

    pixels, box = _part_of_jpeg(example, box_in, image_size) or _part_of_any(example, box_in)
    return _resized(pixels, box, image_size)


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
        with reading_errors(f"image {example.where}", "replace or remove it"), open_file(example.file) as file:
            return file.read()
    return example.file


def _part_of_jpeg(example: Example, box_in: BoxIn, image_size: int) -> tuple[np.ndarray, Sequence[float]] | None:
    """A JPEG file decoded at the scale that its crop allows, and where in it that is; None if Pillow is to say more."""
    try:
        header: Any = simplejpeg.decode_jpeg_header(example.file)
        height, width, colours, _ = header
        if colours not in _COLOURS or width * height > (Image.MAX_IMAGE_PIXELS or math.inf):
            return None
        box = box_in(width, height)
        scale = reduction(box, image_size)
        reduced = {"min_height": math.ceil(height / scale), "min_width": math.ceil(width / scale)}
        pixels = simplejpeg.decode_jpeg(example.file, "RGB", **reduced)
    except ValueError:  # another kind of file, or a damaged one
        return None
    return pixels, [edge / scale for edge in box]


def _part_of_any(example: Example, box_in: BoxIn) -> tuple[np.ndarray, Sequence[float]]:
    with open_image(example) as image:
        return np.asarray(convert(image, "RGB", example.where)), box_in(*image.size)


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
    inner = left - x, top - y, right - x, bottom - y
    if fast is None:
        resized = Image.fromarray(part).resize((image_size, image_size), Image.Resampling.BILINEAR, box=inner)
        return np.asarray(resized)
    height, width, _ = part.shape
    source = fast.ImageData(width, height, fast.PixelType.U8x3, part.tobytes())
    target = fast.ImageData(image_size, image_size, fast.PixelType.U8x3)
    options = fast.ResizeOptions(
        fast.ResizeAlg.convolution(fast.FilterType.bilinear),
        crop_box=fast.CropBox(inner[0], inner[1], right - left, bottom - top),
    )
    fast.Resizer().resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(image_size, image_size, 3)
