"""Flax Linen modules by name: `init(key, inputs)`, `apply(variables, inputs, train=False) -> logits`.

The same module serves standard and anchored training: its first layer takes as many channels as it is shown.
"""

from anchor_jax.models.pytorch import SOURCES, from_torch, to_torch
from anchor_jax.models.registry import DTYPES, MODELS, create

__all__ = ["DTYPES", "MODELS", "SOURCES", "create", "from_torch", "to_torch"]
