"""The operations of augmentation policies on one image, in three groups that are each computed once.

Operations that move pixels are affine warps, those that combine the image with another one are blends, and those that
depend on the level of a pixel alone are lookup tables. An operation sets the parameters of these three, two of which
then leave the image unchanged. Images in a batch therefore differ in parameters only, and share one program. The input
of a gather is computed before it, because XLA on CPU would otherwise recompute it for every pixel that is read.

All operations equal those of Pillow bit for bit, which torchvision's transforms call: nearest neighbors, black outside
the image, and the same integer arithmetic. The only exception is the table of "AutoContrast": 0.4 % of its entries
differ by one level, where the float64 of Pillow rounds an integer down; ours is exact.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.data.augmentation.warping import warp
from anchor_jax.runtime import selection
from anchor_jax.runtime.backends import histogram, materialize

Array = Any  # a NumPy array where an operation is created on the host, a jax.Array where it is applied

_LUMA = (19595, 38470, 7471)  # ITU-R BT.601, times 2^16
_NOTHING, _BLACK, _MEAN, _GRAY, _SMOOTH = range(5)  # images to blend with


class Blend(NamedTuple):
    """`other + factor (image - other)`: towards another image for factors below 1, away from it above 1."""

    other: Array  # int32 [], one of _NOTHING to _SMOOTH
    factor: Array  # float32 []


class Levels(NamedTuple):
    """A mapping of the levels 0..255 of each channel."""

    inverted_from: Array  # int32 []: this level and all above are inverted; 256: none
    mask: Array  # int32 [], bits to keep; 255: all
    stretched: Array  # bool []: the minimum becomes 0 and the maximum 255
    equalized: Array  # bool []: the histogram becomes as uniform as possible


class Operation(NamedTuple):
    """One operation on an image."""

    matrix: Array  # int32 [6]: a, b, c, d, e, f map output to input coordinates, in 1 / 65536 pixel
    blend: Blend
    levels: Levels


_IDENTITY_MATRIX = np.array([1, 0, 0, 0, 1, 0], np.float64)
_IDENTITY_BLEND = Blend(np.int32(_NOTHING), np.float32(1))
IDENTITY_LEVELS = Levels(np.int32(256), np.int32(255), np.bool_(False), np.bool_(False))


def create_operation(name: str, magnitude: float, shape: tuple[int, ...]) -> Operation:
    """Create an operation of torchvision's policies, on the host.

    Args:
      name: as in torchvision.
      magnitude: slope ("ShearX", "ShearY"); pixels, truncated to an integer ("TranslateX", "TranslateY"); degrees
        counter-clockwise ("Rotate"); blending factor minus 1 ("Brightness", "Color", "Contrast", "Sharpness"); bits to
        keep ("Posterize"); level from which all are inverted ("Solarize"); ignored by the others.
      shape: of the image, `(H, W, ...)`.
    """
    matrix, blend, levels = _IDENTITY_MATRIX, _IDENTITY_BLEND, IDENTITY_LEVELS
    if name in _BLENDS:
        blend = Blend(np.int32(_BLENDS[name]), np.float32(1 + magnitude))
    elif name in _MATRICES:
        matrix = _MATRICES[name](magnitude, shape)
    elif name in _LEVELS:
        levels = _LEVELS[name](magnitude)
    return Operation(_to_fixed_point(matrix), blend, levels)


def _rotation(degrees: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return the matrix of a counter-clockwise rotation around the center, float64 `[6]`."""
    y, x = shape[0] / 2, shape[1] / 2
    cos, sin = (round(f(-math.radians(degrees)), 15) for f in (math.cos, math.sin))
    return np.array([cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y])


_BLENDS = {"Brightness": _BLACK, "Contrast": _MEAN, "Color": _GRAY, "Sharpness": _SMOOTH}
_MATRICES = {
    "ShearX": lambda slope, shape: np.array([1, slope, 0, 0, 1, 0]),
    "ShearY": lambda slope, shape: np.array([1, 0, 0, slope, 1, 0]),
    "TranslateX": lambda pixels, shape: np.array([1, 0, -int(pixels), 0, 1, 0]),
    "TranslateY": lambda pixels, shape: np.array([1, 0, 0, 0, 1, -int(pixels)]),
    "Rotate": _rotation,
}
_LEVELS = {
    "Posterize": lambda bits: IDENTITY_LEVELS._replace(mask=np.int32(256 - 2 ** (8 - int(bits)))),
    "Solarize": lambda level: IDENTITY_LEVELS._replace(inverted_from=np.int32(math.ceil(level))),
    "AutoContrast": lambda _: IDENTITY_LEVELS._replace(stretched=np.bool_(True)),
    "Equalize": lambda _: IDENTITY_LEVELS._replace(equalized=np.bool_(True)),
}


