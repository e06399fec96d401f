"""Flax Linen modules by name: `init(key, inputs)`, `apply(variables, inputs, train=False) -> logits`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from anchor_jax.errors import UserError, unknown
from anchor_jax.models.mlp import MLP
from anchor_jax.models.resnet import ResNet

# name -> module, what the name fixes
MODELS = {
    "mlp": (MLP, {}),
    "resnet18": (ResNet, {"stage_sizes": (2, 2, 2, 2)}),
}

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def create(name: str, num_classes: int, *, dtype: str = "float32", **options: Any) -> nn.Module:
    """A model by its name.

    Args:
      name: one of `MODELS`.
      num_classes: number of logits, at least 2.
      dtype: "float32" or "bfloat16", what activations are computed in; parameters, statistics and logits
        are float32.
      **options: of the model, such as `width` of "resnet18" or `hidden` of "mlp"; `axis_name` names the
        mapped axis over which BatchNorm takes its statistics in training.

    Raises:
      UserError: the name, the dtype or an option is unknown, or `num_classes` is below 2.
    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    if num_classes < 2:
        raise UserError(f"num_classes must be at least 2, got {num_classes}")
    module, fixed = MODELS[name]
    allowed = {field.name for field in dataclasses.fields(module)} - {
        "num_classes",
        "dtype",
        "parent",
        "name",
        *fixed,
    }
    for option, value in options.items():
        if option not in allowed:
            raise unknown(f"option of model '{name}'", option, allowed)
        sizes = value if isinstance(value, Sequence) else (value,)
        if option != "axis_name" and not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise UserError(f"option '{option}' of model '{name}' must be of whole numbers, at least 1; got {value!r}")
    return module(num_classes=num_classes, dtype=DTYPES[dtype], **fixed, **options)
