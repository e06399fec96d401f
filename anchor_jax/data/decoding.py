"""Decode images with Pillow: one at a time, or batch by batch in threads."""

import contextlib
import io
import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from anchor_jax.core.errors import UserError
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.data import orientation as orientations
from anchor_jax.data import resampling
from anchor_jax.data.content import content_of_files
from anchor_jax.data.files import FileList, check_regular_file, log_once, reading_errors
from anchor_jax.data.image_files import FORMATS
from anchor_jax.data.modes import AUTO

# formats that Pillow decodes itself, whatever the file's suffix; for others, such as EPS, it runs external programs
_FORMATS = tuple(FORMATS)

_ROWS_PER_TASK = 64
_HEADERS_AT_ONCE = 1024
_BATCHES_AHEAD = 2

Size = int | tuple[int, int]  # S, or H and W, in pixels; 0: as stored


class Example(NamedTuple):
    """An encoded image and its label."""

    file: Path | bytes  # path of the encoded image, or its bytes
    label: int
    origin: str  # what error messages call the image


@short_repr
class EncodedDataset(NamedTuple):
    """The encoded images of one split, in a fixed order, and the options of decoding them."""

    title: str  # what error messages call the dataset
    label_names: tuple[str, ...]
    num_examples: int
    example: Callable[[int], Example]  # row -> example
    own_mode: Callable[[], str]  # "L" if all images are grayscale, otherwise "RGB"; may have to open every image
    image_size: Size  # see `decode`
    files: FileList  # the images do not change unless one of these files does
    crop_fraction: float = 1.0  # see `decode`
    interpolation: str = resampling.AUTO  # see `decode`
    resizing: str = resampling.AUTO  # see `decode`
    orientation: str = orientations.AUTO  # see `decode`
    given_mode: str = AUTO  # the mode to decode to; "auto": the own mode
    part: str = ""  # of the files, if the examples are only those of a split in them
    file_of: Callable[[int], str] | None = None  # row -> path in the folder of the dataset, if examples are files

    def mode(self) -> str:
        """Return Pillow's mode that the images are decoded to, "L" or "RGB"."""
        return self.own_mode() if self.given_mode == AUTO else self.given_mode

    def image_shape(self) -> tuple[int, int, int]:
        """Decode the first image and return its H, W and C."""
        height, width, channels = self.decoder()(self.example(0)).shape
        return height, width, channels

    def subset(self, rows: np.ndarray) -> "EncodedDataset":
        """Return the examples at `rows`, int `[n]`; its `content` is that of all."""
        return self._replace(num_examples=len(rows), example=lambda row: self.example(int(rows[row])), file_of=None)

    def content(self) -> str:
        """Return a hash of the encoded images, see `data.content`; none is decoded."""
        return content_of_files(self.files, self.label_names, self.part)

    def decoder(self) -> Callable[[Example], np.ndarray]:
        """Return a function that decodes an example with the options of this dataset."""
        options = {"image_size": self.image_size, "crop_fraction": self.crop_fraction}
        filters = {"interpolation": self.interpolation, "resizing": self.resizing}
        return partial(decode, mode=self.mode(), orientation=self.orientation, **options, **filters)


def decode(
    example: Example,
    *,
    mode: str,
    image_size: Size = 0,
    crop_fraction: float = 1.0,
    interpolation: str = resampling.AUTO,
    resizing: str = resampling.AUTO,
    orientation: str = orientations.AUTO,
) -> np.ndarray:
    """Decode an image to uint8 `[H, W, C]`.

    Of a file with several images, such as an animated GIF or a TIFF of many pages, the first is decoded.

    Args:
      example: the image.
      mode: "L" (grayscale) or "RGB".
      image_size: S, or H and W, see `fit`. 0 keeps the stored size.
      crop_fraction: see `fit`.
      interpolation: see `fit`.
      resizing: see `fit`.
      orientation: "exif" or "auto" turns the image upright, if its EXIF data say how; "stored" does not.

    Raises:
      UserError: the image cannot be read, or has more than 16 bits per channel.
    """
    with open_image(example) as image:
        upright = upright_image(image, mode, example.origin, orientation)
        return pixels_of(fit(upright, image_size, crop_fraction, interpolation, resizing))


