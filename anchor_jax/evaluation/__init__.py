"""Suites of tests on a trained run, and the report of what they find."""

from anchor_jax.evaluation.evaluating import evaluate
from anchor_jax.evaluation.subject import PROTOCOLS, Options
from anchor_jax.evaluation.suites import SUITES

__all__ = ["PROTOCOLS", "SUITES", "Options", "evaluate"]
