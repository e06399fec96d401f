"""Export a run to a single file that runs with JAX alone, and load such a file."""

import importlib
from typing import TYPE_CHECKING, Any

from anchor_jax.export.format import ExportedClassifier, Metadata, load_exported, write_archive

if TYPE_CHECKING:
    from anchor_jax.export.write import DEFAULT_PLATFORMS, PLATFORMS, export

__all__ = [
    "DEFAULT_PLATFORMS",
    "PLATFORMS",
    "ExportedClassifier",
    "Metadata",
    "export",
    "load_exported",
    "write_archive",
]


def __getattr__(name: str) -> Any:
    if name in __all__:  # imported on first use: exporting needs Flax and Orbax, loading needs neither
        return getattr(importlib.import_module("anchor_jax.export.write"), name)
    raise AttributeError(f"module 'anchor_jax.export' has no attribute '{name}'")
