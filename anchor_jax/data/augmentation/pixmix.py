"""PixMix: Hendrycks et al., "PixMix: Dreamlike Pictures Comprehensively Improve Safety Measures", CVPR 2022.

arXiv 2112.05135, with the operations and constants of the released code: the operations that do not overlap with the
corruptions of ImageNet-C, the constants of CIFAR for images whose shorter side is at most 64 pixels, else of ImageNet.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from anchor_jax.data.augmentation.draws import between, whole
from anchor_jax.data.augmentation.operations import SAME_LEVELS, Levels, map_levels, pixels_at

ROUNDS = 4  # at most
OPERATIONS = (
    *("autocontrast", "equalize", "posterize", "solarize"),
    *("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)

_LARGEST_SMALL = 64  # pixels of the shorter side


class Constants(NamedTuple):
    """What the released code calls severities."""

    augmentation: float  # of 10
    mixing: float  # β


CIFAR, IMAGENET = Constants(3, 3), Constants(1, 4)


def pixmix(key: jax.Array, image: jax.Array, pictures: jax.Array) -> jax.Array:
    """Mixes an image with a picture and with augmented copies of itself, 0 to 4 times, each as likely.

    Args:
      key: of the random numbers.
      image: uint8 `[H, W, C]`, C is 1 or 3.
      pictures: uint8 `[M, h, w, C]`, at least as large; of one of them a random window is taken.

    Returns:
      uint8 `[H, W, C]`, rounded, where the released code goes on with floats.
    """
    constants = CIFAR if min(image.shape[:2]) <= _LARGEST_SMALL else IMAGENET
    numbers = jax.random.uniform(key, (ROUNDS + 1, 8))
    of_copies, of_rounds, (is_augmented, rounds, *of_picture) = numbers[:, :3], numbers[1:, 3:], numbers[0, 3:]
    copies = jax.lax.map(lambda numbers: augmented_copy(numbers, image, constants), of_copies).astype(jnp.float32)
    picture = _window(of_picture, pictures, image.shape).astype(jnp.float32)

    def mixed(own, inputs):
        number, copy, numbers = inputs
        other = jnp.where(numbers[0] < 0.5, copy, picture)
        return jnp.where(number < whole(rounds, ROUNDS + 1), mix(numbers[1:], own, other / 255, constants.mixing), own)

    own = jnp.where(is_augmented < 0.5, copies[0], image) / 255
    inputs = jnp.arange(ROUNDS), copies[1:], of_rounds
    own, _ = jax.lax.scan(lambda own, inputs: (mixed(own, inputs), None), own, inputs)
    return jnp.round(255 * own).astype(jnp.uint8)


def _window(numbers: Sequence[jax.Array], pictures: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A random window `[H, W, C]` of a random picture."""
    nums = len(pictures), pictures.shape[1] - shape[0] + 1, pictures.shape[2] - shape[1] + 1
    row, top, left = (whole(number, num) for number, num in zip(numbers, nums, strict=True))
    return jax.lax.dynamic_slice(pictures, (row, top, left, 0), (1, *shape))[0]


# mixing


def mix(numbers: jax.Array, own: jax.Array, other: jax.Array, beta: float) -> jax.Array:
    """The sum or the product of two images in [0, 1], with random weights, cut off to [0, 1]; of four numbers."""
    a, b = weights(numbers[:3], beta)
    return jnp.where(numbers[3] < 0.5, added(own, other, a, b), multiplied(own, other, a, b))


def weights(numbers: jax.Array, beta: float) -> tuple[jax.Array, jax.Array]:
    """Of two images: of Beta(β, 1) and Beta(1, β), or of 1 + Beta(1, β) and -Beta(1, β); from uniform numbers `[3]`.

    These are the inverses of the distribution functions.
    """
    first, second = 1 - numbers[1] ** (1 / beta), 1 - numbers[2] ** (1 / beta)
    towards = numbers[0] < 0.5
    return jnp.where(towards, 1 - first, 1 + first), jnp.where(towards, second, -second)


