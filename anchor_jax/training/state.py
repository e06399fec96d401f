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
    average: Any  # float32, of both over the steps: {"params", "batch_stats"}; {} where none is kept


def create(model: nn.Module, optimizer: optax.GradientTransformation, key: jax.Array, input_shape) -> TrainState:
    """The state before the first step, for inputs `[1, H, W, C]` of this shape; it keeps no average."""
    return begin(first_variables(model, key, input_shape), optimizer, averages=False)


def begin(variables: dict[str, Any], optimizer: optax.GradientTransformation, *, averages: bool) -> TrainState:
    """The state before the first step that begins from these variables; `averages` says whether it keeps any."""
    average = jax.tree.map(jnp.copy, variables) if averages else {}
    return TrainState(jnp.int32(0), **variables, opt_state=optimizer.init(variables["params"]), average=average)


def first_variables(model: nn.Module, key: jax.Array, input_shape) -> dict[str, Any]:
    """What `model.apply` takes, before the first step; `batch_stats` is {} without BatchNorm."""
    return {"batch_stats": {}, **model.init(key, jnp.zeros(input_shape))}


def variables(state: TrainState) -> dict[str, Any]:
    """What `model.apply` takes in the next step of training."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def evaluated(state: TrainState) -> dict[str, Any]:
    """What `model.apply` takes where the state is evaluated: the average, where one is kept."""
    return state.average or variables(state)
