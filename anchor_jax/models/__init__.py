"""Flax Linen models by name, and conversion of PyTorch weights.

Every model has `init(key, inputs)` and `apply(variables, inputs, train=False) -> logits`. The same model serves
standard and anchored training: its first layer takes its number of channels from the inputs passed to `init`.
"""

from anchor_jax.models.pytorch import SOURCES, from_torch, to_torch
from anchor_jax.models.registry import DTYPES, MODELS, Architecture, create

__all__ = ["DTYPES", "MODELS", "SOURCES", "Architecture", "create", "from_torch", "to_torch"]
