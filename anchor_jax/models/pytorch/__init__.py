"""Conversion of weights between published PyTorch networks and the models of this package."""

from anchor_jax.models.pytorch.conversion import from_torch, to_arrays, to_torch
from anchor_jax.models.pytorch.names import SOURCES

__all__ = ["SOURCES", "from_torch", "to_arrays", "to_torch"]
