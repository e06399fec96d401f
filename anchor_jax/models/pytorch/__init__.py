"""Weights of PyTorch networks that others wrote, into our variables and back."""

from anchor_jax.models.pytorch.converting import from_torch, to_arrays, to_torch
from anchor_jax.models.pytorch.names import SOURCES

__all__ = ["SOURCES", "from_torch", "to_arrays", "to_torch"]
