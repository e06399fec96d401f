"""Models in training: rematerialization, and steps on one and on several devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import BATCH, NUM_CLASSES, ONE_PER_FAMILY, TINY_VIT, assert_close, tiny_model

from anchor_jax import models
from anchor_jax.data import Normalization
from anchor_jax.runs import state
from anchor_jax.runs.load import create_model
from anchor_jax.runs.state import Totals
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training.loop import prepare
from anchor_jax.training.model_batch import TrainData
from anchor_jax.training.step import make_in_memory_step, make_train_step


def test_remat_applies_only_to_the_model_in_training(tiny, tmp_path):
    tiny.model.remat = True
    training = prepare(tiny, tmp_path / "run")
    assert training.model.remat
    assert not create_model(training.run).remat


def test_remat_needs_less_memory():
    """XLA's memory plan for the gradient of a deep ViT; evaluation is the same program."""
    plain, remat = (
        models.create("vit_b16", NUM_CLASSES, remat=remat, **TINY_VIT | {"depth": 5}) for remat in (False, True)
    )
    inputs = jax.ShapeDtypeStruct((BATCH, 16, 16, 6), jnp.float32)
    variables = jax.eval_shape(plain.init, jax.random.key(0), inputs)
    # XLA on CPU removes the barriers between the two computations, and merges them
    disabled_passes = {"xla_disable_hlo_passes": "cse_barrier_expander,optimization-barrier-expander,cse"}

    def planned_bytes(model):
        gradient = jax.jit(jax.grad(lambda variables, inputs: jnp.sum(model.apply(variables, inputs, train=True))))
        compiled = gradient.lower(variables, inputs).compile(compiler_options=disabled_passes)
        return compiled.memory_analysis().temp_size_in_bytes

    assert planned_bytes(remat) < 0.5 * planned_bytes(plain)
    evaluations = [str(jax.make_jaxpr(model.apply)(variables, inputs)) for model in (plain, remat)]
    assert evaluations[0] == evaluations[1]


@pytest.mark.parametrize("case", ONE_PER_FAMILY.values())
def test_train_step_is_the_same_on_two_devices_with_remat(tiny, case):
    model = tiny_model(case)
    tiny.augmentation.crop_padding, tiny.augmentation.flip = 0, False
    create = partial(models.create, model.name, NUM_CLASSES, axis_name=mesh_lib.AXIS, **model.options)
    optimizer = optax.sgd(0.1)
    rng, batch_size = np.random.default_rng(4), tiny.training.batch_size
    images = rng.integers(0, 256, (batch_size, model.side, model.side, 3), np.uint8)
    rows = np.arange(batch_size, dtype=np.int32)
    data = TrainData(images, rng.integers(0, NUM_CLASSES, batch_size, np.int32), bank_images=images)
    variables = {"batch_stats": {}} | model.initial_variables
    before = jax.device_get((state.initial_state(variables, optimizer, averages=False), Totals.zeros()))
    after = []
    for num_devices, remat in ((1, False), (2, True)):
        mesh = mesh_lib.mesh(num_devices)
        step = make_train_step(create(remat=remat), optimizer, tiny, Normalization((0.5,) * 3, (0.25,) * 3))
        step = make_in_memory_step(step, batch_size)
        carry, replicated_data = mesh_lib.replicate((before, data), mesh)
        after.append(jax.device_get(mesh_lib.run_n_steps(step, mesh)(carry, 1, replicated_data, rows)))
    assert_close(after[1], after[0], rtol=2e-4, atol=2e-5)
    moved = jax.tree.map(lambda old, new: (old != new).any(), before[0].params, after[0][0].params)
    assert all(jax.tree.leaves(moved))
