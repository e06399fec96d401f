"""The training state: one pytree with everything that changes from step to step."""

# Flax and jax.numpy have partly unknown types, optax has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from typing import Any, NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from anchor_jax.core.short_reprs import short_repr

# The variables of a model, for `model.apply`: {"params", "batch_stats"}, float32; the latter is {} without BatchNorm.
Variables: TypeAlias = dict[str, Any]


class NonFiniteCounter(NamedTuple):
    """Counts of skipped updates: those whose loss or gradient was NaN or infinite. All are int32 `[]`.

    The longest streak decides whether a run ends (`config.training.max_consecutive_nonfinite`). It is tracked on the
    device, so that the host need not look at every step.
    """

    total: jax.Array  # skipped updates since the run was created
    consecutive: jax.Array  # length of the current streak; 0 if the last update was applied
    longest: jax.Array  # length of the longest streak since this process started or resumed the run
    until: jax.Array  # last step of the longest streak, counted from 1; 0 if there is none

    @classmethod
    def zero(cls) -> "NonFiniteCounter":
        """Return the counts before the first step."""
        return cls(*(jnp.int32(0) for _ in cls._fields))

    def update(self, is_skipped: jax.Array, step: jax.Array) -> "NonFiniteCounter":
        """Return the counts after a step.

        Args:
          is_skipped: whether its update was skipped, bool `[]`.
          step: its number, from 1, int32 `[]`.
        """
        consecutive = jnp.where(is_skipped, self.consecutive + 1, 0)
        until = jnp.where(consecutive > self.longest, step, self.until)
        return NonFiniteCounter(self.total + is_skipped, consecutive, jnp.maximum(self.longest, consecutive), until)

    def reset_longest(self, step: np.int32) -> "NonFiniteCounter":
        """Return the counts for a run that resumes after `step`: earlier streaks, which were allowed, are forgotten."""
        until = step if self.consecutive else 0 * step
        return self._replace(longest=self.consecutive, until=cast(jax.Array, until))


@short_repr
class TrainState(NamedTuple):
    """Everything that changes from step to step, and is saved in a checkpoint.

    There is no random key: the keys of a step are derived from the seed and the step.
    """

    step: jax.Array  # int32 []: number of completed steps
    params: Any  # float32
    batch_stats: Any  # float32: running statistics of BatchNorm; {} without BatchNorm
    opt_state: optax.OptState
    average: Any  # `Variables`: moving average of params and batch_stats; {} if `ema_decay` is 0
    skipped: NonFiniteCounter


class Totals(NamedTuple):
    """Sums over the examples and steps since the last log line, from which it is computed. All are float32 `[]`.

    Masked examples are counted separately: their target is another one, so that their accuracy has another meaning.
    """

    loss: jax.Array
    examples: jax.Array
    correct: jax.Array  # unmasked examples that are classified correctly
    masked_examples: jax.Array
    masked_correct: jax.Array
    masked_entropy: jax.Array  # of the predictions for masked examples, in nats
    steps: jax.Array
    gradient_norm: jax.Array  # before clipping

    @classmethod
    def zeros(cls) -> "Totals":
        """Return the sums over no examples."""
        return cls(*(jnp.float32(0) for _ in cls._fields))


# The carry of the training loop: a step maps one to the next.
Carry: TypeAlias = tuple[TrainState, Totals]


def create_state(
    model: nn.Module, optimizer: optax.GradientTransformation, key: jax.Array, input_shape: tuple[int, ...]
) -> TrainState:
    """Return the state before the first step, with random parameters and without a moving average.

    Args:
      model: see `anchor_jax.models.create`.
      optimizer: see `anchor_jax.training.optimizer.create`.
      key: the key of the random parameters.
      input_shape: shape of one network input, `(1, H, W, C)`; 2C channels for an anchored network.
    """
    return initial_state(init_variables(model, key, input_shape), optimizer, averages=False)


def initial_state(variables: Variables, optimizer: optax.GradientTransformation, *, averages: bool) -> TrainState:
    """Return the state before the first step.

    Args:
      variables: the initial variables of the model.
      optimizer: see `anchor_jax.training.optimizer.create`.
      averages: whether to keep a moving average of the variables.
    """
    return TrainState(
        step=jnp.int32(0),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        average=jax.tree.map(jnp.copy, variables) if averages else {},
        skipped=NonFiniteCounter.zero(),
    )


def init_variables(model: nn.Module, key: jax.Array, input_shape: tuple[int, ...]) -> Variables:
    """Return the random initial variables of a model; the arguments are those of `create_state`."""
    return {"batch_stats": {}, **cast(Variables, model.init(key, jnp.zeros(input_shape)))}


def variables(state: TrainState) -> Variables:
    """Return the current variables of the model, for the next training step."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def eval_variables(state: TrainState) -> Variables:
    """Return the variables to evaluate: the moving average if there is one, else the current variables."""
    return state.average or variables(state)
