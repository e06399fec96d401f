"""Random erasing: Zhong et al., AAAI 2020 (arXiv 1708.04896)."""

import jax
import jax.numpy as jnp

from anchor_jax.core import checks
from anchor_jax.data.augmentation.boxes import NUM_NUMBERS, inside, random_box

_AREAS = (0.02, 0.33)  # of that of the image
_RATIOS = (1 / 3.3, 1 / 0.3)  # width by height; torchvision's 0.3 to 3.3 are height by width


def random_erasing(keys: jax.Array, x: jax.Array, prob: float) -> jax.Array:
    """Sets a rectangle of each image to 0, the mean after normalisation: torchvision's `RandomErasing`, its defaults.

    Args:
      keys: one for each image, `[B]`; what becomes of an image depends on its key and its shape alone.
      x: normalised, float32 `[B, H, W, C]`.
      prob: that an image has such a rectangle, in [0, 1].

    Returns:
      float32 `[B, H, W, C]`; an image of which no rectangle of ten fits, as where it is tiny, stays whole.

    Raises:
      UserTypeError: `keys` are no keys, `x` is not floating, or `prob` no number.
      UserError: there are not as many keys as images, `x` is of another shape, or `prob` outside [0, 1].
    """
    checks.array("x", x, "floating", "[B, H, W, C]")
    checks.keys("keys", keys, len(x))
    checks.number("prob", prob)

    def one(key, image):
        numbers = jax.random.uniform(key, (NUM_NUMBERS + 1,))
        height, width, _ = image.shape
        box, found = random_box(
            numbers[1:], image.shape, areas=_AREAS, ratios=_RATIOS, least=0, greatest=(height - 1, width - 1)
        )
        erase = found & (numbers[0] < prob)
        return jnp.where(erase & inside(box, image.shape), 0, image)

    return jax.vmap(one)(keys, x) if prob else x
