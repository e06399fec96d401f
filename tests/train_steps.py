"""Training steps of small networks on random images, and their programs."""

from typing import NamedTuple

import jax
import numpy as np
import optax

from anchor_jax import models
from anchor_jax.data import Normalization
from anchor_jax.runs import state
from anchor_jax.runs.state import Totals
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training import optimizer, sharding
from anchor_jax.training.model_batch import TrainData
from anchor_jax.training.step import make_in_memory_step, make_train_step

CLASSES = 3
NORMALIZATION = Normalization((0.5,), (0.25,))


class Steps(NamedTuple):
    """States on the host before the first step and after each one, the totals of all, and the last state on devices."""

    states: list[state.TrainState]
    totals: Totals
    on_devices: state.TrainState


def run_steps(config, num_steps, num_devices=1, shift=0, model=None):
    """Train on random images, with their labels shifted; the model is that of the config unless it is given."""
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (48, 6, 6, 1), np.uint8), rng.integers(0, CLASSES, 48, np.int32)
    labels = (labels + shift) % CLASSES
    model = model or models.create(config.model.name, CLASSES, axis_name=mesh_lib.AXIS, **config.model.options)
    transformation = optimizer.create(config.optimizer, optimizer.create_schedule(config.optimizer, 3, 100))
    variables = state.init_variables(model, jax.random.key(0), (1, 6, 6, 2 if config.anchoring.enabled else 1))
    first = state.initial_state(variables, transformation, averages=config.training.ema_decay > 0)
    mesh = mesh_lib.mesh(num_devices)
    specs = sharding.state_partition_specs(first, num_devices, config.training.sharding)
    train_step = make_train_step(model, transformation, config, NORMALIZATION, specs)
    step = make_in_memory_step(train_step, config.training.batch_size)
    compiled = mesh_lib.run_n_steps(step, mesh, (specs or mesh_lib.REPLICATED, mesh_lib.REPLICATED))
    carry = mesh_lib.place_state(first, specs, mesh), mesh_lib.replicate(Totals.zeros(), mesh)
    data = mesh_lib.replicate(TrainData(images, labels, bank_images=images), mesh)
    states = [jax.device_get(carry[0])]
    for _ in range(num_steps):
        carry = compiled(carry, 1, data, np.arange(48, dtype=np.int32))
        states.append(jax.device_get(carry[0]))
    return Steps(states, jax.device_get(carry[1]), carry[0])


def lower_step(config, num_devices, model=None):
    """Lower the program of one step."""
    model = model or models.create(config.model.name, CLASSES, axis_name=mesh_lib.AXIS, **config.model.options)
    transformation = optax.sgd(0.1)
    is_anchored = config.anchoring.enabled
    input_shape = (1, 6, 6, 2 if is_anchored else 1)
    first = jax.eval_shape(lambda: state.create_state(model, transformation, jax.random.key(0), input_shape))
    specs = sharding.state_partition_specs(first, num_devices, config.training.sharding)
    step = make_in_memory_step(make_train_step(model, transformation, config, NORMALIZATION, specs), 16)
    carry_specs = (specs or mesh_lib.REPLICATED, mesh_lib.REPLICATED)
    in_specs = (carry_specs, mesh_lib.REPLICATED, mesh_lib.REPLICATED)
    mapped = mesh_lib.pmapped(step, mesh_lib.mesh(num_devices), in_specs=in_specs, out_specs=carry_specs)
    images = np.zeros((48, 6, 6, 1), np.uint8)
    data = TrainData(images, np.zeros(48, np.int32), bank_images=images if is_anchored else None)
    return mapped.lower((first, Totals.zeros()), data, np.arange(48, dtype=np.int32))
