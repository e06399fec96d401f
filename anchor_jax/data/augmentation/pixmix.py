"""PixMix: Hendrycks et al., "PixMix: Dreamlike Pictures Comprehensively Improve Safety Measures", CVPR 2022.

arXiv 2112.05135. Operations and constants are those of the released code: only operations that do not overlap with the
corruptions of ImageNet-C; the constants of CIFAR for images whose shorter side is at most 64 pixels, otherwise those of
ImageNet.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from anchor_jax.data.augmentation.operations import IDENTITY_LEVELS, Levels, map_levels
from anchor_jax.data.augmentation.uniform import to_integer, to_range
from anchor_jax.data.image_table import ImageTable
from anchor_jax.runtime import selection

MAX_ROUNDS = 4
OPERATIONS = (
    *("autocontrast", "equalize", "posterize", "solarize"),
    *("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)

_MAX_SMALL_SIDE = 64  # pixels of the shorter side up to which the constants of CIFAR are used


class Constants(NamedTuple):
    """The severities of the released code."""

    augmentation: float  # maximum level of the operations, of 10
    mixing: float  # β


CIFAR, IMAGENET = Constants(3, 3), Constants(1, 4)


def pixmix(key: jax.Array, image: jax.Array, mixing_images: jax.Array | ImageTable) -> jax.Array:
    """Mix an image with a mixing image and with augmented copies of itself, in 0 to 4 rounds, drawn uniformly.

    Args:
      key: PRNG key.
      image: uint8 `[H, W, C]`, C is 1 or 3.
      mixing_images: uint8 `[M, h, w, C]`, at least as large; a random window of one of them is used.

    Returns:
      uint8 `[H, W, C]`, rounded, whereas the released code continues in floating point.
    """
    constants = CIFAR if min(image.shape[:2]) <= _MAX_SMALL_SIDE else IMAGENET
    uniform = jax.random.uniform(key, (MAX_ROUNDS + 1, 8))
    of_copies, of_rounds, (of_start, of_num_rounds, *of_window) = uniform[:, :3], uniform[1:, 3:], uniform[0, 3:]
    copies = jax.lax.map(lambda uniform: random_copy(uniform, image, constants), of_copies).astype(jnp.float32)
    window = _random_window(of_window, mixing_images, image.shape).astype(jnp.float32)

    def mix_round(mixed, inputs):
        number, copy, uniform = inputs
        other = jnp.where(uniform[0] < 0.5, copy, window)
        is_used = number < to_integer(of_num_rounds, MAX_ROUNDS + 1)
        return jnp.where(is_used, mix(uniform[1:], mixed, other / 255, constants.mixing), mixed), None

    mixed = jnp.where(of_start < 0.5, copies[0], image) / 255
    mixed, _ = jax.lax.scan(mix_round, mixed, (jnp.arange(MAX_ROUNDS), copies[1:], of_rounds))
    return jnp.round(255 * mixed).astype(jnp.uint8)


def _random_window(
    uniform: Sequence[jax.Array], mixing_images: jax.Array | ImageTable, shape: tuple[int, ...]
) -> jax.Array:
    """Crop a random window `[H, W, C]` of a random image."""
    nums = len(mixing_images), mixing_images.shape[1] - shape[0] + 1, mixing_images.shape[2] - shape[1] + 1
    row, top, left = (to_integer(number, num) for number, num in zip(uniform, nums, strict=True))
    image = jax.tree.map(jnp.asarray, mixing_images)[row]
    return selection.window(image, (top, left), shape[:2])


# mixing


def mix(uniform: jax.Array, image: jax.Array, other: jax.Array, beta: float) -> jax.Array:
    """Return the weighted sum or product of two images in [0, 1], clipped to [0, 1]; `uniform` is `[4]`."""
    a, b = mixing_weights(uniform[:3], beta)
    return jnp.where(uniform[3] < 0.5, mix_sum(image, other, a, b), mix_product(image, other, a, b))


def mixing_weights(uniform: jax.Array, beta: float) -> tuple[jax.Array, jax.Array]:
    """Draw the weights of two images, by the inverse distribution functions, from random numbers `[3]`.

    They follow Beta(β, 1) and Beta(1, β), or else 1 + Beta(1, β) and -Beta(1, β), with probability 1/2 each.
    """
    first, second = 1 - uniform[1] ** (1 / beta), 1 - uniform[2] ** (1 / beta)
    is_convex = uniform[0] < 0.5
    return jnp.where(is_convex, 1 - first, 1 + first), jnp.where(is_convex, second, -second)


def mix_sum(image: jax.Array, other: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Return `a image + b other`, relative to a gray of 1/2."""
    return jnp.clip((a * (2 * image - 1) + b * (2 * other - 1) + 1) / 2, 0, 1)


