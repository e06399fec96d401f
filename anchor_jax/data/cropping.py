"""Random resized crops of encoded images on the host, as torchvision's `RandomResizedCrop`.

JPEG files are decoded by libjpeg-turbo (simplejpeg), all other formats by Pillow. If a crop is much larger than its
target size, the JPEG file is decoded at 1/2, 1/4 or 1/8 of its scale. Crops are resized by the Rust crate
fast_image_resize (cykooz_resizer), which implements Pillow's algorithm with vector instructions; Pillow is the fallback
where that package has no wheel, such as Linux on ARM.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from anchor_jax.data import orientation as orientations
from anchor_jax.data import resampling
from anchor_jax.data.decoding import Example, open_image, pixels_of, upright_image
from anchor_jax.data.files import open_file, reading_errors
from anchor_jax.data.modes import convert_batch

try:
    import cykooz_resizer as fast
except ImportError:
    fast = None

# width / height, and attempts until the fallback: the defaults of torchvision
_ASPECT_RATIOS = (3 / 4, 4 / 3)
_ATTEMPTS = 10

_SCALES = (8, 4, 2)  # 1/8, 1/4 and 1/2: libjpeg-turbo has fast transforms for these
_REDUCING_GAP = 2  # a reduced crop stays at least this many times larger than its target, as in Pillow's thumbnails

_COLOR_SPACES = ("YCbCr", "Gray")  # JPEG color spaces that simplejpeg converts to RGB as Pillow does

Box = tuple[int, int, int, int]  # left, top, right and bottom edge, in pixels


class _DecodedBox(NamedTuple):
    """A decoded image, possibly at a reduced scale, and a box in its coordinates."""

    pixels: np.ndarray  # uint8 [H, W, 3], or [H, W, 1] of a grayscale image
    box: Sequence[float]  # left, top, right and bottom edge, in pixels


def random_resized_crop(
    example: Example,
    image_size: int,
    area: Sequence[float],
    seed: list[int],
    mode: str = "RGB",
    interpolation: str = resampling.AUTO,
    orientation: str = orientations.AUTO,
) -> np.ndarray:
    """Crop a random box of an image and resize it to a square, with antialiasing.

    Args:
      example: the image.
      image_size: S.
      area: minimum and maximum area of the crop, as fractions of the image's area.
      seed: non-negative integers that determine the box.
      mode: "L" (grayscale) or "RGB".
      interpolation: "bilinear" or "bicubic"; "auto" is bilinear.
      orientation: see `decode`.

    Returns:
      uint8 `[S, S, C]`. It is within one gray level of Pillow's `crop` and `resize`, except where the bicubic filter
      leaves [0, 255] on the first axis, which is another one in fast_image_resize, and for crops of JPEG files that are
      at least 4 S wide and high. Those are decoded at a reduced scale, which on photographs changes less than one gray
      level on average, and less than 20 anywhere.

    Raises:
      UserError: the image cannot be read, or has more than 16 bits per channel.
    """
    example = example._replace(file=_read_bytes(example))

    def draw_box(width: int, height: int) -> Box:
        return random_box(np.random.default_rng(seed), width, height, area)

    decoded = _decode_jpeg(example, draw_box, image_size, mode, orientation)
    decoded = decoded or _decode_any(example, draw_box, mode, orientation)
    return _resize_box(decoded, image_size, mode, resampling.filter_of_crops(interpolation))


def random_box(rng: np.random.Generator, width: int, height: int, area: Sequence[float]) -> Box:
    """Draw the box of a random crop in an image of this size: torchvision's `RandomResizedCrop.get_params`."""
    min_area, max_area = area
    low, high = map(math.log, _ASPECT_RATIOS)
    for _ in range(_ATTEMPTS):
        target = width * height * rng.uniform(min_area, max_area)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    return _central_box(width, height)


