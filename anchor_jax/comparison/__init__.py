"""Several evaluated runs side by side: methods over their seeds, differences with intervals, the paper's figures."""

from anchor_jax.comparison.comparing import compare

__all__ = ["compare"]
