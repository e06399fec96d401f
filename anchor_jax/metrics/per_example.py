"""A set of predictions as a table, one row an example, and all metrics of that table."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from anchor_jax.core import checks
from anchor_jax.metrics import validation
from anchor_jax.metrics.calibration import adaptive_calibration_error, calibration_error, reliability_bins, smooth_ece
from anchor_jax.metrics.scores import in_top, log_losses, squared_distances, top_class
from anchor_jax.metrics.selective import aurc
from anchor_jax.metrics.validation import Column


class PerExampleScores(NamedTuple):
    """What the metrics need to know of each example, whatever the number of classes.

    The tables of several batches are joined by
    `jax.tree.map(lambda *columns: np.concatenate(columns), *tables)`.
    """

    confidence: Column  # float32 [B], in [0, 1], top-class probability
    correct: Column  # bool [B], whether the top class is the label; the first class wins a tie
    in_top5: Column | None  # bool [B], whether the label is among the top 5; None below 6 classes, where it must be
    nll: Column  # float32 [B], in [0, 87.4] nats, negative log likelihood of the label
    brier: Column  # float32 [B], in [0, 2], squared distance from the probabilities to the one-hot label


def per_example_scores(probs: ArrayLike, labels: ArrayLike) -> PerExampleScores:
    """Reduces predictions to what their metrics need.

    Under `jit` nothing is read back to look for NaN, so batches of a stream do not wait for one another;
    `summary_of` finds the NaN afterwards.

    Args:
      probs: floating `[B, C]`, probabilities.
      labels: integer `[B]`, in [0, C).

    Returns:
      `PerExampleScores` of B rows; `in_top5` is None where C is below 6.

    Raises:
      UserError: `probs` holds NaN or a value outside [0, 1], `labels` one outside [0, C), or a shape does
        not fit.
      UserTypeError: `probs` is not floating, or `labels` not integer.
    """
    return _outcomes(*validation.predictions("probs", probs, labels))


def summarize(outcomes: PerExampleScores, num_bins: int = 15) -> dict[str, jax.Array]:
    """All metrics of one set of predictions, from their outcomes.

    Args:
      outcomes: of the whole set, at least one row; JAX or NumPy arrays.
      num_bins: bins of `ece`, `rms_ece` and `adaptive_ece`, at least 1; static under `jit`.

    Returns:
      float32 `[]` under each of `accuracy`, `top5_accuracy` (absent where `in_top5` is None), `nll` (nats),
      `brier`, `ece` (`calibration_error`, "l1"), `rms_ece` ("l2"), `adaptive_ece`
      (`adaptive_calibration_error`), `smooth_ece` and `aurc`; fractions, not percent. Higher is better for
      the accuracies alone.

    Raises:
      UserError: a column holds NaN or a value out of its range, or its shape is not that of `confidence`.
      UserTypeError: `outcomes` are no `PerExampleScores`, a column of numbers is not floating, or `num_bins` no integer.
    """
    checks.instance("outcomes", outcomes, PerExampleScores, "metrics.outcomes")
    return _summary_of(_checked(outcomes), checks.count("num_bins", num_bins))


def summary(probs: ArrayLike, labels: ArrayLike, num_bins: int = 15) -> dict[str, jax.Array]:
    """All metrics of one set of predictions that is in memory: `summary_of(outcomes(probs, labels), num_bins)`.

    Args:
      probs: floating `[B, C]`, probabilities.
      labels: integer `[B]`, in [0, C).
      num_bins: as for `summary_of`.

    Returns:
      As `summary_of`; `top5_accuracy` is there from 6 classes on.

    Raises:
      UserError: as `outcomes`, or `num_bins` is below 1.
      UserTypeError: as `outcomes`, or `num_bins` is not an integer.
    """
    num_bins = checks.count("num_bins", num_bins)
    return _summary_of(per_example_scores(probs, labels), num_bins)


@jax.jit
def _outcomes(probs: jax.Array, labels: jax.Array) -> PerExampleScores:
    confidence, correct = top_class(probs, labels)
    in_top5 = in_top(probs, labels, 5) if probs.shape[1] > 5 else None
    return PerExampleScores(confidence, correct, in_top5, log_losses(probs, labels), squared_distances(probs, labels))


@partial(jax.jit, static_argnames="num_bins")
def _summary_of(outcomes: PerExampleScores, num_bins: int) -> dict[str, jax.Array]:
    judged = outcomes.confidence, outcomes.correct
    bins = reliability_bins(*judged, num_bins)
    top5 = {} if outcomes.in_top5 is None else {"top5_accuracy": jnp.mean(outcomes.in_top5, dtype=jnp.float32)}
    return {
        "accuracy": jnp.mean(outcomes.correct, dtype=jnp.float32),
        **top5,
        "nll": jnp.mean(outcomes.nll),
        "brier": jnp.mean(outcomes.brier),
        "ece": calibration_error(bins, "l1"),
        "rms_ece": calibration_error(bins, "l2"),
        "adaptive_ece": adaptive_calibration_error(*judged, num_bins),
        "smooth_ece": smooth_ece(*judged),
        "aurc": aurc(*judged),
    }


def _checked(outcomes: PerExampleScores) -> PerExampleScores:
    confidence, correct = validation.judged(outcomes.confidence, outcomes.correct)
    shape = confidence.shape
    return PerExampleScores(
        confidence,
        correct,
        None if outcomes.in_top5 is None else validation.flags("in_top5", outcomes.in_top5, shape),
        validation.numbers("nll", outcomes.nll, shape, 0, np.inf),
        validation.numbers("brier", outcomes.brier, shape, 0, np.inf),
    )
