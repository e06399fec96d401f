"""Random erasing: Zhong et al., AAAI 2020 (arXiv 1708.04896)."""

import jax
import jax.numpy as jnp
from jax.core import Tracer

from anchor_jax.core import checks, explicit, modes
from anchor_jax.data.augmentation.boxes import NUM_UNIFORM, box_mask, random_box

# the defaults of torchvision
_AREA = (0.02, 0.33)  # fractions of the image's area
_ASPECT_RATIO = (1 / 3.3, 1 / 0.3)  # width / height; torchvision's 0.3 to 3.3 are height / width


@explicit.automatic("x", "keys")
def random_erasing(keys: jax.Array, x: jax.Array, prob: float, *, channels: int = 0) -> jax.Array:
    """Set a random rectangle of each image to 0, the mean: torchvision's `RandomErasing` with its defaults.

    Args:
      keys: PRNG keys `[B]`, one per image; the result for an image depends on its key and shape alone.
      x: normalized images, floating `[B, H, W, C]`.
      prob: probability of a rectangle per image, in [0, 1].
      channels: C, required if it is above 4: such images are mostly `[B, C, H, W]`.

    Returns:
      Images of the shape and dtype of `x`. If none of ten rectangles fits, as in a tiny image, nothing is erased.

    Raises:
      UserTypeError: `keys` are not PRNG keys, `x` is not floating, or `prob` is not a number.
      UserError: the number of keys differs from the number of images, `x` has another shape or seems to be
        `[B, C, H, W]`, or `prob` is outside [0, 1].

    Example:
      >>> import anchor_jax as aj
      >>> import jax
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> x = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
      >>> erased = aj.data.random_erasing(keys, x, prob=1.0)
      >>> [bool((image == 0).any()) for image in erased]
      [True, True, True, True]
    """
    checks.images("x", x, "floating", channels)
    checks.keys("keys", keys, len(x))
    checks.number("prob", prob)

    def erase(key, image):
        return jnp.where(_draw_mask(key, image.shape, prob), 0, image)

    is_off = not isinstance(prob, Tracer) and prob == 0
    return x if is_off else jax.vmap(erase)(keys, x)


@modes.in_32_bits
def _draw_mask(key: jax.Array, shape: tuple[int, ...], prob: float) -> jax.Array:
    """Draw which pixels of an image `(H, W, C)` are erased, bool `[H, W, 1]`."""
    uniform = jax.random.uniform(key, (NUM_UNIFORM + 1,))
    height, width, _ = shape
    box, fits = random_box(
        uniform[1:],
        shape,
        area=_AREA,
        aspect_ratio=_ASPECT_RATIO,
        min_side=0,
        max_sides=(height - 1, width - 1),
    )
    return fits & (uniform[0] < prob) & box_mask(box, shape)
