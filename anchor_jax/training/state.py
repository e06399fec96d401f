"""The state of training: one pytree, and nothing else changes from step to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn


class TrainState(NamedTuple):
    """Everything that a checkpoint holds; randomness follows from the seed and `step`."""

    step: jax.Array  # int32 [], steps done
    params: Any  # float32
    batch_stats: Any  # float32, running statistics of BatchNorm; {} without it
    opt_state: optax.OptState


def create(model: nn.Module, optimizer: optax.GradientTransformation, key: jax.Array, input_shape) -> TrainState:
    """The state before the first step, for inputs `[1, H, W, C]` of this shape."""
    first = first_variables(model, key, input_shape)
    return TrainState(jnp.int32(0), **first, opt_state=optimizer.init(first["params"]))


def first_variables(model: nn.Module, key: jax.Array, input_shape) -> dict[str, Any]:
    """What `model.apply` takes, before the first step; `batch_stats` is {} without BatchNorm."""
    return {"batch_stats": {}, **model.init(key, jnp.zeros(input_shape))}


def variables(state: TrainState) -> dict[str, Any]:
    """What `model.apply` takes."""
    return {"params": state.params, "batch_stats": state.batch_stats}
