"""The state of training: one pytree, and nothing else changes from step to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn


class NonFiniteCounter(NamedTuple):
    """Updates that were left out, since the loss or a gradient was not finite; int32 []."""

    total: jax.Array
    consecutive: jax.Array  # up to now
    longest: jax.Array  # in a row, since the run was begun or gone on with
    until: jax.Array  # the last step of that row, counted from 1; 0 where there is none

    @classmethod
    def zero(cls) -> "NonFiniteCounter":
        """Before the first step."""
        return cls(*(jnp.int32(0) for _ in cls._fields))

    def update(self, is_skipped: jax.Array, step: jax.Array) -> "NonFiniteCounter":
        """After one more step, of this number, of which bool `[]` says whether its update was left out."""
        in_a_row = jnp.where(is_skipped, self.consecutive + 1, 0)
        until = jnp.where(in_a_row > self.longest, step, self.until)
        return NonFiniteCounter(self.total + is_skipped, in_a_row, jnp.maximum(self.longest, in_a_row), until)

    def reset_longest(self, step: Any) -> "NonFiniteCounter":
        """As a run sees it that goes on after this step, which is not to blame for what was allowed before."""
        return self._replace(longest=self.consecutive, until=step if self.consecutive else 0 * step)


class TrainState(NamedTuple):
    """Everything that goes on from step to step; randomness follows from the seed and `step`."""

    step: jax.Array  # int32 [], steps done
    params: Any  # float32
    batch_stats: Any  # float32, running statistics of BatchNorm; {} without it
    opt_state: optax.OptState
    average: Any  # float32, of both over the steps: {"params", "batch_stats"}; {} where none is kept
    skipped: NonFiniteCounter


class Totals(NamedTuple):
    """Sums over steps and examples, float32 []; masked inputs apart, since they are asked something else."""

    loss: jax.Array
    examples: jax.Array
    correct: jax.Array  # of the inputs not masked
    masked_examples: jax.Array
    masked_correct: jax.Array
    masked_entropy: jax.Array  # nats
    steps: jax.Array
    gradient_norm: jax.Array  # before it is clipped

    @classmethod
    def zeros(cls) -> "Totals":
        """Of no step."""
        return cls(*(jnp.float32(0) for _ in cls._fields))


Carry = tuple[TrainState, Totals]


def create_state(model: nn.Module, optimizer: optax.GradientTransformation, key: jax.Array, input_shape) -> TrainState:
    """The state before the first step, for inputs `[1, H, W, C]` of this shape; it keeps no average."""
    return initial_state(init_variables(model, key, input_shape), optimizer, averages=False)


def initial_state(variables: dict[str, Any], optimizer: optax.GradientTransformation, *, averages: bool) -> TrainState:
    """The state before the first step that begins from these variables; `averages` says whether it keeps any."""
    average = jax.tree.map(jnp.copy, variables) if averages else {}
    opt_state = optimizer.init(variables["params"])
    return TrainState(jnp.int32(0), **variables, opt_state=opt_state, average=average, skipped=NonFiniteCounter.zero())


def init_variables(model: nn.Module, key: jax.Array, input_shape) -> dict[str, Any]:
    """What `model.apply` takes, before the first step; `batch_stats` is {} without BatchNorm."""
    return {"batch_stats": {}, **model.init(key, jnp.zeros(input_shape))}


def variables(state: TrainState) -> dict[str, Any]:
    """What `model.apply` takes in the next step of training."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def eval_variables(state: TrainState) -> dict[str, Any]:
    """What `model.apply` takes where the state is evaluated: the average, where one is kept."""
    return state.average or variables(state)
