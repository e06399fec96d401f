"""Mixup (Zhang et al., ICLR 2018, arXiv 1710.09412) and CutMix (Yun et al., ICCV 2019, arXiv 1905.04899)."""

import math

import jax
import jax.numpy as jnp

from anchor_jax.core import checks, explicit, modes
from anchor_jax.core.errors import UserError
from anchor_jax.data.augmentation.boxes import Box, box_mask
from anchor_jax.data.augmentation.uniform import to_integer


@explicit.automatic("x", "targets")
@modes.any_promotion
def mixup_or_cutmix(
    key: jax.Array,
    x: jax.Array,
    targets: jax.Array,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    channels: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Mix the examples of a batch in pairs, and their targets: torchvision's `MixUp` and `CutMix`.

    λ ~ Beta(α, α) and the box of CutMix are drawn once per batch. If both α are above 0, one of the two is drawn with
    probability 1/2, like the `RandomChoice` in torchvision's recipe.

    Examples 2i and 2i + 1 are mixed with each other, whereas torchvision mixes i with i - 1. In a shuffled batch both
    are equally random, and with pairs a device needs no image of another device.

    Args:
      key: PRNG key, the same on all devices.
      x: images, floating `[B, H, W, C]`; B is even.
      targets: probabilities, floating `[B, classes]`.
      mixup_alpha: α of mixup, at least 0; 0 disables it; static under `jit`.
      cutmix_alpha: α of CutMix, at least 0; 0 disables it; static under `jit`.
      channels: C, required if it is above 4: such images are mostly `[B, C, H, W]`.

    Returns:
      Mixed images and targets, in their dtypes: λ times the example plus 1 - λ times its partner. λ of CutMix is the
      fraction of the image outside the box.

    Raises:
      UserTypeError: `key` is not a PRNG key, `x` or `targets` are not floating, or an α is not a number.
      UserError: B is odd, the shapes do not match, `x` seems to be `[B, C, H, W]`, or an α is below 0.

    Example:
      >>> import anchor_jax as aj
      >>> import jax
      >>> x, targets = jax.numpy.ones((2, 4, 4, 1)), jax.numpy.eye(2)
      >>> mixed, soft = aj.data.mixup_or_cutmix(jax.random.key(0), x, targets, mixup_alpha=0.2, cutmix_alpha=0.0)
      >>> mixed.shape, soft.shape
      ((2, 4, 4, 1), (2, 2))
      >>> soft.sum(axis=1).round(4).tolist()
      [1.0, 1.0]
    """
    checks.key("key", key)
    checks.images("x", x, "floating", channels)
    checks.array("targets", targets, "floating", "[B, classes]")
    if len(targets) != len(x):
        raise UserError(f"targets must have a row for each of {len(x)} examples, got shape {targets.shape}")
    mixup_alpha = checks.static_number("mixup_alpha", mixup_alpha, high=math.inf)
    cutmix_alpha = checks.static_number("cutmix_alpha", cutmix_alpha, high=math.inf)
    if not (mixup_alpha or cutmix_alpha):
        return x, targets
    if len(x) % 2:
        raise UserError(f"the batch on a device must be even, because examples are mixed in pairs; got {len(x)}")
    weights = _pixel_weights(key, x.shape[1:3], mixup_alpha, cutmix_alpha)
    return _mix(weights, x), _mix(jnp.mean(weights), targets)


def _mix(weights: jax.Array, batch: jax.Array) -> jax.Array:
    """Return the weighted means of the examples 2i and 2i + 1, in the dtype of the batch."""
    return (weights * batch + (1 - weights) * _swap_pairs(batch)).astype(jnp.result_type(batch))


@modes.in_32_bits
def _pixel_weights(key: jax.Array, shape: tuple[int, ...], mixup_alpha: float, cutmix_alpha: float) -> jax.Array:
    """Draw the weights of an example's own pixels, float32 `[H, W, 1]`."""
    uniform_key, lam_key = jax.random.split(key)
    uniform = jax.random.uniform(uniform_key, (3,))
    is_mixup = uniform[0] < (0.5 if mixup_alpha and cutmix_alpha else float(mixup_alpha > 0))
    alpha = jnp.where(is_mixup, mixup_alpha, cutmix_alpha)
    lam = jax.random.beta(lam_key, alpha, alpha)
    return jnp.where(is_mixup, lam, 1 - box_mask(cutmix_box(uniform[1:], shape, lam), shape).astype(jnp.float32))


def cutmix_box(uniform: jax.Array, shape: tuple[int, ...], lam: jax.Array) -> Box:
    """Return a box with a fraction of 1 - λ of the image's area around a random center, clipped to the image.

    Args:
      uniform: random numbers in [0, 1), `[2]`, for the center.
      shape: of the image, `(H, W, ...)`.
      lam: λ, `[]` in [0, 1].
    """
    half = 0.5 * jnp.sqrt(1 - lam)

    def interval(number, size):
        center, reach = to_integer(number, size), (half * size).astype(jnp.int32)
        start = jnp.maximum(center - reach, 0)
        return start, jnp.minimum(center + reach, size) - start

    (top, height), (left, width) = interval(uniform[0], shape[0]), interval(uniform[1], shape[1])
    return Box(top, left, height, width)


def _swap_pairs(batch: jax.Array) -> jax.Array:
    """Exchange the examples 2i and 2i + 1."""
    return batch.reshape(-1, 2, *batch.shape[1:])[:, ::-1].reshape(batch.shape)