def added(own: jax.Array, other: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """`a own + b other` around the grey of 1/2."""
    return jnp.clip((a * (2 * own - 1) + b * (2 * other - 1) + 1) / 2, 0, 1)


def multiplied(own: jax.Array, other: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """`own^a other^b` around the grey of 1/2."""
    # the power of a product by its logarithm, of which 0 has none
    power = jnp.exp(a * jnp.log(2 * own) + b * jnp.log(jnp.maximum(2 * other, 1e-37)))
    return jnp.clip(jnp.where(own > 0, power, 0) / 2, 0, 1)


# augmented copies


def augmented_copy(numbers: jax.Array, image: jax.Array, constants: Constants) -> jax.Array:
    """One of nine operations, all as likely, of a random magnitude: uint8 `[H, W, C]` -> the same."""
    level = between(numbers[1], 0.1, constants.augmentation)
    return augmented_with(image, whole(numbers[0], len(OPERATIONS)), level, jnp.where(numbers[2] < 0.5, 1, -1))


def augmented_with(image: jax.Array, number: jax.Array, level: jax.Array, sign: jax.Array) -> jax.Array:
    """The image after operation `number` of a level in [0, 10] and, for what moves pixels, with a sign."""
    height, width, _ = image.shape
    named = dict(zip(OPERATIONS, number == jnp.arange(len(OPERATIONS)), strict=True))
    kept = 4 - (level * 4 / 10).astype(jnp.int32)
    changed = Levels(
        inverted_from=jnp.where(named["solarize"], 256 - (level * 25.6).astype(jnp.int32), SAME_LEVELS.inverted_from),
        mask=jnp.where(named["posterize"], 256 - (1 << (8 - kept)), SAME_LEVELS.mask),
        stretched=named["autocontrast"],
        equalized=named["equalize"],
    )
    angle = sign * (3 * level).astype(jnp.int32) * named["rotate"] * (jnp.pi / 180)
    cos, sin, slope = jnp.cos(angle), jnp.sin(angle), 0.03 * sign * level
    right = sign * (level * width / 30).astype(jnp.int32) * named["translate_x"]
    down = sign * (level * height / 30).astype(jnp.int32) * named["translate_y"]
    to_x = jnp.stack([cos, -sin + slope * named["shear_x"], right + (1 - cos) * width / 2 + sin * height / 2])
    to_y = jnp.stack([sin + slope * named["shear_y"], cos, down - sin * width / 2 + (1 - cos) * height / 2])
    return moved_bilinearly(map_levels(image, changed), to_x, to_y)


def moved_bilinearly(image: jax.Array, to_x: jax.Array, to_y: jax.Array) -> jax.Array:
    """Each pixel of uint8 `[H, W, C]` is what is seen at another place, black outside of the image.

    As by Pillow's bilinear filter, but for one level in fewer than 1 of 1,000 values, where float64 rounds otherwise.

    The place is `to_x @ (x, y, 1)`, `to_y @ (x, y, 1)` for float32 `[3]`, in pixels from the image's corner.
    """
    height, width, _ = image.shape
    y, x = (axis + 0.5 for axis in jnp.mgrid[:height, :width].astype(jnp.float32))
    column = to_x[0] * x + to_x[1] * y + to_x[2]
    row = to_y[0] * x + to_y[1] * y + to_y[2]
    there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    top, left = jnp.floor(row - 0.5), jnp.floor(column - 0.5)
    down, right = (row - 0.5 - top)[..., None], (column - 0.5 - left)[..., None]

    def at(rows, columns):
        rows = jnp.clip(top.astype(jnp.int32) + rows, 0, height - 1)
        columns = jnp.clip(left.astype(jnp.int32) + columns, 0, width - 1)
        return pixels_at(image, rows, columns).astype(jnp.float32)

    upper = at(0, 0) + (at(0, 1) - at(0, 0)) * right
    lower = at(1, 0) + (at(1, 1) - at(1, 0)) * right
    return jnp.where(there[..., None], upper + (lower - upper) * down, 0).astype(jnp.uint8)
