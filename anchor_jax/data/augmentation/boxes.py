"""Random rectangles of an image, as torchvision draws them."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from anchor_jax.data.augmentation.draws import between, whole

_TRIES = 10
NUM_NUMBERS = 2 * _TRIES + 2  # that a rectangle is drawn from


class Box(NamedTuple):
    """A rectangle of pixels; int32 [] each."""

    top: jax.Array
    left: jax.Array
    height: jax.Array
    width: jax.Array


def random_box(
    numbers: jax.Array,
    shape: tuple[int, ...],
    *,
    areas: tuple[float, float],
    ratios: tuple[float, float],
    least: int,
    greatest: tuple[int, int],
) -> tuple[Box, jax.Array]:
    """A rectangle of random area, shape and place: the first of ten drawn that fits.

    Args:
      numbers: uniform in [0, 1), `[NUM_NUMBERS]`.
      shape: the image's, `(H, W, ...)`.
      areas: least and greatest, of that of the image, drawn uniformly.
      ratios: least and greatest width by height, drawn uniformly in their logarithm.
      least: pixels of its sides.
      greatest: pixels of its height and its width.

    Returns:
      The rectangle, and whether any of the ten fitted, bool []; where none did, the rectangle means nothing.
    """
    height, width = shape[:2]
    area = height * width * between(numbers[:_TRIES], *areas)
    ratio = jnp.exp(between(numbers[_TRIES : 2 * _TRIES], *map(math.log, ratios)))
    widths = jnp.round(jnp.sqrt(area * ratio)).astype(jnp.int32)
    heights = jnp.round(jnp.sqrt(area / ratio)).astype(jnp.int32)
    fits = (jnp.minimum(heights, widths) >= least) & (heights <= greatest[0]) & (widths <= greatest[1])
    first = jnp.argmax(fits)
    top = whole(numbers[-2], height - heights[first] + 1)
    left = whole(numbers[-1], width - widths[first] + 1)
    return Box(top, left, heights[first], widths[first]), fits.any()


def inside(box: Box, shape: tuple[int, ...]) -> jax.Array:
    """Which pixels of an image `(H, W, ...)` lie in the box, bool `[H, W, 1]`."""
    rows, columns = jnp.arange(shape[0])[:, None, None], jnp.arange(shape[1])[None, :, None]
    in_rows = (rows >= box.top) & (rows < box.top + box.height)
    return in_rows & (columns >= box.left) & (columns < box.left + box.width)
