"""Models by name."""

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError, UserTypeError, unknown
from anchor_jax.models.layers import Classifier
from anchor_jax.models.mlp import MLP
from anchor_jax.models.regnet import RegNetY
from anchor_jax.models.resnet import ResNet
from anchor_jax.models.swin_v2 import SwinV2
from anchor_jax.models.vit import ViT
from anchor_jax.models.wide_resnet import WideResNet

# name -> family, and where it differs from the defaults of the family; the rates of stochastic depth are those that
# DeiT and torchvision train with
MODELS: dict[str, tuple[type[Classifier], dict[str, Any]]] = {
    "mlp": (MLP, {}),
    "resnet18": (ResNet, {}),
    "resnet34": (ResNet, {"stage_sizes": (3, 4, 6, 3)}),
    "resnet50": (ResNet, {"stage_sizes": (3, 4, 6, 3), "block": "bottleneck"}),
    "wrn40_2": (WideResNet, {}),
    "wrn28_10": (WideResNet, {"depth": 28, "widen": 10}),
    "regnet_y_800mf": (RegNetY, {}),
    "regnet_y_1_6gf": (
        RegNetY,
        {"stage_sizes": (2, 6, 17, 2), "widths": (48, 120, 336, 888), "group_width": 24},
    ),
    "deit_s16": (ViT, {"width": 384, "num_heads": 6, "stochastic_depth": 0.1}),
    "vit_b16": (ViT, {}),
    "swin_v2_t": (SwinV2, {"stochastic_depth": 0.2}),
    "swin_v2_s": (SwinV2, {"stage_sizes": (2, 2, 18, 2), "stochastic_depth": 0.3}),
    "swin_v2_b": (
        SwinV2,
        {"width": 128, "stage_sizes": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "stochastic_depth": 0.5},
    ),
}

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

# of every module; not for the user to choose
_NO_OPTIONS = ("num_classes", "dtype", "axis_name", "remat", "parent", "name")


def create(
    name: str,
    num_classes: int,
    *,
    dtype: str = "float32",
    axis_name: str | None = None,
    remat: bool = False,
    **options: Any,
) -> Classifier:
    """A model by its name.

    Args:
      name: one of `MODELS`.
      num_classes: number of logits, at least 2.
      dtype: "float32" or "bfloat16", what activations are computed in; parameters, statistics and logits
        are float32.
      axis_name: the mapped axis over which training takes the statistics of BatchNorm and draws.
      remat: whether training keeps the inputs of blocks alone, and computes what is in them again for the gradient.
      **options: of the family, its attributes: such as `width` and `stem` of "resnet18" or `hidden` of "mlp".

    Raises:
      UserTypeError: the name or the dtype is no string, `num_classes` no integer, or `remat` not bool.
      UserError: the name, the dtype or an option is unknown, an option is of the wrong kind, or `num_classes` below 2.
    """
    checks.known("model", name, MODELS)
    checks.known("dtype", dtype, DTYPES)
    num_classes = checks.count("num_classes", num_classes, least=2)
    if not isinstance(remat, bool):
        raise UserTypeError(f"remat must be True or False, got {checks.described(remat)}")
    family, differing = MODELS[name]
    fields = {field.name: field for field in dataclasses.fields(family) if field.name not in _NO_OPTIONS}
    for option, value in options.items():
        if option not in fields:
            raise unknown(f"option of model '{name}'", option, fields)
        kind = _unmet(fields[option].type, value)
        default = fields[option].default
        told = checks.described(value) if hasattr(value, "shape") else repr(value)
        if kind and not (type(value) is type(default) and value == default):
            raise UserError(f"option '{option}' of model '{name}' must be {kind}; got {told}")
    return family(num_classes, DTYPES[dtype], axis_name, remat, **differing | options)


def _unmet(kind: Any, value: Any) -> str | None:
    """What a value of this type would have to be, if it is not."""
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        return None if isinstance(value, str) and value in choices else f"one of {', '.join(choices)}"
    if kind is bool:
        return None if isinstance(value, bool) else "True or False"
    if kind is float:
        return None if isinstance(value, (int, float)) and 0 <= value < 1 else "in [0, 1)"
    numbers = (value,) if kind is int else value if isinstance(value, Sequence) else ()
    if numbers and all(type(number) is int and number >= 1 for number in numbers):
        return None
    return "a whole number, at least 1" if kind is int else "whole numbers, at least 1"
