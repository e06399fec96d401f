"""Random boxes in an image, drawn as in torchvision."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from anchor_jax.data.augmentation.uniform import to_integer, to_range
from anchor_jax.runtime import selection

_ATTEMPTS = 10
NUM_UNIFORM = 2 * _ATTEMPTS + 2  # random numbers per box


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: jax.Array  # int32 []
    left: jax.Array  # int32 []
    height: jax.Array  # int32 []
    width: jax.Array  # int32 []


def random_box(
    uniform: jax.Array,
    shape: tuple[int, ...],
    *,
    area: tuple[float, float],
    aspect_ratio: tuple[float, float],
    min_side: int,
    max_sides: tuple[int, int],
) -> tuple[Box, jax.Array]:
    """Draw a box of random area, aspect ratio and position: the first of ten attempts that fits.

    Args:
      uniform: random numbers in [0, 1), `[NUM_UNIFORM]`.
      shape: of the image, `(H, W, ...)`.
      area: minimum and maximum, as fractions of the image's area; drawn uniformly.
      aspect_ratio: minimum and maximum width / height; drawn uniformly on a logarithmic scale.
      min_side: minimum height and width, in pixels.
      max_sides: maximum height and width, in pixels.

    Returns:
      The box, and whether any attempt fits, bool `[]`. If none does, the box is arbitrary.
    """
    height, width = shape[:2]
    areas = height * width * to_range(uniform[:_ATTEMPTS], *area)
    ratios = jnp.exp(to_range(uniform[_ATTEMPTS : 2 * _ATTEMPTS], *map(math.log, aspect_ratio)))
    widths = jnp.round(jnp.sqrt(areas * ratios)).astype(jnp.int32)
    heights = jnp.round(jnp.sqrt(areas / ratios)).astype(jnp.int32)
    fits = (jnp.minimum(heights, widths) >= min_side) & (heights <= max_sides[0]) & (widths <= max_sides[1])
    h, w = selection.entry((heights, widths), (jnp.argmax(fits),))
    top = to_integer(uniform[-2], height - h + 1)
    left = to_integer(uniform[-1], width - w + 1)
    return Box(top, left, h, w), fits.any()


def box_mask(box: Box, shape: tuple[int, ...]) -> jax.Array:
    """Return which pixels of an image `(H, W, ...)` are in the box, bool `[H, W, 1]`."""
    rows, columns = jnp.arange(shape[0])[:, None, None], jnp.arange(shape[1])[None, :, None]
    in_rows = (rows >= box.top) & (rows < box.top + box.height)
    return in_rows & (columns >= box.left) & (columns < box.left + box.width)
