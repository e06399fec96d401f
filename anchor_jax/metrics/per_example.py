"""Per-example scores of predictions, and all metrics computed from them."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Float32, Int32, Integer

from anchor_jax.core import checks, explicit, modes
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.core.types import AnyArray
from anchor_jax.metrics import validation
from anchor_jax.metrics.calibration import adaptive_calibration_error, calibration_error, reliability_bins, smooth_ece
from anchor_jax.metrics.scores import brier_scores, in_top_k, negative_log_likelihoods, top_class
from anchor_jax.metrics.selective import aurc


@short_repr
class PerExampleScores(NamedTuple):
    """Everything the metrics need of each example, independent of the number of classes.

    Concatenate those of several batches with `jax.tree.map`.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax, jax.numpy as jnp, numpy as np
      >>> batches = [(jnp.eye(3), jnp.arange(3)), (jnp.eye(3)[:2], jnp.arange(2))]
      >>> scores = [metrics.per_example_scores(probs, labels) for probs, labels in batches]
      >>> scores = jax.tree.map(lambda *columns: np.concatenate(columns), *scores)
      >>> scores.correct.tolist()
      [True, True, True, True, True]
    """

    confidence: Float32[AnyArray, "examples"]  # in [0, 1], top-class probability
    correct: Bool[AnyArray, "examples"]  # whether the top class is the label; the first class wins ties
    in_top5: Bool[AnyArray, "examples"] | None  # whether the label is among the top 5; None below 6 classes
    nll: Float32[AnyArray, "examples"]  # in [0, 87.4] nats, negative log likelihood of the label
    brier: Float32[AnyArray, "examples"]  # in [0, 2], squared distance from the probabilities to the one-hot label


@explicit.automatic("probs", "labels")
@modes.in_32_bits
def per_example_scores(
    probs: Float[ArrayLike, "examples classes"], labels: Integer[ArrayLike, "examples"]
) -> PerExampleScores:
    """Reduce predictions to the scores that their metrics need.

    Under `jit` no value is read back to check for NaN, so the batches of a stream do not wait for one another;
    `summarize` raises for NaN afterwards.

    Args:
      probs: floating `[B, C]`, probabilities.
      labels: integer `[B]`, in [0, C).

    Returns:
      `PerExampleScores` of B rows; `in_top5` is None if C is below 6.

    Raises:
      UserError: `probs` contain NaN or values outside [0, 1], `labels` contain values outside [0, C), or a shape does
        not match.
      UserTypeError: `probs` are not floating, or `labels` are not integers.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> scores = metrics.per_example_scores(jnp.array([[0.75, 0.25], [0.5, 0.5]]), jnp.array([0, 1]))
      >>> scores.confidence.tolist(), scores.correct.tolist(), scores.brier.tolist()
      ([0.75, 0.5], [True, False], [0.125, 0.5])
    """
    return _per_example_scores(*validation.check_predictions("probs", probs, labels))


@explicit.automatic()
@modes.in_32_bits
def summarize(scores: PerExampleScores, num_bins: int = 15) -> dict[str, Float32[Array, ""]]:
    """Return all metrics of one set of predictions, from its per-example scores.

    Args:
      scores: scores of the whole set, at least one row; JAX or NumPy arrays.
      num_bins: number of bins of `ece`, `rms_ece` and `adaptive_ece`, at least 1; static under `jit`.

    Returns:
      float32 `[]` for each of `accuracy`, `top5_accuracy` (absent if `in_top5` is None), `nll` (nats), `brier`, `ece`
      (`calibration_error`, "l1"), `rms_ece` ("l2"), `adaptive_ece` (`adaptive_calibration_error`), `smooth_ece` and
      `aurc`; fractions, not percent. Higher is better for the accuracies only.

    Raises:
      UserError: a column contains NaN or values out of range, or its shape is not that of `confidence`.
      UserTypeError: `scores` are not `PerExampleScores`, a column of numbers is not floating, or `num_bins` is not an
        integer.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> scores = metrics.per_example_scores(jnp.array([[0.75, 0.25], [0.25, 0.75]]), jnp.array([0, 0]))
      >>> results = metrics.summarize(scores)
      >>> results["accuracy"].item(), results["ece"].item()
      (0.5, 0.25)
    """
    checks.instance("scores", scores, PerExampleScores, "metrics.per_example_scores")
    return _summarize(_checked(scores), checks.count("num_bins", num_bins))


@explicit.automatic()
@modes.in_32_bits
def summary(
    probs: Float[ArrayLike, "examples classes"], labels: Integer[ArrayLike, "examples"], num_bins: int = 15
) -> dict[str, Float32[Array, ""]]:
    """Return all metrics of predictions that are in memory: `summarize(per_example_scores(probs, labels), num_bins)`.

    Args:
      probs: floating `[B, C]`, probabilities.
      labels: integer `[B]`, in [0, C).
      num_bins: see `summarize`.

    Returns:
      See `summarize`; `top5_accuracy` is present for 6 classes or more.

    Raises:
      UserError: see `per_example_scores`; also if `num_bins` is below 1.
      UserTypeError: see `per_example_scores`; also if `num_bins` is not an integer.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> sorted(metrics.summary(jnp.array([[0.9, 0.1], [0.2, 0.8]]), jnp.array([0, 1])))
      ['accuracy', 'adaptive_ece', 'aurc', 'brier', 'ece', 'nll', 'rms_ece', 'smooth_ece']
    """
    num_bins = checks.count("num_bins", num_bins)
    return _summarize(per_example_scores(probs, labels), num_bins)


@jax.jit
def _per_example_scores(
    probs: Float32[Array, "examples classes"], labels: Int32[Array, "examples"]
) -> PerExampleScores:
    confidence, correct = top_class(probs, labels)
    in_top5 = in_top_k(probs, labels, 5) if probs.shape[1] > 5 else None
    return PerExampleScores(
        confidence, correct, in_top5, negative_log_likelihoods(probs, labels), brier_scores(probs, labels)
    )


@partial(jax.jit, static_argnames="num_bins")
def _summarize(scores: PerExampleScores, num_bins: int) -> dict[str, Float32[Array, ""]]:
    confidence, correct = scores.confidence, scores.correct
    bins = reliability_bins(confidence, correct, num_bins)
    top5 = {} if scores.in_top5 is None else {"top5_accuracy": jnp.mean(scores.in_top5, dtype=jnp.float32)}
    return {
        "accuracy": jnp.mean(correct, dtype=jnp.float32),
        **top5,
        "nll": jnp.mean(scores.nll),
        "brier": jnp.mean(scores.brier),
        "ece": calibration_error(bins, "l1"),
        "rms_ece": calibration_error(bins, "l2"),
        "adaptive_ece": adaptive_calibration_error(confidence, correct, num_bins),
        "smooth_ece": smooth_ece(confidence, correct),
        "aurc": aurc(confidence, correct),
    }


def _checked(scores: PerExampleScores) -> PerExampleScores:
    confidence, correct = validation.check_confidence(scores.confidence, scores.correct)
    shape = confidence.shape
    return PerExampleScores(
        confidence,
        correct,
        None if scores.in_top5 is None else validation.check_flags("in_top5", scores.in_top5, shape),
        validation.check_column("nll", scores.nll, shape, 0, np.inf),
        validation.check_column("brier", scores.brier, shape, 0, np.inf),
    )
