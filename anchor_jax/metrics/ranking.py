"""Examples in the order of their confidence, in which equal confidences have no order."""

import jax
import jax.numpy as jnp
from jax import lax


@jax.jit
def rank(confidence: jax.Array, correct: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The confidences from the highest down, and how many of the first k examples are right.

    Examples of equal confidence stand in random order, and the number right is the mean over those orders:
    the first m of n such examples, r of them right, hold m·r/n right ones. So the order in which the
    examples are given is nothing.

    Args:
      confidence: float32 `[B]`.
      correct: bool `[B]`.

    Returns:
      Confidence, float32 `[B]`, and for k = 0 ... B the expected number right, float32 `[B + 1]`.
    """
    ascending, right = lax.sort((-confidence, correct.astype(jnp.int32)), num_keys=1)
    place = jnp.arange(1, len(right) + 1, dtype=jnp.int32)
    # the examples as confident as this one take the places before + 1 ... last
    before = jnp.searchsorted(ascending, ascending, side="left").astype(jnp.int32)
    last = jnp.searchsorted(ascending, ascending, side="right").astype(jnp.int32)
    counted = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(right, dtype=jnp.int32)])
    m, n, r = (part.astype(jnp.float32) for part in (place - before, last - before, counted[last] - counted[before]))
    expected = counted[before].astype(jnp.float32) + m * r / n
    return -ascending, jnp.concatenate([jnp.zeros(1, jnp.float32), expected])
