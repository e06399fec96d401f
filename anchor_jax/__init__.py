"""Anchored training, inference and evaluation of JAX models (arXiv 2406.00529)."""

import contextlib
import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from anchor_jax import anchoring, inference, metrics, objective, parallel, uncertainty
from anchor_jax.acquisition import expected_improvement
from anchor_jax.anchoring import anchor, anchored, anchored_kernel, sample_mask, sample_references
from anchor_jax.errors import UserError
from anchor_jax.inference import (
    Classification,
    EncodedReferences,
    Prediction,
    SplitModel,
    classify,
    encode_references,
    predict,
    transductive_references,
)
from anchor_jax.objective import anchored_cross_entropy, anchored_gaussian_nll, anchored_squared_error

if TYPE_CHECKING:
    from anchor_jax import data, evaluation, models, pager, regression, training
    from anchor_jax.exported import ExportedClassifier, load_exported
    from anchor_jax.predictor import Predictor
    from anchor_jax.training.prediction import load_predictor

    __version__: str

__all__ = [
    "Classification",
    "EncodedReferences",
    "ExportedClassifier",
    "Prediction",
    "Predictor",
    "SplitModel",
    "UserError",
    "anchor",
    "anchored",
    "anchored_cross_entropy",
    "anchored_gaussian_nll",
    "anchored_kernel",
    "anchored_squared_error",
    "anchoring",
    "classify",
    "data",
    "encode_references",
    "evaluation",
    "expected_improvement",
    "inference",
    "load_exported",
    "load_predictor",
    "metrics",
    "models",
    "objective",
    "pager",
    "parallel",
    "predict",
    "regression",
    "sample_mask",
    "sample_references",
    "training",
    "transductive_references",
    "uncertainty",
]

# The rooms that need more than JAX are opened on first use: `import anchor_jax` stays light.
_ROOMS = ("data", "evaluation", "models", "pager", "regression", "training")
_FROM_ROOMS = {
    "ExportedClassifier": "anchor_jax.exported",
    "load_exported": "anchor_jax.exported",
    "Predictor": "anchor_jax.predictor",
    "load_predictor": "anchor_jax.training.prediction",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"anchor_jax.{name}")
    if name in _FROM_ROOMS:
        return getattr(importlib.import_module(_FROM_ROOMS[name]), name)
    if name == "__version__":  # pyproject.toml has it
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # a checkout that is not installed has none
            return importlib.metadata.version("anchor-jax")
    raise AttributeError(f"module 'anchor_jax' has no attribute '{name}'")
