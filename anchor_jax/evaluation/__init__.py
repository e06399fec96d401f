"""Suites of tests on a trained run, and the report of what they find."""

from anchor_jax.evaluation.context import PROTOCOLS, Options
from anchor_jax.evaluation.runner import evaluate
from anchor_jax.evaluation.suites import SUITES

__all__ = ["PROTOCOLS", "SUITES", "Options", "evaluate"]
