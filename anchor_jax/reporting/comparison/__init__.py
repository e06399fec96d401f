"""Several evaluated runs side by side: methods over their seeds, differences with intervals, the paper's figures."""

from anchor_jax.reporting.comparison.compare import compare

__all__ = ["compare"]
