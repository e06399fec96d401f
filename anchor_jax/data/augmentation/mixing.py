"""Mixup (Zhang et al., ICLR 2018, arXiv 1710.09412) and CutMix (Yun et al., ICCV 2019, arXiv 1905.04899)."""

import math

import jax
import jax.numpy as jnp

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data.augmentation.boxes import Box, inside
from anchor_jax.data.augmentation.draws import whole


def mixup_or_cutmix(
    key: jax.Array, x: jax.Array, targets: jax.Array, *, mixup_alpha: float, cutmix_alpha: float
) -> tuple[jax.Array, jax.Array]:
    """Mixes the examples of a batch in pairs, and their targets: torchvision's `MixUp` and `CutMix`.

    λ ~ Beta(α, α), and the box of CutMix, are drawn once for the batch. Where both α are above 0, one of the two is
    drawn, each half of the time, as by the `RandomChoice` of torchvision's recipe.

    Example 2i is mixed with 2i + 1, and 2i + 1 with 2i, where torchvision mixes i with i - 1. The batch is shuffled, so
    one is as random as the other; and the part of a batch that is on one device needs no image of another.

    Args:
      key: the same for all parts of a batch.
      x: float32 `[B, H, W, C]`, B is even.
      targets: probabilities, float32 `[B, classes]`.
      mixup_alpha: α of mixup; 0: no mixup.
      cutmix_alpha: α of CutMix; 0: no CutMix.

    Returns:
      Both mixed: λ of each example's own and 1 - λ of its partner's; λ of CutMix is what the box leaves of the image.

    Raises:
      UserTypeError: `key` is no key, `x` or `targets` are not floating, or an α is no number.
      UserError: B is odd, the shapes do not fit, or an α is below 0.
    """
    checks.key("key", key)
    checks.array("x", x, "floating", "[B, H, W, C]")
    checks.array("targets", targets, "floating", "[B, classes]")
    if len(targets) != len(x):
        raise UserError(f"targets must have a row for each of {len(x)} examples, got shape {targets.shape}")
    checks.number("mixup_alpha", mixup_alpha, high=math.inf)
    checks.number("cutmix_alpha", cutmix_alpha, high=math.inf)
    if not (mixup_alpha or cutmix_alpha):
        return x, targets
    if len(x) % 2:
        raise UserError(f"examples are mixed in pairs, so a batch on a device must be even; it has {len(x)}")
    weights = _weights(key, x.shape[1:3], mixup_alpha, cutmix_alpha)
    share = jnp.mean(weights)
    return weights * x + (1 - weights) * _partners(x), share * targets + (1 - share) * _partners(targets)


def _weights(key: jax.Array, shape: tuple[int, ...], mixup_alpha: float, cutmix_alpha: float) -> jax.Array:
    """Of an example's own pixels, float32 `[H, W, 1]`."""
    numbers_key, lam_key = jax.random.split(key)
    numbers = jax.random.uniform(numbers_key, (3,))
    is_mixup = numbers[0] < (0.5 if mixup_alpha and cutmix_alpha else float(mixup_alpha > 0))
    alpha = jnp.where(is_mixup, mixup_alpha, cutmix_alpha)
    lam = jax.random.beta(lam_key, alpha, alpha)
    return jnp.where(is_mixup, lam, 1 - inside(cutmix_box(numbers[1:], shape, lam), shape).astype(jnp.float32))


def cutmix_box(numbers: jax.Array, shape: tuple[int, ...], lam: jax.Array) -> Box:
    """A box of 1 - λ of the image around a random place, cut off at its edges; from two numbers uniform in [0, 1)."""
    half = 0.5 * jnp.sqrt(1 - lam)

    def side(number, size):
        middle, reach = whole(number, size), (half * size).astype(jnp.int32)
        start = jnp.maximum(middle - reach, 0)
        return start, jnp.minimum(middle + reach, size) - start

    (top, height), (left, width) = side(numbers[0], shape[0]), side(numbers[1], shape[1])
    return Box(top, left, height, width)


def _partners(batch: jax.Array) -> jax.Array:
    """The batch with the two of each pair in each other's place."""
    return batch.reshape(-1, 2, *batch.shape[1:])[:, ::-1].reshape(batch.shape)
