"""Random crops and mirroring of one image `[H, W, C]`; the result has the shape and dtype of the image."""

import jax
import jax.numpy as jnp

from anchor_jax.data.augmentation.boxes import NUM_UNIFORM, Box, random_box
from anchor_jax.runtime import selection
from anchor_jax.runtime.backends import materialize

_ASPECT_RATIO = (3 / 4, 4 / 3)  # width / height, the default of torchvision
_WEIGHT_BITS = 22  # binary places of the interpolation weights, as in Pillow


def padded_crop(key: jax.Array, image: jax.Array, padding: int) -> jax.Array:
    """Crop a random window of the image, padded with black on each side."""
    border = (padding, padding)
    keys = jax.random.split(key, 3)  # one per axis, as dm_pix.random_crop, whose draws these are
    starts = [jax.random.randint(each, (), 0, 2 * padding + 1) for each in keys[:2]]
    return selection.window(jnp.pad(image, (border, border, (0, 0))), starts, image.shape[:2])


def mirror(key: jax.Array, image: jax.Array) -> jax.Array:
    """Mirror the image left to right, with probability 1/2."""
    return jnp.where(jax.random.bernoulli(key, 0.5), image[:, ::-1], image)


def resized_crop(key: jax.Array, image: jax.Array, area: tuple[float, float], *, is_bicubic: bool = False) -> jax.Array:
    """Crop a random box and resize it to the size of the image: torchvision's `RandomResizedCrop`.

    Args:
      key: PRNG key.
      image: uint8 `[H, W, C]`.
      area: minimum and maximum area of the box, as fractions of the image's area, in (0, 1].
      is_bicubic: whether the box is resized with the bicubic filter, instead of the bilinear one.
    """
    height, width, _ = image.shape
    uniform = jax.random.uniform(key, (NUM_UNIFORM,))
    box, fits = random_box(
        uniform, image.shape, area=area, aspect_ratio=_ASPECT_RATIO, min_side=1, max_sides=(height, width)
    )
    fallback = _central_box(height, width)
    box = Box(*(jnp.where(fits, *sides) for sides in zip(box, fallback, strict=True)))
    return resize(image, box, is_bicubic=is_bicubic)


def resize(image: jax.Array, box: Box, *, is_bicubic: bool = False) -> jax.Array:
    """Resize a box of an image uint8 `[H, W, C]` to H x W.

    It equals Pillow's bilinear filter bit for bit, and the bicubic one in more than 99% of the values and within two
    gray levels. A box is never shrunk, so each pixel interpolates two or four neighbors per axis, and antialiasing has
    no effect.
    """
    resize_axis = _resize_axis_bicubic if is_bicubic else _resize_axis
    image = materialize(resize_axis(image, box.left, box.width, axis=1))
    return resize_axis(image, box.top, box.height, axis=0)


def _resize_axis(image: jax.Array, start: jax.Array, length: jax.Array, axis: int) -> jax.Array:
    """Resize along one axis, in integer arithmetic.

    Pixel i samples the position ((2i + 1) length / size - 1) / 2, with weights of `_WEIGHT_BITS` binary places.
    """
    size = image.shape[axis]
    numerator = (2 * jnp.arange(size) + 1) * length - size  # of the position, over 2 size
    before, rest = numerator // (2 * size), numerator % (2 * size)
    # divide in two steps of half the bits each: the full numerator overflows 32 bits
    high, rest = jnp.divmod(rest << (_WEIGHT_BITS // 2), 2 * size)
    weight = materialize((high << (_WEIGHT_BITS // 2)) + ((rest << (_WEIGHT_BITS // 2)) + size) // (2 * size))
    weight = weight.reshape([-1 if each == axis else 1 for each in range(3)])
    near, far = (
        selection.take(image, start + jnp.clip(at, 0, length - 1), axis).astype(jnp.int32)
        for at in (before, before + 1)
    )
    rounding = 1 << (_WEIGHT_BITS - 1)
    return ((near * ((1 << _WEIGHT_BITS) - weight) + far * weight + rounding) >> _WEIGHT_BITS).astype(image.dtype)


def _resize_axis_bicubic(image: jax.Array, start: jax.Array, length: jax.Array, axis: int) -> jax.Array:
    """Resize along one axis; neighbors outside of the box have no weight, as in Pillow."""
    size = image.shape[axis]
    numerator = (2 * jnp.arange(size) + 1) * length - size  # of the position, over 2 size
    before, fraction = numerator // (2 * size), (numerator % (2 * size)) / (2 * size)
    rows = before[:, None] + jnp.arange(-1, 3)
    distances = jnp.abs(jnp.arange(-1, 3) - fraction[:, None])
    weights = jnp.where((rows >= 0) & (rows < length), _cubic(distances), 0)
    weights = materialize(jnp.round(weights / weights.sum(axis=1, keepdims=True) * (1 << _WEIGHT_BITS)))
    weights = weights.astype(jnp.int32)
    total = 1 << (_WEIGHT_BITS - 1)
    for neighbor in range(4):
        at = start + jnp.clip(rows[:, neighbor], 0, length - 1)
        weight = weights[:, neighbor].reshape([-1 if each == axis else 1 for each in range(3)])
        total += selection.take(image, at, axis).astype(jnp.int32) * weight
    return jnp.clip(total >> _WEIGHT_BITS, 0, 255).astype(image.dtype)


def _cubic(distance: jax.Array) -> jax.Array:
    """Return the weights of Pillow's bicubic filter, with a = -1/2, at distances in [0, 2]."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return jnp.where(distance < 1, near, far)


def _central_box(height: int, width: int) -> Box:
    """Return the largest centered box with an allowed aspect ratio."""
    min_ratio, max_ratio = _ASPECT_RATIO
    h, w = min(height, round(width / min_ratio)), min(width, round(height * max_ratio))
    return Box(*map(jnp.int32, ((height - h) // 2, (width - w) // 2, h, w)))
