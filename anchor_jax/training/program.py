"""The training step of a run, before there are data: `prepare` runs it, `anchor-jax plan` only compiles it."""

from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from anchor_jax.core.errors import UserError
from anchor_jax.models.layers import Classifier
from anchor_jax.runs.load import create_model, run_normalization
from anchor_jax.runs.record import Run
from anchor_jax.runs.state import Carry, Totals, TrainState
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training import optimizer as optimizer_lib
from anchor_jax.training import sharding
from anchor_jax.training.schedule import TrainingSchedule
from anchor_jax.training.step import TrainStep, make_train_step
from anchor_jax.training.trainer import init_state


class TrainProgram(NamedTuple):
    """A training step, and the shapes of what it changes.

    Attributes:
      model: the network.
      optimizer: the gradient transformation.
      learning_rate: the learning rate schedule.
      shapes: shapes and dtypes of the state.
      specs: partition specs of the state; None if it is replicated.
      train_step: the step, for one device of a mapped axis.
    """

    model: Classifier
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    shapes: TrainState
    specs: TrainState | None
    train_step: TrainStep

    @property
    def carry_specs(self) -> Any:
        """Partition specs of state and totals."""
        return self.specs or mesh_lib.REPLICATED, mesh_lib.REPLICATED

    def carry_shapes(self, mesh: Mesh) -> Carry:
        """Return the shapes, dtypes and shardings of state and totals."""
        state = mesh_lib.state_shapes(self.shapes, self.specs, mesh)
        return state, mesh_lib.replicated_shapes(jax.eval_shape(Totals.zeros), mesh)


def build_program(run: Run, schedule: TrainingSchedule, mesh: Mesh) -> TrainProgram:
    """Build the training step of a run; nothing is computed.

    Args:
      run: the run; its config states mean and standard deviation.
      schedule: its length.
      mesh: the devices.

    Raises:
      UserError: the config sets `training.bn_group_size`, but the model has no BatchNorm.
    """
    config = run.config
    model = create_model(run, axis_name=mesh_lib.AXIS)
    learning_rate = optimizer_lib.create_schedule(config.optimizer, *schedule)
    optimizer = optimizer_lib.create(config.optimizer, learning_rate)
    shapes = jax.eval_shape(lambda: init_state(run, model, optimizer))
    if config.training.bn_group_size and not shapes.batch_stats:
        raise UserError(
            "config.training.bn_group_size must be 0 for a model without BatchNorm, such as "
            f"'{config.model.name}'; got {config.training.bn_group_size}"
        )
    specs = sharding.state_partition_specs(shapes, mesh.size, config.training.sharding)
    train_step = make_train_step(model, optimizer, config, run_normalization(run), specs)
    return TrainProgram(model, optimizer, learning_rate, shapes, specs, train_step)
