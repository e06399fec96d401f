"""Averages over examples: accuracy, likelihood, Brier score; and what each example adds to them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.metrics import validation


def accuracy(probs_or_logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Fraction of the examples whose highest-scored class is the label; the first class wins a tie.

    Args:
      probs_or_logits: floating `[B, C]`, probabilities or logits.
      labels: integer `[B]`, in [0, C).

    Returns:
      float32 `[]` in [0, 1]; higher is better.
    """
    scores, labels = validation.predictions("probs_or_logits", probs_or_logits, labels, -np.inf, np.inf)
    _, correct = top_class(scores, labels)
    return jnp.mean(correct, dtype=jnp.float32)


def top_k_accuracy(scores: ArrayLike, labels: ArrayLike, k: int) -> jax.Array:
    """Fraction of the examples whose label is among the k highest-scored classes; the first class wins a tie.

    So k = 1 is `accuracy`, and exactly k classes count whatever the ties. scikit-learn gives ties to the last class.

    Args:
      scores: floating `[B, C]`, probabilities or logits.
      labels: integer `[B]`, in [0, C).
      k: in [1, C]; static under `jit`.

    Returns:
      float32 `[]` in [0, 1]; higher is better.
    """
    k = checks.count("k", k)
    scores, labels = validation.predictions("scores", scores, labels, -np.inf, np.inf)
    if k > scores.shape[1]:
        raise UserError(f"k must be at most {scores.shape[1]}, the number of classes; got {k}")
    return jnp.mean(in_top(scores, labels, k), dtype=jnp.float32)


def nll(probs: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Mean negative log likelihood of the labels.

    A probability of 0 counts as the smallest normal float32, about 1.2e-38, so that one sure mistake
    costs 87.3 nats rather than infinity.

    Args:
      probs: floating `[B, C]`, probabilities.
      labels: integer `[B]`, in [0, C).

    Returns:
      float32 `[]` in nats, in [0, 87.4]; higher is worse.
    """
    return jnp.mean(log_losses(*validation.predictions("probs", probs, labels)))


def brier(probs: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Brier score: squared distance from the probabilities to the one-hot label, mean over examples.

    The distance is summed over the classes, as Brier wrote it (Monthly Weather Review 78, 1950), which
    is twice the value of the other convention for two classes.

    Args:
      probs: floating `[B, C]`, probabilities.
      labels: integer `[B]`, in [0, C).

    Returns:
      float32 `[]` in [0, 2]; higher is worse.
    """
    return jnp.mean(squared_distances(*validation.predictions("probs", probs, labels)))


def top_class(scores: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Highest score of each example, float32 `[B]`, and whether its class is the label, bool `[B]`."""
    return jnp.max(scores, axis=1), jnp.argmax(scores, axis=1).astype(labels.dtype) == labels


def in_top(scores: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Whether fewer than k classes come before the label, bool `[B]`: higher scores, and the first among equals."""
    own = jnp.take_along_axis(scores, labels[:, None], axis=1)
    earlier = jnp.arange(scores.shape[1], dtype=labels.dtype)[None, :] < labels[:, None]
    before = (scores > own) | ((scores == own) & earlier)
    return jnp.sum(before, axis=1, dtype=jnp.int32) < k


def log_losses(probs: jax.Array, labels: jax.Array) -> jax.Array:
    """Negative log likelihood of each label, float32 `[B]`, in nats."""
    likelihood = jnp.take_along_axis(probs, labels[:, None], axis=1)[:, 0]
    return -jnp.log(jnp.clip(likelihood, jnp.finfo(jnp.float32).tiny, 1.0))


def squared_distances(probs: jax.Array, labels: jax.Array) -> jax.Array:
    """Squared distance from each example's probabilities to its one-hot label, float32 `[B]`."""
    target = jax.nn.one_hot(labels, probs.shape[1], dtype=probs.dtype)
    return jnp.sum(jnp.square(probs - target), axis=1)
