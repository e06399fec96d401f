"""Numbers from predictions: how often a classifier is right, how far a regression errs, and how both can be trusted.

Pure functions of arrays that work under `jax.jit` (what sets a shape, as `num_bins`, is static) and compute
in float32. B is the number of examples in the whole set and C the number of classes. Calibration errors and
areas are not averages over examples, so none of these may be averaged over batches: reduce each batch with
`outcomes`, join the columns, and ask `summary_of` once.

A wrong dtype is refused always, as a `UserTypeError`, and so is a wrong shape, as a `UserError`; NaN and values out
of range are refused, as a `UserError`, wherever the values can be seen: those that are traced under `jit` cannot, and
give numbers without meaning.
"""

from anchor_jax.metrics.calibration import (
    ReliabilityBins,
    adaptive_calibration_error,
    calibration_error,
    reliability,
    reliability_bins,
    smooth_ece,
)
from anchor_jax.metrics.per_example import PerExampleScores, per_example_scores, summarize, summary
from anchor_jax.metrics.regression import coverage_error, gaussian_nll, interval_coverage, rmse
from anchor_jax.metrics.scores import accuracy, brier, nll, top_k_accuracy
from anchor_jax.metrics.selective import RiskCoverage, aurc, excess_aurc, risk_coverage

__all__ = [
    "PerExampleScores",
    "ReliabilityBins",
    "RiskCoverage",
    "accuracy",
    "adaptive_calibration_error",
    "aurc",
    "brier",
    "calibration_error",
    "coverage_error",
    "excess_aurc",
    "gaussian_nll",
    "interval_coverage",
    "nll",
    "per_example_scores",
    "reliability",
    "reliability_bins",
    "risk_coverage",
    "rmse",
    "smooth_ece",
    "summarize",
    "summary",
    "top_k_accuracy",
]
