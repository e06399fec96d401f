"""Occlusions of C-bar: sparkles, a chessboard and lines in front of the image."""

import math

import jax
import jax.numpy as jnp

from anchor_jax.data.corruptions.c_bar.coordinates import axes, offsets, shorter_side
from anchor_jax.data.corruptions.corruption import Corruption

GRAY = 128 / 255  # color of `lines` and `checkerboard_cutout`
MAX_RAYS = 200  # of a star


def sparkles(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Add five white stars with rays of random length."""
    center_key, rays_key, length_key = jax.random.split(key, 3)
    centers = jax.random.uniform(center_key, (5, 2)) * jnp.array(image.shape[:2])
    num_rays = jax.random.randint(rays_key, (5,), 50, MAX_RAYS)
    radius = 0.01 * level * shorter_side(image)
    lengths = jnp.maximum(1, radius * (1 + 0.25 * jax.random.normal(length_key, (5, MAX_RAYS))))
    return add_stars(image, centers, lengths, num_rays)


def add_stars(image: jax.Array, centers: jax.Array, lengths: jax.Array, num_rays: jax.Array) -> jax.Array:
    """Add the white light of N stars.

    Args:
      image: `[H, W, 3]`.
      centers: `[N, 2]`, in pixels.
      lengths: of the rays, `[N, R]`, in pixels.
      num_rays: of each star, int `[N]`, at most R.
    """
    light = jax.vmap(glow, in_axes=(None, 0, 0, 0, None))(image, centers, lengths, num_rays, 1.0)
    return 1 - jnp.prod(1 - light, axis=0) * (1 - image)


def inverse_sparkles(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Show the image inside a star, and white around it."""
    center_key, rays_key, length_key = jax.random.split(key, 3)
    center = jax.random.uniform(center_key, (2,), minval=0.25, maxval=0.75) * jnp.array(image.shape[:2])
    num_rays = jax.random.randint(rays_key, (), 50, MAX_RAYS)
    lengths = 0.25 * shorter_side(image) * (1 + 0.25 * jax.random.normal(length_key, (MAX_RAYS,)))
    return show_in_star(image, center, lengths, num_rays, 0.13 * level)


def show_in_star(
    image: jax.Array, center: jax.Array, lengths: jax.Array, num_rays: jax.Array, power: jax.Array
) -> jax.Array:
    """Show the image where a star glows, and white elsewhere; see `glow`."""
    return 1 - glow(image, center, lengths, num_rays, power) * (1 - image)


def glow(
    image: jax.Array, center: jax.Array, lengths: jax.Array, num_rays: jax.Array, power: jax.Array | float
) -> jax.Array:
    """Return the light of a star, `[H, W, 1]` in [0, 1].

    Args:
      image: `[H, W, 3]`; only its shape is used.
      center: `[2]`, in pixels.
      lengths: of the rays, `[R]`, in pixels.
      num_rays: number of rays that are used, at equal angles.
      power: exponent of the falloff.
    """
    dy, dx = offsets(image, center)
    turns = (jnp.arctan2(dx, dy) + jnp.pi) / (2 * jnp.pi) * num_rays
    ray = jnp.floor(turns).astype(jnp.int32)
    between = turns - ray
    # pairs of each ray and the next: on a CPU, a single lookup for both is three times faster
    pairs = jnp.stack([lengths, lengths[(jnp.arange(len(lengths)) + 1) % num_rays]], axis=1)[ray % num_rays]
    length = (1 - between) * pairs[..., 0] + between * pairs[..., 1]
    falloff = (length**2 / (dy**2 + dx**2 + 1e-4)) ** power
    return jnp.clip((1 - (between - 0.5) ** 2) * falloff, 0, 1)[..., None]


def checkerboard_cutout(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Paint some squares of one color of a rotated chessboard gray."""
    angle_key, side_key, square_key = jax.random.split(key, 3)
    angle = jax.random.uniform(angle_key, maxval=2 * jnp.pi)
    side = jnp.maximum(1, jax.random.uniform(side_key, minval=0.1, maxval=0.25) * shorter_side(image))
    reach = math.ceil(math.hypot(*image.shape[:2]) / max(1, 0.1 * shorter_side(image)))
    squares = jax.random.bernoulli(square_key, level / 10, (2 * reach, 2 * reach))
    return cut_out_squares(image, angle, side, squares)


def cut_out_squares(image: jax.Array, angle: jax.Array, side: jax.Array, squares: jax.Array) -> jax.Array:
    """Paint squares of a rotated chessboard gray.

    Args:
      image: `[H, W, 3]`.
      angle: of the board, in radians.
      side: of a square, in pixels.
      squares: which squares to paint, bool `[2 R, 2 R]`; `[R, R]` begins at the corner of the image. Squares of the
        other color are not painted.
    """
    y, x = axes(image)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    row = jnp.floor((cos * y + sin * x) / side).astype(jnp.int32)
    column = jnp.floor((cos * x - sin * y) / side).astype(jnp.int32)
    reach = len(squares) // 2
    is_painted = squares[row + reach, column + reach] & ((row + column) % 2 == 0)
    return jnp.where(is_painted[..., None], GRAY, image)


def lines(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Draw gray lines, twice as long as the image's side, with directions around a common one."""
    angle_key, variation_key, line_key = jax.random.split(key, 3)
    angle = jax.random.uniform(angle_key, maxval=2 * jnp.pi)
    variation = jax.random.uniform(variation_key, minval=0.1, maxval=1)
    side = shorter_side(image)
    uniform = jax.random.uniform(line_key, (side, 3))  # the number of lines at level 10
    centers = uniform[:, :2] * jnp.array(image.shape[:2])
    angles = angle + 2 * jnp.pi * variation * (uniform[:, 2] - 0.5)
    halves = side * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    ends = jnp.trunc(jnp.stack([centers - halves, centers + halves], axis=1))
    return draw_lines(image, ends, jnp.floor(level * side / 10).astype(jnp.int32))


def draw_lines(image: jax.Array, ends: jax.Array, num_lines: jax.Array) -> jax.Array:
    """Draw the first `num_lines` of N gray lines with the ends (y, x) `[N, 2, 2]` on top of each other."""

    def cover(n, uncovered):
        return uncovered * (1 - line_coverage(image, *ends[n]))

    uncovered = jax.lax.fori_loop(0, num_lines, cover, jnp.ones((*image.shape[:2], 1)))
    return GRAY + uncovered * (image - GRAY)


def line_coverage(image: jax.Array, start: jax.Array, end: jax.Array) -> jax.Array:
    """Return the coverage of an antialiased line, `[H, W, 1]` in [0, 1]: scikit-image's `line_aa`.

    Its Bresenham algorithm computes 1 minus the distance to the line, inside the rectangle spanned by its ends.
    """
    extent, direction = jnp.abs(end - start), jnp.where(end >= start, 1, -1)
    down, right = (d * offset for d, offset in zip(direction, offsets(image, start), strict=True))
    distance = jnp.abs(extent[1] * down - extent[0] * right) / jnp.hypot(*extent)
    inside = (down >= 0) & (down <= extent[0]) & (right >= 0) & (right <= extent[1])
    return jnp.where(inside, jnp.maximum(0, 1 - distance), 0)[..., None]


# Levels of severity 1..5 in CIFAR-10-C-bar (small) and ImageNet-C-bar (large), see noise.py.
CORRUPTIONS = {
    "checkerboard_cutout": Corruption(checkerboard_cutout, (1.0, 2.0, 3.0, 4.0, 5.0), (2.0, 3.0, 4.0, 5.0, 6.0)),
    "inverse_sparkles": Corruption(inverse_sparkles, (1.0, 1.5, 2.5, 4.5, 5.0), (1.0, 2.0, 4.0, 9.0, 10.0)),
    "sparkles": Corruption(sparkles, (0.7, 3.5, 5.6, 6.3, 7.0), (1.0, 2.0, 3.0, 5.0, 6.0)),
    # in CIFAR-10-C-bar only
    "lines": Corruption(lines, (0.5, 1.0, 1.5, 2.0, 2.5), (0.8, 2.4, 4.0, 5.6, 7.2)),
}
