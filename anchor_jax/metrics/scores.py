"""Averages over examples: accuracy, negative log likelihood and Brier score; and the terms of each example."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Float32, Int32, Integer

from anchor_jax.core import checks, explicit, modes
from anchor_jax.core.errors import UserError
from anchor_jax.metrics import validation


@explicit.automatic()
@modes.in_32_bits
def accuracy(
    probs_or_logits: Float[ArrayLike, "examples classes"], labels: Integer[ArrayLike, "examples"]
) -> Float32[Array, ""]:
    """Return the fraction of examples whose highest-scoring class is the label; the first class wins ties.

    Args:
      probs_or_logits: floating `[B, C]`, probabilities or logits.
      labels: integer `[B]`, in [0, C).

    Returns:
      float32 `[]` in [0, 1]; higher is better.

    Raises:
      UserTypeError: `probs_or_logits` are not floating, or `labels` are not integers.
      UserError: a shape does not match, `probs_or_logits` contain NaN, or a label is outside [0, C).

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> metrics.accuracy(jnp.array([[0.9, 0.1], [0.2, 0.8]]), jnp.array([0, 0])).item()
      0.5
    """
    scores, labels = validation.check_predictions("probs_or_logits", probs_or_logits, labels, -np.inf, np.inf)
    _, correct = top_class(scores, labels)
    return jnp.mean(correct, dtype=jnp.float32)


@explicit.automatic()
@modes.in_32_bits
def top_k_accuracy(
    scores: Float[ArrayLike, "examples classes"], labels: Integer[ArrayLike, "examples"], k: int
) -> Float32[Array, ""]:
    """Return the fraction of examples whose label is among the k highest-scoring classes; the first classes win ties.

    Exactly k classes count, whatever the ties, and k = 1 is `accuracy`. In scikit-learn the last class wins ties.

    Args:
      scores: floating `[B, C]`, probabilities or logits.
      labels: integer `[B]`, in [0, C).
      k: in [1, C]; static under `jit`.

    Returns:
      float32 `[]` in [0, 1]; higher is better.

    Raises:
      UserTypeError: `scores` are not floating, `labels` are not integers, or `k` is not an integer.
      UserError: a shape does not match, `scores` contain NaN, a label is outside [0, C), or `k` is outside [1, C].

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> metrics.top_k_accuracy(jnp.array([[0.1, 0.3, 0.6], [0.2, 0.3, 0.5]]), jnp.array([1, 0]), k=2).item()
      0.5
    """
    k = checks.count("k", k)
    scores, labels = validation.check_predictions("scores", scores, labels, -np.inf, np.inf)
    if k > scores.shape[1]:
        raise UserError(f"k must be at most {scores.shape[1]}, the number of classes; got {k}")
    return jnp.mean(in_top_k(scores, labels, k), dtype=jnp.float32)


@explicit.automatic()
@modes.in_32_bits
def nll(probs: Float[ArrayLike, "examples classes"], labels: Integer[ArrayLike, "examples"]) -> Float32[Array, ""]:
    """Return the mean negative log likelihood of the labels.

    A probability of 0 counts as the smallest normal float32, about 1.2e-38, so that a certain mistake costs 87.3 nats
    instead of infinity.

    Args:
      probs: floating `[B, C]`, probabilities.
      labels: integer `[B]`, in [0, C).

    Returns:
      float32 `[]` in nats, in [0, 87.4]; higher is worse.

    Raises:
      UserTypeError: `probs` are not floating, or `labels` are not integers.
      UserError: a shape does not match, a probability is NaN or outside [0, 1], or a label is outside [0, C).

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> print(f"{metrics.nll(jnp.array([[0.5, 0.5]]), jnp.array([1])):.3f}")  # ln 2
      0.693
    """
    return jnp.mean(negative_log_likelihoods(*validation.check_predictions("probs", probs, labels)))


@explicit.automatic()
@modes.in_32_bits
def brier(probs: Float[ArrayLike, "examples classes"], labels: Integer[ArrayLike, "examples"]) -> Float32[Array, ""]:
    """Return the Brier score: the squared distance from the probabilities to the one-hot label, averaged over examples.

    The distance is summed over classes, as in Brier's paper (Monthly Weather Review 78, 1950). For two classes this is
    twice the value of the other common convention.

    Args:
      probs: floating `[B, C]`, probabilities.
      labels: integer `[B]`, in [0, C).

    Returns:
      float32 `[]` in [0, 2]; higher is worse.

    Raises:
      UserTypeError: `probs` are not floating, or `labels` are not integers.
      UserError: a shape does not match, a probability is NaN or outside [0, 1], or a label is outside [0, C).

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> metrics.brier(jnp.array([[0.5, 0.5]]), jnp.array([1])).item()
      0.5
    """
    return jnp.mean(brier_scores(*validation.check_predictions("probs", probs, labels)))


def top_class(
    scores: Float32[Array, "examples classes"], labels: Int32[Array, "examples"]
) -> tuple[Float32[Array, "examples"], Bool[Array, "examples"]]:
    """Return the highest score of each example, and whether its class is the label."""
    return jnp.max(scores, axis=1), jnp.argmax(scores, axis=1).astype(labels.dtype) == labels


def in_top_k(
    scores: Float32[Array, "examples classes"], labels: Int32[Array, "examples"], k: int
) -> Bool[Array, "examples"]:
    """Return whether fewer than k classes precede the label, by a higher score or by a lower index among ties."""
    own = jnp.take_along_axis(scores, labels[:, None], axis=1)
    has_lower_index = jnp.arange(scores.shape[1], dtype=labels.dtype)[None, :] < labels[:, None]
    precedes = (scores > own) | ((scores == own) & has_lower_index)
    return jnp.sum(precedes, axis=1, dtype=jnp.int32) < k


def negative_log_likelihoods(
    probs: Float32[Array, "examples classes"], labels: Int32[Array, "examples"]
) -> Float32[Array, "examples"]:
    """Return the negative log likelihood of each label, in nats."""
    likelihood = jnp.take_along_axis(probs, labels[:, None], axis=1)[:, 0]
    return -jnp.log(jnp.clip(likelihood, jnp.finfo(jnp.float32).tiny, 1.0))


def brier_scores(
    probs: Float32[Array, "examples classes"], labels: Int32[Array, "examples"]
) -> Float32[Array, "examples"]:
    """Return the squared distance from the probabilities to the one-hot label, for each example."""
    target = jax.nn.one_hot(labels, probs.shape[1], dtype=probs.dtype)
    return jnp.sum(jnp.square(probs - target), axis=1)
