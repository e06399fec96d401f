"""Training: `train` runs a config in a workdir; `prepare` returns its `Trainer` without training."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anchor_jax.runs.state import TrainState
    from anchor_jax.training.loop import train
    from anchor_jax.training.preparation import prepare
    from anchor_jax.training.trainer import Trainer

__all__ = ["TrainState", "Trainer", "prepare", "train"]

# Imported on first use: evaluation needs `training.source`, but not the loop with its logging libraries.
_LAZY = {
    "TrainState": "anchor_jax.runs.state",
    "Trainer": "anchor_jax.training.trainer",
    "prepare": "anchor_jax.training.preparation",
    "train": "anchor_jax.training.loop",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