def _central_box(width: int, height: int) -> Box:
    """Return the largest centered box with an allowed aspect ratio."""
    min_ratio, max_ratio = _ASPECT_RATIOS
    w, h = min(width, round(height * max_ratio)), min(height, round(width / min_ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _read_bytes(example: Example) -> bytes:
    if isinstance(example.file, Path):
        with reading_errors(f"image {example.origin}", "replace or remove it"), open_file(example.file) as file:
            return file.read()
    return example.file


def _decode_jpeg(
    example: Example, draw_box: Callable[[int, int], Box], image_size: int, mode: str, orientation: str
) -> _DecodedBox | None:
    """Decode a JPEG file at the smallest scale that its crop allows; return None if Pillow has to handle the file."""
    try:
        header: Any = simplejpeg.decode_jpeg_header(example.file)
        height, width, color_space, _ = header
        if color_space not in _COLOR_SPACES or width * height > (Image.MAX_IMAGE_PIXELS or math.inf):
            return None
        turn = 1 if orientation == orientations.STORED else _recorded_orientation(example)
        box = draw_box(height, width) if orientations.is_sideways(turn) else draw_box(width, height)
        scale = reduction(box, image_size)
        min_size = {"min_height": math.ceil(height / scale), "min_width": math.ceil(width / scale)}
        is_gray = mode == "L" and color_space == "Gray"
        pixels = simplejpeg.decode_jpeg(example.file, "GRAY" if is_gray else "RGB", **min_size)
    except ValueError:  # another format, or a corrupt file
        return None
    if turn != 1:
        stored = Image.fromarray(pixels[..., 0] if is_gray else pixels)
        pixels = pixels_of(orientations.turned(stored, turn))
    return _DecodedBox(pixels, [edge / scale for edge in box])


def _recorded_orientation(example: Example) -> int:
    if not orientations.may_be_recorded(_read_bytes(example)):
        return 1
    with open_image(example) as image:
        return orientations.recorded(image)


def _decode_any(example: Example, draw_box: Callable[[int, int], Box], mode: str, orientation: str) -> _DecodedBox:
    with open_image(example) as image:
        pixels = pixels_of(upright_image(image, mode, example.origin, orientation))
        height, width, _ = pixels.shape
        return _DecodedBox(pixels, draw_box(width, height))


def reduction(box: Box, image_size: int) -> int:
    """Return 1, 2, 4 or 8: the factor by which an image may be reduced before this box is resized to `image_size`."""
    left, top, right, bottom = box
    shorter_side = min(right - left, bottom - top)
    return next((scale for scale in _SCALES if shorter_side >= scale * _REDUCING_GAP * image_size), 1)


def _resize_box(decoded: _DecodedBox, image_size: int, mode: str, method: Image.Resampling) -> np.ndarray:
    """Resize the contents of the box, without pixels around it, to uint8 `[S, S, C]`."""
    left, top, right, bottom = decoded.box
    x, y = math.floor(left), math.floor(top)
    cropped = decoded.pixels[y : math.ceil(bottom), x : math.ceil(right)]
    if cropped.shape[-1] != len(mode):  # color to grayscale, before resizing as in `decode`
        cropped = convert_batch(cropped[None], mode)[0]
    inner = left - x, top - y, right - x, bottom - y
    height, width, channels = cropped.shape
    if fast is None:
        image = Image.fromarray(cropped if channels > 1 else cropped[..., 0])
        resized = image.resize((image_size, image_size), method, box=inner)
        return np.asarray(resized).reshape(image_size, image_size, channels)
    is_bicubic = method == Image.Resampling.BICUBIC
    pixel_type = fast.PixelType.U8x3 if channels == 3 else fast.PixelType.U8
    source = fast.ImageData(width, height, pixel_type, cropped.tobytes())
    target = fast.ImageData(image_size, image_size, pixel_type)
    options = fast.ResizeOptions(
        # Pillow's bicubic filter is the Catmull-Rom spline
        fast.ResizeAlg.convolution(fast.FilterType.catmull_rom if is_bicubic else fast.FilterType.bilinear),
        crop_box=fast.CropBox(inner[0], inner[1], right - left, bottom - top),
    )
    fast.Resizer().resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(image_size, image_size, channels)
