"""A step written for one device, mapped over all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax import UserError
from anchor_jax.runtime import backends
from anchor_jax.runtime import mesh as mesh_lib

pytestmark = pytest.mark.min_versions


def test_eight_devices_are_there():
    assert mesh_lib.mesh().size == len(jax.devices()) == 8


@pytest.mark.parametrize("num_devices", [0, 9])
def test_more_devices_than_there_are_is_told(num_devices):
    with pytest.raises(UserError, match=rf"num_devices must lie in 1..8, .*got {num_devices}"):
        mesh_lib.mesh(num_devices)


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_own_parts_make_up_the_whole_in_order(num_devices):
    whole = {"a": jnp.arange(16), "b": jnp.arange(32).reshape(16, 2)}
    mesh = mesh_lib.mesh(num_devices)
    parts = mesh_lib.pmapped(mesh_lib.local_shard, mesh, in_specs=mesh_lib.REPLICATED, out_specs=mesh_lib.SHARDED)(
        whole
    )
    jax.tree.map(np.testing.assert_array_equal, parts, whole)


def test_mapped_step_reduces_over_devices():
    def step(x):
        return jax.lax.pmean(jnp.sum(x), mesh_lib.AXIS)

    mapped = mesh_lib.pmapped(step, mesh_lib.mesh(8), in_specs=mesh_lib.SHARDED, out_specs=mesh_lib.REPLICATED)
    assert mapped(jnp.arange(16.0)) == np.arange(16).sum() / 8


@pytest.mark.parametrize("loops", [True, False])
def test_repeated_steps_are_compiled_once_and_donate_their_carry(monkeypatch, loops):
    monkeypatch.setattr(backends, "loops_on_device", lambda platform: loops)
    traces = []

    def step(carry, increment):
        traces.append(1)
        return carry + increment

    mesh = mesh_lib.mesh(2)
    run = mesh_lib.run_n_steps(step, mesh)
    carry, increment = mesh_lib.replicate((jnp.zeros(3), jnp.ones(3)), mesh)
    after = run(carry, 3, increment)
    assert carry.is_deleted()
    assert not increment.is_deleted()
    before = len(traces)
    np.testing.assert_array_equal(run(after, 4, increment), np.full(3, 7.0))
    assert len(traces) == before
