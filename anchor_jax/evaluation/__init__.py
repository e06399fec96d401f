"""Suites of tests on a trained run, and the report of what they find."""

from anchor_jax.evaluation.report import evaluate
from anchor_jax.evaluation.suites import SUITES

__all__ = ["SUITES", "evaluate"]
