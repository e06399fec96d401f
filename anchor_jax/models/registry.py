"""Models by name."""

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError, UserTypeError, unknown
from anchor_jax.models.fastnet import FastNet
from anchor_jax.models.layers import Classifier
from anchor_jax.models.mlp import MLP
from anchor_jax.models.regnet import RegNetY
from anchor_jax.models.resnet import ResNet
from anchor_jax.models.swin_v2 import SwinV2
from anchor_jax.models.vit import ViT
from anchor_jax.models.wide_resnet import WideResNet


class Architecture(NamedTuple):
    """A family of models and the options of one member of it."""

    family: type[Classifier]
    options: dict[str, Any]  # those that differ from the defaults of the family


# rates of stochastic depth: those that DeiT and torchvision train with
MODELS: dict[str, Architecture] = {
    "mlp": Architecture(MLP, {}),
    "fastnet": Architecture(FastNet, {}),
    "resnet18": Architecture(ResNet, {}),
    "resnet34": Architecture(ResNet, {"stage_sizes": (3, 4, 6, 3)}),
    "resnet50": Architecture(ResNet, {"stage_sizes": (3, 4, 6, 3), "block": "bottleneck"}),
    "wrn40_2": Architecture(WideResNet, {}),
    "wrn28_10": Architecture(WideResNet, {"depth": 28, "widen": 10}),
    "regnet_y_800mf": Architecture(RegNetY, {}),
    "regnet_y_1_6gf": Architecture(
        RegNetY, {"stage_sizes": (2, 6, 17, 2), "widths": (48, 120, 336, 888), "group_width": 24}
    ),
    "deit_s16": Architecture(ViT, {"width": 384, "num_heads": 6, "stochastic_depth": 0.1}),
    "vit_b16": Architecture(ViT, {}),
    "swin_v2_t": Architecture(SwinV2, {"stochastic_depth": 0.2}),
    "swin_v2_s": Architecture(SwinV2, {"stage_sizes": (2, 2, 18, 2), "stochastic_depth": 0.3}),
    "swin_v2_b": Architecture(
        SwinV2, {"width": 128, "stage_sizes": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "stochastic_depth": 0.5}
    ),
}

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

# fields of every module that are not options: arguments of `create`, and what Flax adds
_NOT_OPTIONS = ("num_classes", "dtype", "axis_name", "remat", "bn_devices", "parent", "name")


def create(
    name: str,
    num_classes: int,
    *,
    dtype: str = "float32",
    axis_name: str | None = None,
    remat: bool = False,
    **options: Any,
) -> Classifier:
    """Create a model by name.

    The first layer takes its number of channels from the inputs passed to `init`, so the same model serves standard
    training on images `[B, H, W, C]` and anchored training on `[B, H, W, 2C]`.

    Args:
      name: one of `MODELS`.
      num_classes: number of logits, at least 2.
      dtype: dtype of activations, "float32" or "bfloat16"; parameters, statistics and logits are float32.
      axis_name: name of the mapped axis over which training computes the statistics of BatchNorm and divides random
        draws; None if training is not mapped.
      remat: whether training stores only the inputs of each block and recomputes the activations inside it for the
        gradient.
      **options: attributes of the model's family, such as `width` and `stem` of "resnet18" or `hidden` of "mlp".

    Returns:
      A Flax module with `init(key, inputs)`, which returns the variables "params" and, with BatchNorm, "batch_stats",
      and `apply(variables, inputs, train=False)`, which returns logits, float32 `[B, num_classes]`.

    Raises:
      UserTypeError: `name` or `dtype` is not a string, `num_classes` is not an integer, or `remat` is not a bool.
      UserError: the name, the dtype or an option is unknown, an option has an invalid value, or `num_classes` is
        below 2.

    Example:
      >>> import anchor_jax as aj
      >>> import jax, jax.numpy as jnp
      >>> model = aj.models.create("mlp", num_classes=3, hidden=(8,))
      >>> images = jnp.zeros((2, 4, 4, 1))
      >>> variables = model.init(jax.random.key(0), aj.anchor(images, references=images))
      >>> variables["params"]["Dense_0"]["kernel"].shape
      (32, 8)
      >>> model.apply(variables, aj.anchor(images, references=images)).shape
      (2, 3)
    """
    checks.known("model", name, MODELS)
    checks.known("dtype", dtype, DTYPES)
    num_classes = checks.count("num_classes", num_classes, least=2)
    if not isinstance(remat, bool):
        raise UserTypeError(f"remat must be True or False; got {checks.described(remat)}")
    family, family_options = MODELS[name]
    fields = {field.name: field for field in dataclasses.fields(family) if field.name not in _NOT_OPTIONS}
    for option, value in options.items():
        if option not in fields:
            raise unknown(f"option of model '{name}'", option, fields)
        options[option] = _plain(value)
        _check_option(name, fields[option], options[option])
    return family(num_classes, DTYPES[dtype], axis_name, remat, **family_options | options)


def option_names(name: str) -> tuple[str, ...]:
    """Return the names of the options of a model; none if there is no such model."""
    family = MODELS[name].family if name in MODELS else Classifier
    return tuple(field.name for field in dataclasses.fields(family) if field.name not in _NOT_OPTIONS)


def _plain(value: Any) -> Any:
    """Return an option in types of Python: arrays and other ordered collections as tuples, which can be hashed."""
    if checks.is_several(value):
        return checks.several("option", value)
    return value.item() if isinstance(value, np.ndarray | np.generic | jax.Array) and np.shape(value) == () else value


def _check_option(model: str, field: dataclasses.Field, value: Any) -> None:
    # a default may be outside the range of other values, such as pretrained_window=0
    is_default = type(value) is type(field.default) and value == field.default
    allowed = _violated_requirement(field.type, value)
    if allowed and not is_default:
        got = checks.described(value) if hasattr(value, "shape") else repr(value)
        raise UserError(f"option '{field.name}' of model '{model}' must be {allowed}; got {got}")


def _violated_requirement(annotation: Any, value: Any) -> str | None:
    """Return what a value must be to satisfy a type annotation, or None if it already does."""
    if typing.get_origin(annotation) is Literal:
        choices = typing.get_args(annotation)
        return None if isinstance(value, str) and value in choices else f"one of {', '.join(choices)}"
    if annotation is bool:
        return None if isinstance(value, bool) else "True or False"
    if annotation is float:
        return None if isinstance(value, (int, float)) and 0 <= value < 1 else "in [0, 1)"
    numbers = (value,) if annotation is int else value if isinstance(value, Sequence) else ()
    if numbers and all(type(number) is int and number >= 1 for number in numbers):
        return None
    return "an integer >= 1" if annotation is int else "a sequence of integers >= 1"
