"""Spatter: drops of water or mud, with the OpenCV functions that the published generator calls."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.data.corruptions.corruption import Corruption
from anchor_jax.data.corruptions.filters import Array, filter_axes, gaussian_axes

WATER_COLOR = np.array([175, 238, 238], np.float32) / 255
MUD_COLOR = np.array([63, 42, 20], np.float32) / 255

_ONES = np.ones((3, 3))
_SOBEL_X = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
_LIGHT = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])  # emboss filter
# steps of OpenCV's distance transform with a 5 x 5 mask: (dy, dx, length) of horizontal and vertical, diagonal and
# knight's moves
_STEPS = [
    (dy, dx, {1: 1.0, 2: 1.4, 5: 2.1969}[dy**2 + dx**2])
    for dy in range(-2, 3)
    for dx in range(-2, 3)
    if dy**2 + dx**2 in (1, 2, 5)
]


class Drops(NamedTuple):
    """What falls on the image: normally distributed numbers, blurred, and removed below a threshold."""

    mean: float
    std: float
    down: Array  # [H, H], Gaussian blur down the columns
    along: Array  # [W, W], along the rows
    threshold: float


class WaterConstants(NamedTuple):
    """Constants of `spatter` with water, for one image size."""

    drops: Drops
    amount: float


class MudConstants(NamedTuple):
    """Constants of `spatter` with mud, for one image size."""

    drops: Drops
    down: Array  # [H, H], Gaussian blur of the covered area, down the columns
    along: Array  # [W, W], along the rows


def spatter_constants(constants: tuple[float, ...], shape: tuple[int, int]) -> WaterConstants | MudConstants:
    """Prepare the published mean, std, sigma, threshold, amount of water or sigma of mud, and whether it is mud."""
    mean, std, sigma, threshold, amount_or_sigma, is_mud = constants
    drops = Drops(mean, std, *gaussian_axes(sigma, shape), threshold)
    if is_mud:
        return MudConstants(drops, *gaussian_axes(amount_or_sigma, shape))
    return WaterConstants(drops, amount_or_sigma)


def spatter(key: jax.Array, image: jax.Array, constants: WaterConstants | MudConstants) -> jax.Array:
    """Add drops of water, lit from one side, or of mud."""
    mean, std, down, along, threshold = constants.drops
    liquid = filter_axes(mean + std * jax.random.normal(key, image.shape[:2]), down, along)
    if isinstance(constants, WaterConstants):
        return add_water(image, jnp.where(liquid < threshold, 0, liquid), constants.amount)
    covered = filter_axes(jnp.where(liquid > threshold, 1.0, 0.0), constants.down, constants.along)[..., None]
    covered = jnp.where(covered < 0.8, 0, covered)
    return (1 - covered) * image + covered * MUD_COLOR


def add_water(image: jax.Array, liquid: jax.Array, amount: float) -> jax.Array:
    """Add the color of water, according to the relief of a liquid layer.

    Intermediate results are integer levels, like those of the OpenCV functions in the published generator.

    Args:
      image: float32 `[H, W, 3]` in [0, 1].
      liquid: depth of the layer, float32 `[H, W]`, at least 0.
      amount: weight of the color.
    """
    liquid = jnp.floor(255 * liquid).astype(jnp.int32) % 256  # values above 1 wrap around in the generator
    distance = distance_transform(canny(liquid, 50, 150), 20)
    height = equalize_histogram(jnp.floor(correlate(distance, _ONES) / 9 + 1e-4).astype(jnp.int32))
    slope = jnp.clip(correlate(height, _LIGHT), 0, 255)
    depth = liquid * jnp.round(correlate(slope, _ONES) / 9)
    return image + amount * (depth / jnp.maximum(depth.max(), 1))[..., None] * WATER_COLOR


# the functions of OpenCV


def canny(image: jax.Array, low: int, high: int) -> jax.Array:
    """Compute `cv2.Canny`: edges, bool `[H, W]`, of an image int32 `[H, W]`.

    The gradient magnitude is |dx| + |dy| of Sobel's gradient. An edge pixel has a magnitude above `low` and above its
    two neighbors across the edge, and is connected to an edge pixel with a magnitude above `high`.
    """
    dx, dy = correlate(image, _SOBEL_X, "edge"), correlate(image, _SOBEL_X.T, "edge")
    magnitude = jnp.abs(dx) + jnp.abs(dy)
    near = shifts(magnitude, "constant")
    rise, run = jnp.abs(dy) << 15, 13573 * jnp.abs(dx)  # 13573 / 2^15 is tan(22.5 degrees)
    is_falling = (dx < 0) == (dy < 0)
    is_maximum = jnp.select(
        [rise < run, rise > run + (jnp.abs(dx) << 16), is_falling],
        [
            (magnitude > near(0, -1)) & (magnitude >= near(0, 1)),
            (magnitude > near(-1, 0)) & (magnitude >= near(1, 0)),
            (magnitude > near(-1, -1)) & (magnitude > near(1, 1)),
        ],
        (magnitude > near(-1, 1)) & (magnitude > near(1, -1)),
    )
    edges = is_maximum & (magnitude > low)

    def grow(connected):
        return edges & (correlate(connected.astype(jnp.int32), _ONES, "constant") > 0)

    return fixed_point(grow, edges & (magnitude > high))


def distance_transform(marked: jax.Array, limit: float) -> jax.Array:
    """Compute `cv2.distanceTransform`: distance to the nearest marked pixel, up to `limit`.

    Args:
      marked: bool `[H, W]`.
      limit: maximum distance, in pixels.

    Returns:
      float32 `[H, W]`: the length of the shortest path of steps within 5 x 5 pixels, whose lengths OpenCV defines.
    """

    def relax(distance):
        near = shifts(distance, "edge", reach=2)
        return jnp.stack([distance, *(near(dy, dx) + length for dy, dx, length in _STEPS)]).min(0)

    return fixed_point(relax, jnp.where(marked, 0.0, limit))


def equalize_histogram(levels: jax.Array) -> jax.Array:
    """Compute `cv2.equalizeHist` of levels int32 `[H, W]` in 0..255."""
    counts = jnp.bincount(levels.ravel(), length=256)
    lowest = counts[levels.min()]
    above = levels.size - lowest
    ranks = jnp.round((jnp.cumsum(counts) - lowest) * (255 / jnp.maximum(above, 1))).astype(jnp.int32)
    return jnp.where(above > 0, ranks[levels], levels)


def fixed_point(step: Callable[[jax.Array], jax.Array], start: jax.Array) -> jax.Array:
    """Repeat a step until the result no longer changes, and return it."""

    def changes(pair):
        return (pair[0] != pair[1]).any()

    return jax.lax.while_loop(changes, lambda pair: (pair[1], step(pair[1])), (start, step(start)))[1]


def correlate(image: jax.Array, kernel: np.ndarray, mode: str = "reflect") -> jax.Array:
    """Correlate an image `[H, W]` with a 3 x 3 kernel of integers; `mode` is that of `jnp.pad`."""
    near = shifts(image, mode)
    return sum(
        (int(kernel[i, j]) * near(i - 1, j - 1) for i, j in np.argwhere(kernel)), start=jnp.zeros((), image.dtype)
    )


def shifts(image: jax.Array, mode: str, reach: int = 1) -> Callable[[int, int], jax.Array]:
    """Return a function (dy, dx) -> pixels `[H, W]` at that offset, up to `reach`; `mode` is that of `jnp.pad`."""
    height, width = image.shape
    padded = jnp.pad(image, reach, mode=mode)
    return lambda dy, dx: padded[reach + dy : reach + dy + height, reach + dx : reach + dx + width]


CORRUPTIONS = {
    "spatter": Corruption(
        spatter,
        (
            (0.62, 0.1, 0.7, 0.7, 0.5, False),
            (0.65, 0.1, 0.8, 0.7, 0.5, False),
            (0.65, 0.3, 1, 0.69, 0.5, False),
            (0.65, 0.1, 0.7, 0.69, 0.6, True),
            (0.65, 0.1, 0.5, 0.68, 0.6, True),
        ),
        (
            (0.65, 0.3, 4, 0.69, 0.6, False),
            (0.65, 0.3, 3, 0.68, 0.6, False),
            (0.65, 0.3, 2, 0.68, 0.5, False),
            (0.65, 0.3, 1, 0.65, 1.5, True),
            (0.67, 0.4, 1, 0.65, 1.5, True),
        ),
        spatter_constants,
    ),
}
