"""From encoded images to arrays, by Pillow."""

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from anchor_jax.data.dataset import reading
from anchor_jax.errors import UserError

_ROWS_PER_TASK = 64


class Example(NamedTuple):
    """An encoded image and its label."""

    file: Path | bytes  # where the encoded image is, or the encoded image itself
    label: int
    where: str  # what an error message calls the image


def decode_all(
    example: Callable[[int], Example], num: int, mode: str, image_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes examples 0 to num - 1 into images [num, H, W, C] and labels [num]."""
    first = example(0)
    shape = _decode(first, mode, image_size).shape
    images, labels = np.empty((num, *shape), np.uint8), np.empty(num, np.int64)

    def fill(rows: Iterable[int]) -> None:
        for row in rows:
            current = example(row)
            image = _decode(current, mode, image_size)
            if image.shape != shape:
                raise UserError(
                    f"images differ in size: {first.where} is {shape[0]}x{shape[1]}, {current.where} is "
                    f"{image.shape[0]}x{image.shape[1]}; set data.image_size to resize them"
                )
            images[row], labels[row] = image, current.label

    tasks = [range(start, min(start + _ROWS_PER_TASK, num)) for start in range(0, num, _ROWS_PER_TASK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, tasks):
            pass
    return images, labels


def _decode(example: Example, mode: str, image_size: int) -> np.ndarray:
    with _opened(example) as image:
        if image.mode.startswith(("I", "F")):  # Pillow would clip these to 8 bits, not scale them
            raise UserError(f"image {example.where} has pixels of mode {image.mode}; 8 bits are expected")
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # what Pillow's own warning asks for
        image = image.convert(mode)
        if image_size:
            image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)
        return np.asarray(image).reshape(image.height, image.width, len(mode))


def mode_of(example: Example) -> str:
    """Pillow's mode of an image, such as "RGB", from its header alone."""
    with _opened(example) as image:
        return image.mode


@contextlib.contextmanager
def _opened(example: Example) -> Iterator[Image.Image]:
    file = io.BytesIO(example.file) if isinstance(example.file, bytes) else example.file
    with reading(f"image {example.where}", "replace or remove it"), Image.open(file) as image:
        yield image
