"""Metrics of classification and regression: accuracy, likelihood, calibration, detection and selective prediction.

Pure functions of arrays that work under `jax.jit` (arguments that set a shape, such as `num_bins`, are static) and
compute in float32. Letters: B examples in the whole set, C classes. Calibration errors and areas are not averages over
examples, so never average these metrics over batches: reduce each batch with `per_example_scores`, concatenate the
results, and call `summarize` once.

A wrong dtype raises `UserTypeError` and a wrong shape `UserError`. NaN and values out of range raise `UserError` where
the values are known; under `jit` they are not, and the result is meaningless.
"""

from anchor_jax.metrics.calibration import (
    ReliabilityBins,
    adaptive_calibration_error,
    calibration_error,
    reliability,
    reliability_bins,
    smooth_ece,
)
from anchor_jax.metrics.detection import aupr, auroc, fpr_at_tpr
from anchor_jax.metrics.per_example import PerExampleScores, per_example_scores, summarize, summary
from anchor_jax.metrics.regression import coverage_error, gaussian_nll, interval_coverage, rmse
from anchor_jax.metrics.scores import accuracy, brier, nll, top_k_accuracy
from anchor_jax.metrics.selective import RiskCoverage, aurc, excess_aurc, risk_coverage
from anchor_jax.metrics.sets import set_coverage, set_size

__all__ = [
    "PerExampleScores",
    "ReliabilityBins",
    "RiskCoverage",
    "accuracy",
    "adaptive_calibration_error",
    "aupr",
    "aurc",
    "auroc",
    "brier",
    "calibration_error",
    "coverage_error",
    "excess_aurc",
    "fpr_at_tpr",
    "gaussian_nll",
    "interval_coverage",
    "nll",
    "per_example_scores",
    "reliability",
    "reliability_bins",
    "risk_coverage",
    "rmse",
    "set_coverage",
    "set_size",
    "smooth_ece",
    "summarize",
    "summary",
    "top_k_accuracy",
]

# old names, of version 0.1
Outcomes = PerExampleScores
outcomes = per_example_scores
summary_of = summarize