def _to_fixed_point(matrix: np.ndarray) -> np.ndarray:
    """Convert a matrix between pixel corners to one between pixel centers, in 1 / 65536 pixel."""
    a, b, c, d, e, f = matrix
    centered = np.array([a, b, c + (a + b) / 2, d, e, f + (d + e) / 2])
    return np.floor(centered * 65536 + 0.5).astype(np.int32)


def apply(image: jax.Array, operation: Operation) -> jax.Array:
    """Apply an operation to an image uint8 `[H, W, C]`, C is 1 or 3; returns the same shape and dtype."""
    return warp(blend(map_levels(image, operation.levels), operation.blend), operation.matrix)


# blends


def blend(image: jax.Array, blend: Blend) -> jax.Array:
    """Blend an image uint8 `[H, W, C]` with another one; the result is truncated to integer levels."""
    levels = image.astype(jnp.int32)
    gray = luma(levels)
    others = {_BLACK: 0, _MEAN: _mean(gray), _GRAY: gray, _SMOOTH: _smooth(levels)}
    other = levels
    for number, values in others.items():
        other = jnp.where(blend.other == number, values, other)
    # factor * difference as the sum of two products that are both exact in float32: the result is then the same whether
    # or not the compiler fuses a multiplication with the addition
    coarse = jax.lax.reduce_precision(blend.factor, exponent_bits=8, mantissa_bits=11)
    difference = (levels - other).astype(jnp.float32)
    product = coarse * difference + (blend.factor - coarse) * difference
    return materialize(jnp.clip(other.astype(jnp.float32) + product, 0, 255).astype(jnp.uint8))


def luma(levels: jax.Array) -> jax.Array:
    """Convert levels int32 `[H, W, C]` to grayscale int32 `[H, W, 1]`."""
    if levels.shape[-1] == 1:
        return levels
    return ((levels * jnp.array(_LUMA)).sum(-1, keepdims=True) + (1 << 15)) >> 16


def _mean(gray: jax.Array) -> jax.Array:
    """Return the mean, rounded to the nearest integer."""
    return (2 * gray.sum() + gray.size) // (2 * gray.size)


def _smooth(levels: jax.Array) -> jax.Array:
    """Return weighted means of 3 x 3 pixels, with weight 5 for the center and 1 for the others; borders are kept."""
    rows = levels[:-2] + levels[1:-1] + levels[2:]
    center = levels[1:-1, 1:-1]
    sums = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * center
    return levels.at[1:-1, 1:-1].set((2 * sums + 13) // 26)


# levels


def map_levels(image: jax.Array, levels: Levels) -> jax.Array:
    """Map the levels of each channel of an image uint8 `[H, W, C]`."""
    tables = jax.vmap(lambda values: _level_table(values, levels), in_axes=-1)(image.reshape(-1, image.shape[-1]))
    return materialize(selection.levels_of(image, materialize(tables)))


def _level_table(values: jax.Array, levels: Levels) -> jax.Array:
    """Return the new level of each level, uint8 `[256]`, in a channel with the values uint8 `[N]`."""
    level, counts = jnp.arange(256), histogram(values)
    low, high = jnp.argmax(counts > 0), 255 - jnp.argmax(counts[::-1] > 0)
    stretched = jnp.clip(255 * (level - low) // jnp.maximum(high - low, 1), 0, 255)
    table = jnp.where(level >= levels.inverted_from, 255 - level, level) & levels.mask
    table = jnp.where(levels.stretched & (low < high), stretched, table)
    equalized = _equalization_table(counts, selection.entry(counts, (high,)))
    return jnp.where(levels.equalized, equalized, table).astype(jnp.uint8)


def _equalization_table(counts: jax.Array, count_of_maximum: jax.Array) -> jax.Array:
    """Return the table of histogram equalization, int32 `[256]`, from the histogram and the count of its top level."""
    step = (counts.sum() - count_of_maximum) // 255
    below = jnp.cumsum(counts) - counts
    table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, table, jnp.arange(256))
