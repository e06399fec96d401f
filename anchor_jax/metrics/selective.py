"""Selective prediction: the errors of a classifier that may abstain from its least confident predictions."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Float32, Shaped

from anchor_jax.core import explicit, modes
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.metrics import validation
from anchor_jax.metrics.ranking import rank_by_confidence


@short_repr
class RiskCoverage(NamedTuple):
    """A risk-coverage curve, as returned by `risk_coverage`: entry k - 1 accepts the k most confident of B examples.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> coverage, risk = metrics.risk_coverage(jnp.array([0.9, 0.6]), jnp.array([True, False]))
      >>> coverage.tolist(), risk.tolist()
      ([0.5, 1.0], [0.0, 0.5])
    """

    coverage: Float32[Array, "examples"]  # accepted fraction of examples: 1/B, 2/B ... 1
    risk: Float32[Array, "examples"]  # in [0, 1], error rate among them; the last entry is the overall error rate


@explicit.automatic()
@modes.in_32_bits
def risk_coverage(confidence: Float[ArrayLike, "examples"], correct: Shaped[ArrayLike, "examples"]) -> RiskCoverage:
    """Return the error rate among the k most confident examples, for each k.

    Where a coverage splits tied examples, the risk is its expectation for a random choice among them.

    Args:
      confidence: floating `[B]`, B at least 1; any real score; only the order matters. The highest is accepted
        first; negate an uncertainty. NumPy's float64 is ordered before it is rounded to float32.
      correct: bool `[B]`, or 0 and 1: whether the prediction was correct.

    Returns:
      `RiskCoverage`, from the most confident example to all of them.

    Raises:
      UserError: `confidence` contains NaN, `correct` contains values other than 0 and 1, or a shape does not match.
      UserTypeError: `confidence` is not floating.

    Source: El-Yaniv & Wiener 2010 (JMLR 11); for deep networks Geifman & El-Yaniv 2017 (arXiv 1705.08500).

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp, numpy as np
      >>> confidence, correct = jnp.array([0.6, 0.9, 0.8, 0.7]), jnp.array([False, True, False, True])
      >>> print(np.asarray(metrics.risk_coverage(confidence, correct).risk).round(3))
      [0.    0.5   0.333 0.5  ]
    """
    confidence, correct = validation.check_ranking(confidence, correct)
    _, right = rank_by_confidence(confidence, correct)
    accepted = jnp.arange(1, right.shape[0], dtype=jnp.float32)
    return RiskCoverage(accepted / confidence.shape[0], (accepted - right[1:]) / accepted)


@explicit.automatic()
@modes.in_32_bits
def aurc(confidence: Float[ArrayLike, "examples"], correct: Shaped[ArrayLike, "examples"]) -> Float32[Array, ""]:
    """Return the area under the risk-coverage curve: the mean risk over coverages 1/B, 2/B ... 1.

    With ties it is the expected area over their random orders. It also depends on the error rate; see `excess_aurc`.

    Args:
      confidence: see `risk_coverage`.
      correct: see `risk_coverage`.

    Returns:
      float32 `[]` in [0, 1]; higher is worse. If all confidences are equal it is the error rate.

    Raises:
      UserError: see `risk_coverage`.
      UserTypeError: see `risk_coverage`.

    Source: Geifman, Uziel & El-Yaniv 2019 (arXiv 1805.08206).

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> metrics.aurc(jnp.array([0.9, 0.6]), jnp.array([True, False])).item()  # (0 + 0.5) / 2
      0.25
    """
    return jnp.mean(risk_coverage(confidence, correct).risk)


@explicit.automatic()
@modes.in_32_bits
def excess_aurc(confidence: Float[ArrayLike, "examples"], correct: Shaped[ArrayLike, "examples"]) -> Float32[Array, ""]:
    """Return the AURC minus that of the best ranking of the same predictions, which ranks all errors last.

    This is the E-AURC of Geifman, Uziel & El-Yaniv 2019 (arXiv 1805.08206), except that the best area is computed
    exactly. They use its limit for many examples, `r + (1 - r)·ln(1 - r)` at an error rate of r.

    Args:
      confidence: see `risk_coverage`.
      correct: see `risk_coverage`.

    Returns:
      float32 `[]` in [0, 1), 0 up to rounding for the best ranking; higher is worse.

    Raises:
      UserError: see `risk_coverage`.
      UserTypeError: see `risk_coverage`.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> correct = jnp.array([True, False])
      >>> metrics.excess_aurc(jnp.array([0.9, 0.6]), correct).item()  # the error is ranked last
      0.0
      >>> metrics.excess_aurc(jnp.array([0.6, 0.9]), correct).item()
      0.5
    """
    _, flags = validation.check_ranking(confidence, correct)
    return aurc(confidence, flags) - aurc(flags.astype(jnp.float32), flags)
