"""Anchored training, inference and evaluation of JAX models (arXiv 2406.00529)."""

import contextlib
import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from anchor_jax import _aliases, metrics
from anchor_jax.contrib.bayesopt import expected_improvement
from anchor_jax.core import anchoring, inference, uncertainty
from anchor_jax.core import losses as objective
from anchor_jax.core.anchored_model import Anchored, TrainingInputs, keep_statistics
from anchor_jax.core.anchoring import anchor, anchored, anchored_kernel, sample_mask, sample_references
from anchor_jax.core.errors import UserError
from anchor_jax.core.inference import (
    Classification,
    EncodedReferences,
    Prediction,
    SplitModel,
    classify,
    encode_references,
    predict,
    transductive_references,
)
from anchor_jax.core.losses import anchored_cross_entropy, anchored_gaussian_nll, anchored_squared_error
from anchor_jax.runtime import mesh as parallel

if TYPE_CHECKING:
    from anchor_jax import data, evaluation, models, training
    from anchor_jax.contrib import conformal, pager, regression, scaling
    from anchor_jax.export.format import ExportedClassifier, load_exported
    from anchor_jax.runs.load import load_predictor
    from anchor_jax.runs.predictor import Predictor

    __version__: str

__all__ = [
    "Anchored",
    "Classification",
    "EncodedReferences",
    "ExportedClassifier",
    "Prediction",
    "Predictor",
    "SplitModel",
    "TrainingInputs",
    "UserError",
    "anchor",
    "anchored",
    "anchored_cross_entropy",
    "anchored_gaussian_nll",
    "anchored_kernel",
    "anchored_squared_error",
    "anchoring",
    "classify",
    "conformal",
    "data",
    "encode_references",
    "evaluation",
    "expected_improvement",
    "inference",
    "keep_statistics",
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
    "scaling",
    "training",
    "transductive_references",
    "uncertainty",
]

# What needs more than JAX is imported on first use, so that `import anchor_jax` stays light.
_LAZY_MODULES = {
    "conformal": "anchor_jax.contrib.conformal",
    "data": "anchor_jax.data",
    "evaluation": "anchor_jax.evaluation",
    "models": "anchor_jax.models",
    "pager": "anchor_jax.contrib.pager",
    "regression": "anchor_jax.contrib.regression",
    "scaling": "anchor_jax.contrib.scaling",
    "training": "anchor_jax.training",
}
_LAZY_OBJECTS = {
    "ExportedClassifier": "anchor_jax.export.format",
    "load_exported": "anchor_jax.export.format",
    "Predictor": "anchor_jax.runs.predictor",
    "load_predictor": "anchor_jax.runs.load",
}

_aliases.install()


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return importlib.import_module(_LAZY_MODULES[name])
    if name in _LAZY_OBJECTS:
        return getattr(importlib.import_module(_LAZY_OBJECTS[name]), name)
    if name == "__version__":  # declared in pyproject.toml
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # a checkout that is not installed
            return importlib.metadata.version("anchor-jax")
    raise AttributeError(f"module 'anchor_jax' has no attribute '{name}'")