def mix_product(image: jax.Array, other: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Return `image^a other^b`, relative to a gray of 1/2."""
    # a product of powers is the exponential of a sum of logarithms, which does not exist for 0
    power = jnp.exp(a * jnp.log(2 * image) + b * jnp.log(jnp.maximum(2 * other, 1e-37)))
    return jnp.clip(jnp.where(image > 0, power, 0) / 2, 0, 1)


# augmented copies


def random_copy(uniform: jax.Array, image: jax.Array, constants: Constants) -> jax.Array:
    """Apply one of nine operations, drawn uniformly, at a random level, to an image uint8 `[H, W, C]`."""
    level = to_range(uniform[1], 0.1, constants.augmentation)
    sign = jnp.where(uniform[2] < 0.5, 1, -1)
    return apply_operation(image, to_integer(uniform[0], len(OPERATIONS)), level, sign)


def apply_operation(image: jax.Array, number: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    """Apply an operation to an image.

    Args:
      image: uint8 `[H, W, C]`.
      number: index in `OPERATIONS`.
      level: in [0, 10].
      sign: 1 or -1, of the operations that move pixels.
    """
    height, width, _ = image.shape
    is_operation = dict(zip(OPERATIONS, number == jnp.arange(len(OPERATIONS)), strict=True))
    kept_bits = 4 - (level * 4 / 10).astype(jnp.int32)
    solarize_from = 256 - (level * 25.6).astype(jnp.int32)
    levels = Levels(
        inverted_from=jnp.where(is_operation["solarize"], solarize_from, IDENTITY_LEVELS.inverted_from),
        mask=jnp.where(is_operation["posterize"], 256 - (1 << (8 - kept_bits)), IDENTITY_LEVELS.mask),
        stretched=is_operation["autocontrast"],
        equalized=is_operation["equalize"],
    )
    angle = sign * (3 * level).astype(jnp.int32) * is_operation["rotate"] * (jnp.pi / 180)
    cos, sin, slope = jnp.cos(angle), jnp.sin(angle), 0.03 * sign * level
    right = sign * (level * width / 30).astype(jnp.int32) * is_operation["translate_x"]
    down = sign * (level * height / 30).astype(jnp.int32) * is_operation["translate_y"]
    to_x = jnp.stack([cos, -sin + slope * is_operation["shear_x"], right + (1 - cos) * width / 2 + sin * height / 2])
    to_y = jnp.stack([sin + slope * is_operation["shear_y"], cos, down - sin * width / 2 + (1 - cos) * height / 2])
    return warp_bilinear(map_levels(image, levels), to_x, to_y)


def warp_bilinear(image: jax.Array, to_x: jax.Array, to_y: jax.Array) -> jax.Array:
    """Warp an image by an affine map, with bilinear interpolation and black outside.

    This equals Pillow's bilinear filter except for one level in fewer than 1 of 1,000 values, where float64 rounds
    differently.

    Args:
      image: uint8 `[H, W, C]`.
      to_x: float32 `[3]`; the output pixel (x, y) samples the input at the column `to_x @ (x, y, 1)`, in pixels from
        the corner of the image.
      to_y: float32 `[3]`; the same for the row.
    """
    height, width, _ = image.shape
    y, x = (axis + 0.5 for axis in jnp.mgrid[:height, :width].astype(jnp.float32))
    column = to_x[0] * x + to_x[1] * y + to_x[2]
    row = to_y[0] * x + to_y[1] * y + to_y[2]
    is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    top, left = jnp.floor(row - 0.5), jnp.floor(column - 0.5)
    down, right = (row - 0.5 - top)[..., None], (column - 0.5 - left)[..., None]

    def at(rows, columns):
        rows = jnp.clip(top.astype(jnp.int32) + rows, 0, height - 1)
        columns = jnp.clip(left.astype(jnp.int32) + columns, 0, width - 1)
        return selection.pixels_at(image, rows, columns).astype(jnp.float32)

    upper = at(0, 0) + (at(0, 1) - at(0, 0)) * right
    lower = at(1, 0) + (at(1, 1) - at(1, 0)) * right
    return jnp.where(is_inside[..., None], upper + (lower - upper) * down, 0).astype(jnp.uint8)
