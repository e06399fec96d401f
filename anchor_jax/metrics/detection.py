"""Detection of positive examples, such as anomalies, by a score: areas under curves, and false alarms at a hit rate."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float32, Real, Shaped

from anchor_jax.core import checks, explicit, modes
from anchor_jax.metrics import validation
from anchor_jax.metrics.ranking import Detections, count_detections


@explicit.automatic()
@modes.in_32_bits
def auroc(scores: Shaped[ArrayLike, "examples"], positive: Shaped[ArrayLike, "examples"]) -> Float32[Array, ""]:
    """Return the area under the ROC curve: the probability that a positive example scores above a negative one.

    Equal scores count half, as in scikit-learn's `roc_auc_score`.

    Args:
      scores: real `[B]`, higher for examples that should be positive; only the order matters. NumPy's float64 is
        ordered before it is rounded to float32.
      positive: bool `[B]`, or 0 and 1: whether the example is positive. Both kinds must occur.

    Returns:
      float32 `[]` in [0, 1]; higher is better, 0.5 is chance. NaN under `jit` if one kind does not occur.

    Raises:
      UserTypeError: an argument is not an array of real numbers.
      UserError: a shape does not match, `scores` contain NaN, `positive` contains values other than 0 and 1 or only one
        of them.

    Source: Hanley & McNeil 1982, *The meaning and use of the area under a ROC curve* (Radiology 143).

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> metrics.auroc(jnp.array([0.9, 0.5, 0.5, 0.1]), jnp.array([True, True, False, False])).item()
      0.875
    """
    return _auroc(*validation.check_detection(scores, positive))


@explicit.automatic()
@modes.in_32_bits
def aupr(scores: Shaped[ArrayLike, "examples"], positive: Shaped[ArrayLike, "examples"]) -> Float32[Array, ""]:
    """Return the area under the precision-recall curve, as the average precision over the positive examples.

    This is scikit-learn's `average_precision_score`: steps, without interpolation between thresholds. For the area with
    the other examples as positive ones, negate both: `aupr(-scores, ~positive)`.

    Args:
      scores: see `auroc`.
      positive: see `auroc`.

    Returns:
      float32 `[]` in (0, 1]; higher is better, the fraction of positive examples is chance. NaN under `jit` if no
      example is positive.

    Raises:
      UserTypeError: see `auroc`.
      UserError: see `auroc`.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> metrics.aupr(jnp.array([0.9, 0.5, 0.5, 0.1]), jnp.array([True, True, False, False])).item()  # (1 + 2/3) / 2
      0.8333333730697632
    """
    return _aupr(*validation.check_detection(scores, positive))


@explicit.automatic()
@modes.in_32_bits
def fpr_at_tpr(
    scores: Shaped[ArrayLike, "examples"], positive: Shaped[ArrayLike, "examples"], tpr: float = 0.95
) -> Float32[Array, ""]:
    """Return the fraction of negative examples that are detected at a threshold that detects enough positive ones.

    The threshold is the highest one that detects at least a fraction `tpr` of the positive examples. Examples of equal
    scores are detected together, so the value is one that a threshold reaches. Some published code takes the threshold
    whose rate is nearest to `tpr` instead, which may be below it.

    Args:
      scores: see `auroc`.
      positive: see `auroc`.
      tpr: required fraction of the positive examples, in [0, 1]; static under `jit`.

    Returns:
      float32 `[]` in [0, 1]; lower is better. NaN under `jit` if one kind of examples does not occur.

    Raises:
      UserTypeError: see `auroc`; also if `tpr` is not a number.
      UserError: see `auroc`; also if `tpr` is outside [0, 1].

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> scores, positive = jnp.array([0.9, 0.5, 0.5, 0.1]), jnp.array([True, True, False, False])
      >>> metrics.fpr_at_tpr(scores, positive).item(), metrics.fpr_at_tpr(scores, positive, tpr=0.5).item()
      (0.5, 0.0)
    """
    tpr = checks.static_number("tpr", tpr)
    return _fpr_at_tpr(*validation.check_detection(scores, positive), tpr=tpr)


@jax.jit
def _auroc(scores: Real[Array, "examples"], positive: Bool[Array, "examples"]) -> Float32[Array, ""]:
    found = count_detections(scores, positive)
    # each positive example beats the negative ones below it, and half of those with the same score
    above_or_half = (found.false_before + found.false).astype(jnp.float32) / 2
    return _mean_over_positive(1 - above_or_half / found.false[-1].astype(jnp.float32), found)


@jax.jit
def _aupr(scores: Real[Array, "examples"], positive: Bool[Array, "examples"]) -> Float32[Array, ""]:
    found = count_detections(scores, positive)
    true = found.true.astype(jnp.float32)
    return _mean_over_positive(true / (found.true + found.false).astype(jnp.float32), found)


@partial(jax.jit, static_argnames="tpr")
def _fpr_at_tpr(scores: Real[Array, "examples"], positive: Bool[Array, "examples"], tpr: float) -> Float32[Array, ""]:
    found = count_detections(scores, positive)
    rate = found.true.astype(jnp.float32) / found.true[-1].astype(jnp.float32)
    fewest = jnp.min(jnp.where(rate >= jnp.float32(tpr), found.false, found.false[-1])) if tpr else jnp.int32(0)
    fraction = fewest.astype(jnp.float32) / found.false[-1].astype(jnp.float32)
    return jnp.where(found.true[-1] > 0, fraction, jnp.nan)


def _mean_over_positive(values: Float32[Array, "examples"], found: Detections) -> Float32[Array, ""]:
    return jnp.sum(jnp.where(found.positive, values, 0.0)) / found.true[-1].astype(jnp.float32)
