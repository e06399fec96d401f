"""What the policies do to one image, in three groups of which each is computed once.

All that moves pixels is one affine map; all that blends is one blend with another image; all that looks at a pixel's
level alone is one table. An operation is a setting of the three in which two leave the image as it is: so operations
differ from image to image in numbers, not in the program. What a gather reads is computed once before it, since XLA on
CPU would compute it again for each pixel that is read.

Everything is that of Pillow, which torchvision's transforms call for its images: nearest neighbours and black where
there are none, and the same whole numbers bit for bit. Only tables of "AutoContrast" differ by one level, in 0.4 % of
the entries, which Pillow's float64 rounds down from a whole number; ours are exact.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.runtime.backends import histogram, materialize

Array = Any  # jax.Array where it is traced, of NumPy where it is made on the host

_LUMA = (19595, 38470, 7471)  # of ITU-R BT.601, times 2^16
_NOTHING, _BLACK, _MEAN, _GREY, _SMOOTH = range(5)  # what is blended with


class Blend(NamedTuple):
    """`other + factor (image - other)`: towards another image below 1, away from it above."""

    other: Array  # int32 []
    factor: Array  # float32 []


class Levels(NamedTuple):
    """What becomes of each level of a channel."""

    inverted_from: Array  # int32 [], the level from which on all are inverted; 256: none
    mask: Array  # int32 [], of the binary places that are kept; 255: all
    stretched: Array  # bool [], so that the darkest is 0 and the lightest 255
    equalized: Array  # bool [], so that all are as frequent as they can be


class Operation(NamedTuple):
    """One operation on an image."""

    matrix: Array  # int32 [6], from a pixel's (x, y) to where it is seen; a, b, c, d, e, f in 1 / 65536 pixel
    blend: Blend
    levels: Levels


_SAME_MATRIX = np.array([1, 0, 0, 0, 1, 0], np.float64)
_SAME_BLEND = Blend(np.int32(_NOTHING), np.float32(1))
SAME_LEVELS = Levels(np.int32(256), np.int32(255), np.bool_(False), np.bool_(False))


def operation(name: str, magnitude: float, shape: tuple[int, ...]) -> Operation:
    """An operation of torchvision's policies, on the host.

    Args:
      name: as in torchvision.
      magnitude: slope ("ShearX", "ShearY"), pixels, cut off to whole ones ("TranslateX", "TranslateY"), degrees
        counter-clockwise ("Rotate"), change of the factor 1 ("Brightness", "Color", "Contrast", "Sharpness"), places
        that are kept ("Posterize") or the level from which on all are inverted ("Solarize").
      shape: the image's, `(H, W, ...)`.
    """
    matrix, blend, levels = _SAME_MATRIX, _SAME_BLEND, SAME_LEVELS
    if name in _BLENDED:
        blend = Blend(np.int32(_BLENDED[name]), np.float32(1 + magnitude))
    elif name in _MOVED:
        matrix = _MOVED[name](magnitude, shape)
    elif name in _LEVELS:
        levels = _LEVELS[name](magnitude)
    return Operation(_fixed(matrix), blend, levels)


def rotation(degrees: float, shape: tuple[int, ...]) -> np.ndarray:
    """The matrix float64 `[6]` of a rotation around the middle, counter-clockwise."""
    y, x = shape[0] / 2, shape[1] / 2
    cos, sin = (round(f(-math.radians(degrees)), 15) for f in (math.cos, math.sin))
    return np.array([cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y])


_BLENDED = {"Brightness": _BLACK, "Contrast": _MEAN, "Color": _GREY, "Sharpness": _SMOOTH}
_MOVED = {
    "ShearX": lambda slope, shape: np.array([1, slope, 0, 0, 1, 0]),
    "ShearY": lambda slope, shape: np.array([1, 0, 0, slope, 1, 0]),
    "TranslateX": lambda pixels, shape: np.array([1, 0, -int(pixels), 0, 1, 0]),
    "TranslateY": lambda pixels, shape: np.array([1, 0, 0, 0, 1, -int(pixels)]),
    "Rotate": rotation,
}
_LEVELS = {
    "Posterize": lambda places: SAME_LEVELS._replace(mask=np.int32(256 - 2 ** (8 - int(places)))),
    "Solarize": lambda level: SAME_LEVELS._replace(inverted_from=np.int32(math.ceil(level))),
    "AutoContrast": lambda _: SAME_LEVELS._replace(stretched=np.bool_(True)),
    "Equalize": lambda _: SAME_LEVELS._replace(equalized=np.bool_(True)),
}


def _fixed(matrix: np.ndarray) -> np.ndarray:
    """A matrix between corners of pixels in 1 / 65536 pixel, as one between their centres."""
    a, b, c, d, e, f = matrix
    centred = np.array([a, b, c + (a + b) / 2, d, e, f + (d + e) / 2])
    return np.floor(centred * 65536 + 0.5).astype(np.int32)


def apply(image: jax.Array, operation: Operation) -> jax.Array:
    """uint8 `[H, W, C]`, C is 1 or 3 -> the same after an operation."""
    return warp(blend(map_levels(image, operation.levels), operation.blend), operation.matrix)


def warp(image: jax.Array, matrix: Array) -> jax.Array:
    """Each pixel of `[H, W, C]` is the one that the matrix int32 `[6]` says, or black where there is none."""
    height, width, _ = image.shape
    y, x = jnp.mgrid[:height, :width]
    column = (matrix[0] * x + matrix[1] * y + matrix[2]) >> 16
    row = (matrix[3] * x + matrix[4] * y + matrix[5]) >> 16
    return pixels_at(image, row, column)


def pixels_at(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """The pixels of `[H, W, C]` at int32 `[H, W]`, black outside of it."""
    height, width, channels = image.shape
    there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    pixels = jnp.take(image.reshape(-1, channels), row * width + column, axis=0, mode="clip")
    return jnp.where(there[..., None], pixels, 0)


# blends


def blend(image: jax.Array, blend: Blend) -> jax.Array:
    """uint8 `[H, W, C]` -> the same after a blend, cut off to whole levels."""
    own = image.astype(jnp.int32)
    grey = luma(own)
    others = {_BLACK: 0, _MEAN: _mean(grey), _GREY: grey, _SMOOTH: _smooth(own)}
    other = own
    for number, values in others.items():
        other = jnp.where(blend.other == number, values, other)
    # a float32 product of which both halves are exact: rounded before the sum also where the compiler fuses the two
    coarse = jax.lax.reduce_precision(blend.factor, exponent_bits=8, mantissa_bits=11)
    distance = (own - other).astype(jnp.float32)
    product = coarse * distance + (blend.factor - coarse) * distance
    return materialize(jnp.clip(other.astype(jnp.float32) + product, 0, 255).astype(jnp.uint8))


def luma(levels: jax.Array) -> jax.Array:
    """Grey int32 `[H, W, 1]` of int32 `[H, W, C]`."""
    if levels.shape[-1] == 1:
        return levels
    return ((levels * jnp.array(_LUMA)).sum(-1, keepdims=True) + (1 << 15)) >> 16


def _mean(grey):
    """The nearest whole number."""
    return (2 * grey.sum() + grey.size) // (2 * grey.size)


def _smooth(levels):
    """Means of 3 x 3 pixels with five parts of the one in the middle; those at the edges stay."""
    rows = levels[:-2] + levels[1:-1] + levels[2:]
    middle = levels[1:-1, 1:-1]
    sums = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * middle
    return levels.at[1:-1, 1:-1].set((2 * sums + 13) // 26)


# levels


def map_levels(image: jax.Array, levels: Levels) -> jax.Array:
    """uint8 `[H, W, C]` -> the same with the levels of each channel changed."""
    channels = image.shape[-1]
    tables = jax.vmap(lambda values: _table(values, levels), in_axes=-1)(image.reshape(-1, channels))
    places = image.astype(jnp.int32) + 256 * jnp.arange(channels)
    return materialize(jnp.take(materialize(tables).ravel(), places, mode="clip"))


def _table(values: jax.Array, levels: Levels) -> jax.Array:
    """What becomes of each level in a channel of values uint8 `[N]`, uint8 `[256]`."""
    level, counts = jnp.arange(256), histogram(values)
    least, greatest = jnp.argmax(counts > 0), 255 - jnp.argmax(counts[::-1] > 0)
    stretched = jnp.clip(255 * (level - least) // jnp.maximum(greatest - least, 1), 0, 255)
    table = jnp.where(level >= levels.inverted_from, 255 - level, level) & levels.mask
    table = jnp.where(levels.stretched & (least < greatest), stretched, table)
    return jnp.where(levels.equalized, _equalized(counts, counts[greatest]), table).astype(jnp.uint8)


def _equalized(counts: jax.Array, of_greatest: jax.Array) -> jax.Array:
    """The table of all levels, int32 `[256]`, from how often they are, and the greatest of them."""
    step = (counts.sum() - of_greatest) // 255
    below = jnp.cumsum(counts) - counts
    table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, table, jnp.arange(256))