def upright_image(image: Image.Image, mode: str, origin: str, orientation: str = orientations.AUTO) -> Image.Image:
    """Return an opened image in the mode "L" or "RGB", and upright; see `convert` and `decode`."""
    found = 1 if orientation == orientations.STORED else orientations.recorded(image)
    return orientations.turned(convert(image, mode, origin), found)


def fit(
    image: Image.Image, image_size: Size, crop_fraction: float, interpolation: str, resizing: str = resampling.AUTO
) -> Image.Image:
    """Resize an image, with antialiasing, and crop its center.

    Args:
      image: in the mode "L" or "RGB".
      image_size: S: the shorter side is resized to `round(S / crop_fraction)` pixels, and the center is cropped to
        S x S. H and W: the same for the smallest image that covers them. 0: nothing is changed.
      crop_fraction: in (0, 1].
      interpolation: "bilinear" or "bicubic"; "auto" is bicubic.
      resizing: "box" and "auto" resize and crop in one step; "shorter_side": the shorter side is resized to
        `floor(S / crop_fraction)` pixels, then the center is cropped, as in torchvision and timm, whose pixels these
        are; "stretch": both sides are resized to as many pixels.
    """
    if image_size == 0:
        return image
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return resampling.fitted(image, (width, height), crop_fraction, interpolation, resizing)


def pixels_of(image: Image.Image) -> np.ndarray:
    """Return the pixels of an image of 8 bits per channel, uint8 `[H, W, C]`."""
    return np.asarray(image).reshape(image.height, image.width, len(image.getbands()))


def decode_all(encoded: EncodedDataset) -> tuple[np.ndarray, np.ndarray]:
    """Decode all examples into images uint8 `[N, H, W, C]` and labels int64 `[N]`."""
    return next(decode_batches(encoded, encoded.num_examples))


def decode_batches(encoded: EncodedDataset, batch_size: int) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Decode examples in order, batch by batch, in threads that work ahead of the caller.

    Memory is bounded: at most the batch last returned and `_BATCHES_AHEAD` others are held, whatever N is.

    Args:
      encoded: the dataset.
      batch_size: b; the last batch may be smaller.

    Yields:
      Images uint8 `[b, H, W, C]` and labels int64 `[b]`.

    Raises:
      UserError: an image cannot be read, or differs in size from the first one.
    """
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        decoder = _BatchDecoder(encoded, batch_size, pool)
        starts = iter(range(0, encoded.num_examples, batch_size))
        ahead = deque(map(decoder.submit, itertools.islice(starts, 1 + _BATCHES_AHEAD)))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(map(decoder.submit, itertools.islice(starts, 1)))
    finally:
        pool.shutdown(cancel_futures=True)


class _PendingBatch(NamedTuple):
    """A batch that threads are filling."""

    images: np.ndarray  # uint8 [b, H, W, C]
    labels: np.ndarray  # int64 [b]
    tasks: list[Future[None]]

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Wait until the batch is complete; return its images and labels."""
        for task in self.tasks:
            task.result()
        return self.images, self.labels


