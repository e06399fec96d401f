"""Random crops and mirror of one image `[H, W, C]`, which keeps its shape and dtype."""

import dm_pix as pix
import jax
import jax.numpy as jnp

from anchor_jax.data.augmentation.boxes import NUM_NUMBERS, Box, random_box
from anchor_jax.runtime.backends import materialize

_RATIOS = (3 / 4, 4 / 3)  # width by height
_PLACES = 22  # binary ones of the weights, as in Pillow


def padded_crop(key: jax.Array, image: jax.Array, padding: int) -> jax.Array:
    """A random window of the image padded with black."""
    border = (padding, padding)
    return jnp.asarray(pix.random_crop(key, jnp.pad(image, (border, border, (0, 0))), image.shape))


def mirror(key: jax.Array, image: jax.Array) -> jax.Array:
    """Left and right change places half of the time."""
    return jnp.asarray(pix.random_flip_left_right(key, image))


def resized_crop(key: jax.Array, image: jax.Array, areas: tuple[float, float]) -> jax.Array:
    """A random part of the image, resized to all of it: torchvision's `RandomResizedCrop`.

    Args:
      key: of the random numbers.
      image: uint8 `[H, W, C]`.
      areas: least and greatest area of the part, in (0, 1] of that of the image.
    """
    height, width, _ = image.shape
    numbers = jax.random.uniform(key, (NUM_NUMBERS,))
    box, found = random_box(numbers, image.shape, areas=areas, ratios=_RATIOS, least=1, greatest=(height, width))
    return resize(image, Box(*(jnp.where(found, *sides) for sides in zip(box, _central(height, width), strict=True))))


def resize(image: jax.Array, box: Box) -> jax.Array:
    """The part of uint8 `[H, W, C]` in a box, resized to H x W by Pillow's bilinear filter, bit for bit.

    Nothing is ever made smaller, so each pixel has two neighbours on either axis and there is nothing to antialias.
    """
    image = materialize(_resized_axis(image, box.left, box.width, axis=1))
    return _resized_axis(image, box.top, box.height, axis=0)


def _resized_axis(image, start, length, axis):
    """Whole numbers throughout: pixel i is seen at ((2i + 1) length / size - 1) / 2, and its weights have 22 places."""
    size = image.shape[axis]
    place = (2 * jnp.arange(size) + 1) * length - size
    before, rest = place // (2 * size), place % (2 * size)
    # in two steps, of half of the places each, since 32 bits cannot hold the numerator at once
    high, rest = jnp.divmod(rest << (_PLACES // 2), 2 * size)
    weight = materialize((high << (_PLACES // 2)) + ((rest << (_PLACES // 2)) + size) // (2 * size))
    weight = weight.reshape([-1 if each == axis else 1 for each in range(3)])
    near, far = (
        jnp.take(image, start + jnp.clip(at, 0, length - 1), axis, mode="clip").astype(jnp.int32)
        for at in (before, before + 1)
    )
    return ((near * ((1 << _PLACES) - weight) + far * weight + (1 << (_PLACES - 1))) >> _PLACES).astype(image.dtype)


def _central(height: int, width: int) -> Box:
    """The largest box in the middle whose shape is allowed, for where chance has found none."""
    narrow, wide = _RATIOS
    tall, broad = min(height, round(width / narrow)), min(width, round(height * wide))
    return Box(*map(jnp.int32, ((height - tall) // 2, (width - broad) // 2, tall, broad)))
