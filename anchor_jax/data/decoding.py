"""From encoded images to arrays, by Pillow."""

import contextlib
import io
import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from anchor_jax.core.errors import UserError
from anchor_jax.data.dataset import check_regular, reading_errors

# whatever a file is called: those that Pillow reads by itself; for others, such as EPS, it runs programs
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_ROWS_PER_TASK = 64
_BATCHES_AHEAD = 2


class Example(NamedTuple):
    """An encoded image and its label."""

    file: Path | bytes  # where the encoded image is, or the encoded image itself
    label: int
    where: str  # what an error message calls the image


class Encoded(NamedTuple):
    """The encoded images of one split, in a fixed order, and what they are decoded to."""

    title: str  # what a message calls them
    label_names: tuple[str, ...]
    num: int
    example: Callable[[int], Example]
    mode: Callable[[], str]  # Pillow's, "L" or "RGB"; not a value, since it may take a look at every image
    image_size: int  # 0: as stored
    files: Sequence[Path]  # while none of them changes, neither does any image
    crop_fraction: float = 1.0  # of the shorter side, of which a central crop is resized to `image_size`


def decode_all(encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Decodes all examples into images uint8 [N, H, W, C] and labels int64 [N]."""
    return next(decode_batches(encoded, encoded.num))


def decode_batches(encoded: Encoded, size: int) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Decodes examples in order, as many at once, fewer in the last batch; threads work ahead of who takes them.

    Whatever N is, no more than the batch that was taken and `_BATCHES_AHEAD` others are in memory.
    """
    first, decode = encoded.example(0), _decoder(encoded)
    shape = decode(first).shape
    num_threads = os.cpu_count() or 1
    task_size = min(_ROWS_PER_TASK, math.ceil(size / num_threads))

    def fill(images: np.ndarray, labels: np.ndarray, start: int) -> None:
        for row in range(len(images)):
            current = encoded.example(start + row)
            image = decode(current)
            if image.shape != shape:
                raise UserError(
                    f"images differ in size: {first.where} is {shape[0]}x{shape[1]}, {current.where} is "
                    f"{image.shape[0]}x{image.shape[1]}; set data.image_size to resize them"
                )
            images[row], labels[row] = image, current.label

    def started(start: int) -> tuple[list[Future[None]], np.ndarray, np.ndarray]:
        num = min(size, encoded.num - start)
        images, labels = np.empty((num, *shape), np.uint8), np.empty(num, np.int64)
        parts = [slice(row, row + task_size) for row in range(0, num, task_size)]
        tasks = [pool.submit(fill, images[part], labels[part], start + part.start) for part in parts]
        return tasks, images, labels

    pool = ThreadPoolExecutor(num_threads)
    starts = iter(range(0, encoded.num, size))
    try:
        ahead = deque(map(started, itertools.islice(starts, 1 + _BATCHES_AHEAD)))
        while ahead:
            tasks, images, labels = ahead.popleft()
            for task in tasks:
                task.result()
            yield images, labels
            ahead.extend(map(started, itertools.islice(starts, 1)))
    finally:
        pool.shutdown(cancel_futures=True)


def shape_of(encoded: Encoded) -> tuple[int, int, int]:
    """H, W and C of the first image, decoded."""
    height, width, channels = _decoder(encoded)(encoded.example(0)).shape
    return height, width, channels


def _decoder(encoded: Encoded) -> Callable[[Example], np.ndarray]:
    return partial(decode, mode=encoded.mode(), image_size=encoded.image_size, crop_fraction=encoded.crop_fraction)


def decode(example: Example, *, mode: str, image_size: int = 0, crop_fraction: float = 1.0) -> np.ndarray:
    """An image as uint8 `[H, W, C]`, as it is stored; an orientation that EXIF asks for is not applied.

    Args:
      example: the image.
      mode: "L" or "RGB".
      image_size: S; 0 keeps the stored size. Otherwise the shorter side is resized to `round(S / crop_fraction)`, of
        which the centre is S x S; bicubic, with antialiasing.
      crop_fraction: in (0, 1].

    Raises:
      UserError: the image cannot be read, or has more than 8 bits.
    """
    with open_image(example) as image:
        image = convert(image, mode, example.where)
        if image_size:
            border = (1 - image_size / round(image_size / crop_fraction)) / 2
            image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC, bleed=border)
        return np.asarray(image).reshape(image.height, image.width, len(mode))


def convert(image: Image.Image, mode: str, where: str) -> Image.Image:
    """An image in the mode "L" or "RGB", without its transparency; refused where it has more than 8 bits."""
    if image.mode.startswith(("I", "F")):  # Pillow would clip these to 8 bits, not scale them
        raise UserError(f"image {where} has pixels of mode {image.mode}; 8 bits are expected")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # what Pillow's own warning asks for
    return image.convert(mode)


def mode_of(example: Example) -> str:
    """Pillow's mode of an image, such as "RGB", from its header alone."""
    with open_image(example) as image:
        return image.mode


@contextlib.contextmanager
def open_image(example: Example) -> Iterator[Image.Image]:
    """An image of which Pillow has read the header; every failure to read it is told as one UserError."""
    with reading_errors(f"image {example.where}", "replace or remove it"):
        if isinstance(example.file, Path):
            check_regular(example.file)
        file = io.BytesIO(example.file) if isinstance(example.file, bytes) else example.file
        with Image.open(file, formats=_FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS or math.inf
            if image.width * image.height > limit:  # of which Pillow only warns, up to twice as many
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels are more than {limit}")
            yield image