class _BatchDecoder:
    """Decodes batches of a dataset in the threads of a pool."""

    def __init__(self, encoded: EncodedDataset, batch_size: int, pool: ThreadPoolExecutor):
        self._encoded, self._batch_size, self._pool = encoded, batch_size, pool
        self._decode = encoded.decoder()
        self._first = encoded.example(0)
        self._shape = self._decode(self._first).shape
        self._rows_per_task = min(_ROWS_PER_TASK, math.ceil(batch_size / (os.cpu_count() or 1)))

    def submit(self, start: int) -> _PendingBatch:
        """Start decoding the batch whose first row is `start`."""
        num = min(self._batch_size, self._encoded.num_examples - start)
        images, labels = np.empty((num, *self._shape), np.uint8), np.empty(num, np.int64)
        parts = [slice(row, row + self._rows_per_task) for row in range(0, num, self._rows_per_task)]
        tasks = [self._pool.submit(self._fill, images[part], labels[part], start + part.start) for part in parts]
        return _PendingBatch(images, labels, tasks)

    def _fill(self, images: np.ndarray, labels: np.ndarray, start: int) -> None:
        for row in range(len(images)):
            example = self._encoded.example(start + row)
            image = self._decode(example)
            if image.shape != self._shape:
                (height, width, _), (first_height, first_width, _) = image.shape, self._shape
                raise UserError(
                    f"images differ in size: {self._first.origin} is {first_height}x{first_width}, {example.origin} is "
                    f"{height}x{width}; set data.image_size to resize them"
                )
            images[row], labels[row] = image, example.label


def convert(image: Image.Image, mode: str, origin: str) -> Image.Image:
    """Convert an image to the mode "L" or "RGB"; transparency is dropped, and so are the lower 8 of 16 bits.

    Raises:
      UserError: the image has more than 16 bits per channel, which Pillow would clip instead of scaling.
    """
    if _is_16_bit(image):
        image = Image.fromarray(upper_8_bits(np.asarray(image)))
    if image.mode.startswith(("I", "F")):
        raise UserError(f"image {origin} has pixels of mode {image.mode}; convert it to 8 or 16 bits per channel")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns about a direct conversion to RGB
    if image.mode == "LAB" and mode == "L":  # Pillow has no direct conversion
        image = image.convert("RGB")
    return image.convert(mode)


def upper_8_bits(values: np.ndarray) -> np.ndarray:
    """Return the upper 8 of 16 bits as uint8, which is how Pillow reads color images of 16 bits per channel."""
    log_once("images with 16 bits per channel are read by their upper 8 bits; scale those that use fewer than 16")
    return (values >> 8).astype(np.uint8)


def _is_16_bit(image: Image.Image) -> bool:
    """Return whether a grayscale image has 16 bits; Pillow reads some formats of them into 32."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def common_mode(example: Callable[[int], Example], num_examples: int) -> str:
    """Return "L" if all images are grayscale, otherwise "RGB"; only headers are read, up to the first in color.

    Images that cannot be read do not count: decoding them is an error, or replaces them.

    Args:
      example: row -> example.
      num_examples: N.
    """

    def mode_at(row: int) -> str:
        try:
            with open_image(example(row)) as image:
                return "L" if _is_16_bit(image) else image.mode
        except UserError:
            return ""

    found: set[str] = set()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        starts = (0, 1, *range(_HEADERS_AT_ONCE, num_examples, _HEADERS_AT_ONCE))  # mostly, the first one decides
        for start, end in itertools.pairwise((*starts, num_examples)):
            found.update(pool.map(mode_at, range(start, end)))
            if found - {"", "L"}:
                return "RGB"
    return "L" if "L" in found else "RGB"


def num_pixels(example: Example) -> int:
    """Return the number of pixels of an encoded image; only its header is read.

    Raises:
      UserError: the image cannot be opened.
    """
    with open_image(example) as image:
        return image.width * image.height


@contextlib.contextmanager
def open_image(example: Example) -> Iterator[Image.Image]:
    """Open an image with Pillow, which reads the header; every failure to read it becomes a one-line `UserError`."""
    with reading_errors(f"image {example.origin}", "replace or remove it"):
        if isinstance(example.file, Path):
            check_regular_file(example.file)
        file = io.BytesIO(example.file) if isinstance(example.file, bytes) else example.file
        with _opened(file) as image:
            limit = Image.MAX_IMAGE_PIXELS or math.inf
            if image.width * image.height > limit:  # up to twice this limit Pillow only warns
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels are more than {limit}")
            yield image


def _opened(file: Path | io.BytesIO) -> Image.Image:
    try:
        return Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError as error:  # whose message is the address of the bytes in memory
        raise UnidentifiedImageError(f"not a file of the formats {', '.join(_FORMATS)}") from error
