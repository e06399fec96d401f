"""Selective prediction: what a classifier gets wrong when it may decline what it is least sure of."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from anchor_jax.metrics import validation
from anchor_jax.metrics.ranking import rank


class RiskCoverage(NamedTuple):
    """A risk-coverage curve: entry k - 1 is for accepting the k most confident of B examples."""

    coverage: jax.Array  # float32 [B], 1/B, 2/B ... 1: fraction that is accepted
    risk: jax.Array  # float32 [B], in [0, 1]: fraction of the accepted that is wrong; the last is the error rate


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """Error rate among the most confident examples, for every number of them.

    El-Yaniv and Wiener 2010 (JMLR 11); for deep networks Geifman and El-Yaniv 2017 (arXiv 1705.08500). Where
    equal confidences straddle a coverage, the risk is the expected one when a random part of them is accepted.

    Args:
      confidence: floating `[B]`, B at least 1; any real score, of which only the order counts: the highest is
        accepted first. An uncertainty goes in negated.
      correct: `[B]`, bool or 0 and 1: whether the prediction was right.

    Returns:
      `RiskCoverage`, from the most confident example alone to all of them.

    Raises:
      UserError: `confidence` holds NaN, `correct` something else than 0 and 1, or a shape does not fit.
      UserTypeError: `confidence` is not floating.
    """
    confidence, correct = validation.judged(confidence, correct, -np.inf, np.inf)
    _, right = rank(confidence, correct)
    accepted = jnp.arange(1, len(right), dtype=jnp.float32)
    return RiskCoverage(accepted / len(confidence), (accepted - right[1:]) / accepted)


def aurc(confidence: ArrayLike, correct: ArrayLike) -> jax.Array:
    """Area under the risk-coverage curve: the mean of the risks at coverages 1/B, 2/B ... 1.

    Geifman, Uziel and El-Yaniv 2019 (arXiv 1805.08206). For equal confidences it is the expected area over
    their random orders. It depends on the error rate too: see `excess_aurc`.

    Args:
      confidence: as for `risk_coverage`.
      correct: as for `risk_coverage`.

    Returns:
      float32 `[]` in [0, 1]; higher is worse. All ties: the error rate.
    """
    return jnp.mean(risk_coverage(confidence, correct).risk)


def excess_aurc(confidence: ArrayLike, correct: ArrayLike) -> jax.Array:
    """AURC above that of the best ranking of the same predictions, which has every mistake last.

    E-AURC of Geifman, Uziel and El-Yaniv 2019 (arXiv 1805.08206), with the best area computed, where they
    take its limit for many examples, r + (1 - r)·ln(1 - r) at an error rate of r.

    Args:
      confidence: as for `risk_coverage`.
      correct: as for `risk_coverage`.

    Returns:
      float32 `[]` in [0, 1), 0 but for rounding where the ranking is the best; higher is worse.
    """
    confidence, correct = validation.judged(confidence, correct, -np.inf, np.inf)
    return aurc(confidence, correct) - aurc(correct.astype(jnp.float32), correct)
