"""Comparison of evaluated runs: methods over their seeds, differences with intervals, the paper's results."""

from anchor_jax.reporting.comparison.compare import compare

__all__ = ["compare"]
