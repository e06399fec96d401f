"""Evaluation of trained runs by suites."""

from anchor_jax.evaluation.options import PROTOCOLS
from anchor_jax.evaluation.results import Score, SuiteResult
from anchor_jax.evaluation.runner import evaluate
from anchor_jax.evaluation.storage import load_results
from anchor_jax.evaluation.suites import SUITES, Options

__all__ = ["PROTOCOLS", "SUITES", "Options", "Score", "SuiteResult", "evaluate", "load_results"]
