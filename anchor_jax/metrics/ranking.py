"""Ranking of examples by confidence or score, independent of the order of ties."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, Real


class Detections(NamedTuple):
    """Examples by decreasing score, and how many are detected if the threshold is the score of each."""

    positive: Bool[Array, "examples"]
    true: Int32[Array, "examples"]  # positive examples with this score or a higher one
    false: Int32[Array, "examples"]  # negative ones
    false_before: Int32[Array, "examples"]  # negative ones with a higher score


def count_detections(scores: Real[Array, "examples"], positive: Bool[Array, "examples"]) -> Detections:
    """Sort examples by decreasing score, and count those at or above the score of each."""
    ascending, positive = lax.sort((_reversed(scores), positive), num_keys=1)
    before, last = _ties(ascending)
    counted = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(positive, dtype=jnp.int32)])
    return Detections(positive, counted[last], last - counted[last], before - counted[before])


@jax.jit
def rank_by_confidence(
    confidence: Real[Array, "examples"], correct: Bool[Array, "examples"]
) -> tuple[Real[Array, "examples"], Float32[Array, "examples+1"]]:
    """Sort by decreasing confidence and count how many of the first k examples are correct.

    The count for ties is the mean over their random orders: the first m of n tied examples, r of which are correct,
    contain m·r/n correct ones. The result therefore does not depend on the order of the examples.

    Args:
      confidence: float32 or integer `[B]`.
      correct: bool `[B]`.

    Returns:
      Confidence in decreasing order, `[B]`, and the expected number of correct examples among the first k, for
      k = 0 ... B, float32 `[B + 1]`.
    """
    ascending, right = lax.sort((_reversed(confidence), correct.astype(jnp.int32)), num_keys=1)
    position = jnp.arange(1, right.shape[0] + 1, dtype=jnp.int32)
    before, last = _ties(ascending)
    counted = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(right, dtype=jnp.int32)])
    m, n, r = (part.astype(jnp.float32) for part in (position - before, last - before, counted[last] - counted[before]))
    expected = counted[before].astype(jnp.float32) + m * r / n
    return _reversed(ascending), jnp.concatenate([jnp.zeros(1, jnp.float32), expected])


def _reversed(values: Real[Array, "examples"]) -> Real[Array, "examples"]:
    """Return values in the reverse order; twice, the same again. The negative of an integer may overflow."""
    return ~values if jnp.issubdtype(values.dtype, jnp.integer) else -values


def _ties(ascending: Real[Array, "examples"]) -> tuple[Int32[Array, "examples"], Int32[Array, "examples"]]:
    """Return `before` and `last` of sorted values: those tied with an example have positions before + 1 ... last."""
    num = ascending.shape[0]  # may be symbolic, which `jnp.searchsorted` does not support
    position = jnp.arange(num, dtype=jnp.int32)
    differs, end = ascending[1:] != ascending[:-1], jnp.ones(1, jnp.bool_)
    before = lax.cummax(jnp.where(jnp.concatenate([end, differs]), position, 0))
    last = lax.cummin(jnp.where(jnp.concatenate([differs, end]), position + 1, num), reverse=True)
    return before, last
