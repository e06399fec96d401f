"""The anchored transform: an input becomes a reference and a residual.

Pure functions of arrays on JAX alone; they serve any model and work under `jit`, `vmap`, `grad` and
`shard_map`. Letters: B examples, M references in a bank, C channels; the channel axis comes last.

Source: *On the Use of Anchoring for Training Vision Models*, NeurIPS 2024 (arXiv 2406.00529).
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer


def anchor(x: jax.Array, references: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Anchored input `[r, x - r]`; where masked `[0, x - r]`.

    The residual keeps the real reference under the mask, as in the released code (`CIFAR/wrapper.py`):
    the network then has a residual whose reference it cannot see.

    Args:
      x: inputs, floating `[B, ..., C]`, normalised, so that zero is the mean image. One example without
        a batch axis, `[..., C]`, serves too.
      references: floating, the shape of `x`: one reference for each input.
      mask: bool `[B]`, true where the reference is zeroed; `[]` for all of `x`; none is masked without it.

    Returns:
      Anchored inputs `[B, ..., 2C]`: channels of the reference first, of the residual after.

    Raises:
      TypeError: `x` or `references` is not floating (integer images wrap around in `x - r`), or `mask`
        is not bool.
      ValueError: the shapes do not fit.
    """
    check_floating("x", x)
    check_floating("references", references)
    if jnp.shape(x) != jnp.shape(references):
        raise ValueError(
            f"references must have the shape of x, {jnp.shape(x)}, one for each input; got {jnp.shape(references)}"
        )
    residuals = x - references
    if mask is not None:
        references = jnp.where(_over_features(mask, x), jnp.zeros_like(references), references)
    return jnp.concatenate([references, residuals], axis=-1)


def sample_references(key: jax.Array, bank: jax.Array, num: int) -> jax.Array:
    """Draw references uniformly from a bank, with replacement, each on its own.

    Args:
      key: a JAX random key.
      bank: `[M, ..., C]`, any dtype.
      num: how many to draw, at least 1.

    Returns:
      References `[num, ..., C]`.

    Raises:
      ValueError: the bank is empty or `num` is below 1.
    """
    if jnp.ndim(bank) < 1 or len(bank) < 1:
        raise ValueError(f"bank must hold at least one reference, [M, ..., C] with M >= 1; got shape {jnp.shape(bank)}")
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}")

    def draw(key):
        return jnp.asarray(bank)[jax.random.randint(key, (), 0, len(bank))]

    return jax.vmap(draw)(jax.random.split(key, num))


def sample_mask(
    key: jax.Array, batch_size: int, prob: float | jax.Array, per: Literal["batch", "example"] = "batch"
) -> jax.Array:
    """Draw which references are masked.

    Args:
      key: a JAX random key.
      batch_size: B, at least 1.
      prob: probability of a mask, α in the paper, in [0, 1].
      per: "batch" draws one Bernoulli for all of the batch, as the paper and its released code do;
        "example" draws one for each example.

    Returns:
      bool `[B]`, true where masked.

    Raises:
      ValueError: `prob` is outside [0, 1], `batch_size` below 1 or `per` unknown.
    """
    if per not in ("batch", "example"):
        raise ValueError(f"per must be 'batch' or 'example', got {per!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if not isinstance(prob, Tracer) and not 0 <= prob <= 1:
        raise ValueError(f"prob must lie in [0, 1], got {prob}")
    if per == "batch":
        return jnp.broadcast_to(jax.random.bernoulli(key, prob), (batch_size,))
    return jax.vmap(lambda key: jax.random.bernoulli(key, prob))(jax.random.split(key, batch_size))


def anchored(apply_fn: Callable[..., Any]) -> Callable[..., Any]:
    """Turn `f(params, inputs, *args, **kwargs)` into `g(params, x, references, *args, mask=None, **kwargs)`.

    `f` is any function of parameters and anchored inputs `[B, ..., 2C]`: a bound `apply` of Flax or Haiku,
    or a plain function. `g` takes `x` and `references` as `anchor` does.
    """

    def apply_anchored(params, x, references, *args, mask=None, **kwargs):
        return apply_fn(params, anchor(x, references, mask), *args, **kwargs)

    return apply_anchored


def check_floating(name: str, array: jax.Array) -> None:
    """Refuse integer images, which wrap around in `x - r`."""
    if not jnp.issubdtype(jnp.result_type(array), jnp.floating):
        raise TypeError(f"{name} must be floating, got {jnp.result_type(array)}: normalise images before anchoring")


def _over_features(mask: jax.Array, x: jax.Array) -> jax.Array:
    """The mask `[B]` with an axis of length 1 for each axis of a single example."""
    if jnp.result_type(mask) != jnp.bool_:
        raise TypeError(f"mask must be bool, got {jnp.result_type(mask)}")
    leading = jnp.ndim(mask)
    if leading > 1 or leading >= jnp.ndim(x) or jnp.shape(mask) != jnp.shape(x)[:leading]:
        raise ValueError(f"mask must be [B] for x of shape {jnp.shape(x)}, got shape {jnp.shape(mask)}")
    return jnp.reshape(mask, jnp.shape(mask) + (1,) * (jnp.ndim(x) - leading))
