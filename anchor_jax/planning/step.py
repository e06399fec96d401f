"""The training step of a config, built as `train` builds it, on shapes instead of data."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from anchor_jax import config as config_lib
from anchor_jax.config import Config
from anchor_jax.core.errors import UserError
from anchor_jax.data import Batch
from anchor_jax.data.augmentation.mixing_images import mixing_images_shape
from anchor_jax.data.bank import check_size
from anchor_jax.data.image_table import ImageTable
from anchor_jax.data.train_stream import check_streams
from anchor_jax.planning.facts import DataFacts
from anchor_jax.runs.record import Run
from anchor_jax.runs.state import Carry, TrainState
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training.choices import choose
from anchor_jax.training.device_loop import in_memory_program, stream_program
from anchor_jax.training.model_batch import TrainData
from anchor_jax.training.program import TrainProgram, build_program
from anchor_jax.training.schedule import TrainingSchedule, make_schedule
from anchor_jax.training.source import check_bank_of_stream, uses_bank
from anchor_jax.training.trainer import init_state


class PlannedStep(NamedTuple):
    """A training step that is ready to be traced and compiled.

    Attributes:
      schedule: length of the run.
      program: the step.
      carry: shapes of state and totals.
      data: shapes of what the devices hold besides.
      batch: shapes of a batch of a stream; None if the training set is on the devices.
      order: shape of the order of an epoch; None for a stream.
      trace: returns the traced program, a `jax.stages.Traced`.
      init: returns the state before the first step; for use inside `jax.jit`.
    """

    schedule: TrainingSchedule
    program: TrainProgram
    carry: Carry
    data: TrainData
    batch: Batch | None
    order: jax.ShapeDtypeStruct | None
    trace: Callable[[], Any]
    init: Callable[[], TrainState]


def plan_step(config: Config, facts: DataFacts, mesh: Mesh) -> PlannedStep:
    """Build the training step of a config for the devices of a mesh.

    Args:
      config: of the run.
      facts: size of the training set.
      mesh: the devices; they need not be there.

    Raises:
      UserError: the config is invalid, or does not fit the devices.
    """
    config, schedule = checked(config, facts, mesh.size)
    labels = tuple(map(str, range(facts.num_classes)))
    run = Run(Path(), config, labels, facts.image_shape, "", None, None)
    program = build_program(run, schedule, mesh)
    carry, data = program.carry_shapes(mesh), _train_data(config, facts, mesh)
    init = partial(init_state, run, program.model, program.optimizer)
    if not config.data.streaming:
        steps = in_memory_program(program.train_step, config, mesh, program.carry_specs)
        num_steps, order = mesh_lib.replicated_shapes(
            (jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((facts.num_examples,), jnp.int32)), mesh
        )
        trace = partial(steps.trace, carry, num_steps, data, order)
        return PlannedStep(schedule, program, carry, data, None, order, trace, init)
    step: Any = stream_program(program.train_step, mesh, program.carry_specs)
    batch_size = config.training.batch_size
    images: Any = jax.ShapeDtypeStruct((batch_size, *facts.image_shape), np.uint8)
    labels: Any = jax.ShapeDtypeStruct((batch_size,), np.int32)
    specs: Any = Batch(mesh_lib.SHARDED, mesh_lib.SHARDED)  # pyright: ignore[reportArgumentType]
    batch = mesh_lib.state_shapes(Batch(images, labels), specs, mesh)
    return PlannedStep(schedule, program, carry, data, batch, None, partial(step.trace, carry, data, batch), init)


def checked(config: Config, facts: DataFacts, num_devices: int) -> tuple[Config, TrainingSchedule]:
    """Return the config as a run records it, and the length of the run.

    Raises:
      UserError: the config is invalid, or does not fit the devices.
    """
    config_lib.validate(config)
    if not config.training.total_epochs:
        raise UserError("config.training.total_epochs=0 trains nothing, so that there is nothing to plan; increase it")
    config = choose(config_lib.with_plain_values(config)).config
    num_channels = facts.image_shape[-1]  # mean and deviation: some where training would measure them
    config.data.mean = config.data.mean or (0.5,) * num_channels
    config.data.std = config.data.std or (0.25,) * num_channels
    return config, make_schedule(config, facts.num_examples, num_devices)


def _train_data(config: Config, facts: DataFacts, mesh: Mesh) -> TrainData:
    """Return the shapes of what the devices hold besides the state, as `TrainSource.train_data` places it."""

    def images(num: int, shape: tuple[int, ...] = facts.image_shape) -> Any:
        return jax.eval_shape(ImageTable.of, jax.ShapeDtypeStruct((num, *shape), np.uint8))

    bank_size = config.anchoring.bank_size or facts.num_examples
    in_memory, mixing = not config.data.streaming, None
    if config.data.streaming:
        check_streams(config.data)
    if uses_bank(config):
        check_size(bank_size, facts.num_examples)
        if config.data.streaming:
            check_bank_of_stream(config)
    labels: Any = jax.ShapeDtypeStruct((facts.num_examples,), np.int32)
    if config.augmentation.policy == "pixmix":
        *sides, channels = facts.image_shape
        mixing = images(*mixing_images_shape(max(sides), channels))
    return mesh_lib.replicated_shapes(
        TrainData(
            images=images(facts.num_examples) if in_memory else None,
            labels=labels if in_memory else None,
            bank_images=images(bank_size) if uses_bank(config) else None,
            mixing_images=mixing,
        ),
        mesh,
    )
