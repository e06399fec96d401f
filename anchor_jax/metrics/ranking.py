"""Ranking of examples by confidence, independent of the order of ties."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32


@jax.jit
def rank_by_confidence(
    confidence: Float32[Array, "examples"], correct: Bool[Array, "examples"]
) -> tuple[Float32[Array, "examples"], Float32[Array, "examples+1"]]:
    """Sort by decreasing confidence and count how many of the first k examples are correct.

    The count for ties is the mean over their random orders: the first m of n tied examples, r of which are correct,
    contain m·r/n correct ones. The result therefore does not depend on the order of the examples.

    Args:
      confidence: float32 `[B]`.
      correct: bool `[B]`.

    Returns:
      Confidence in decreasing order, float32 `[B]`, and the expected number of correct examples among the first k, for
      k = 0 ... B, float32 `[B + 1]`.
    """
    ascending, right = lax.sort((-confidence, correct.astype(jnp.int32)), num_keys=1)
    position = jnp.arange(1, len(right) + 1, dtype=jnp.int32)
    # examples tied with this one have positions before + 1 ... last
    before = jnp.searchsorted(ascending, ascending, side="left").astype(jnp.int32)
    last = jnp.searchsorted(ascending, ascending, side="right").astype(jnp.int32)
    counted = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(right, dtype=jnp.int32)])
    m, n, r = (part.astype(jnp.float32) for part in (position - before, last - before, counted[last] - counted[before]))
    expected = counted[before].astype(jnp.float32) + m * r / n
    return -ascending, jnp.concatenate([jnp.zeros(1, jnp.float32), expected])
