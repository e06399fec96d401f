"""Steps mapped over a mesh of devices, and the placement of arrays on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits

from anchor_jax import UserError
from anchor_jax.runtime import backends
from anchor_jax.runtime import mesh as mesh_lib

pytestmark = pytest.mark.min_versions


def test_mesh_has_all_devices():
    assert mesh_lib.mesh().size == len(jax.devices()) == 8


@pytest.mark.parametrize("num_devices", [0, 9])
def test_mesh_of_too_many_devices_raises(num_devices):
    with pytest.raises(UserError, match=rf"num_devices must lie in 1..8, .*got {num_devices}"):
        mesh_lib.mesh(num_devices)


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_local_shard_returns_the_shards_in_order(num_devices):
    tree = {"a": jnp.arange(16), "b": jnp.arange(32).reshape(16, 2)}
    specs = {"in_specs": mesh_lib.REPLICATED, "out_specs": mesh_lib.SHARDED}
    shards = mesh_lib.pmapped(mesh_lib.local_shard, mesh_lib.mesh(num_devices), **specs)(tree)
    jax.tree.map(np.testing.assert_array_equal, shards, tree)


def test_pmapped_step_reduces_over_devices():
    def step(x):
        return jax.lax.pmean(jnp.sum(x), mesh_lib.AXIS)

    mapped = mesh_lib.pmapped(step, mesh_lib.mesh(8), in_specs=mesh_lib.SHARDED, out_specs=mesh_lib.REPLICATED)
    assert mapped(jnp.arange(16.0)) == np.arange(16).sum() / 8


@pytest.mark.parametrize("loops", [True, False])
def test_run_n_steps_compiles_once_and_donates_the_carry(monkeypatch, loops):
    monkeypatch.setattr(backends, "has_fast_device_loops", lambda platform: loops)
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


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_placed_arrays_are_fetched_complete(num_devices):
    mesh = mesh_lib.mesh(num_devices)
    tree = {"a": np.arange(16), "b": np.arange(32.0, dtype=np.float32).reshape(16, 2)}
    for placed in (mesh_lib.replicate(tree, mesh), mesh_lib.make_global_batch(tree, mesh)):
        assert_same_bits(mesh_lib.device_get_global(placed), tree)
    sharded = mesh_lib.shard_batch(tree["b"], mesh)
    assert sharded.addressable_shards[0].data.shape == (16 // num_devices, 2)
    np.testing.assert_array_equal(mesh_lib.device_get_global(sharded), tree["b"])


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_one_at_a_time_waits_on_several_cpu_devices(num_devices):
    mesh, waited = mesh_lib.mesh(num_devices), []

    class Result:
        def block_until_ready(self):
            waited.append(self)

    mesh_lib.one_at_a_time(Result, mesh)()
    assert len(waited) == (num_devices > 1)


def test_replicate_gathers_all_arrays_in_one_program(caplog):
    mesh = mesh_lib.mesh(4)
    tree = {"a": np.arange(28), "b": np.arange(36.0, dtype=np.float32).reshape(4, 9), "c": np.arange(3)}
    specs = {"a": mesh_lib.SHARDED, "b": mesh_lib.SHARDED, "c": mesh_lib.REPLICATED}
    sharded = mesh_lib.place_state(tree, specs, mesh)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        replicated = mesh_lib.replicate(sharded, mesh)
    assert sum("Compiling" in record.getMessage() for record in caplog.records) == 1
    assert all(array.is_fully_replicated for array in replicated.values())
    assert_same_bits(replicated, tree)


def test_state_shapes_are_those_of_the_placed_state():
    mesh = mesh_lib.mesh(4)
    tree = {"kernel": np.ones((8, 3)), "bias": np.ones(3, np.float32)}
    specs = {"kernel": mesh_lib.SHARDED, "bias": mesh_lib.REPLICATED}
    for given in (specs, None):
        placed, shapes = mesh_lib.place_state(tree, given, mesh), mesh_lib.state_shapes(tree, given, mesh)
        assert {name: (a.shape, a.sharding) for name, a in placed.items()} == {
            name: (a.shape, a.sharding) for name, a in shapes.items()
        }


def test_names_of_version_0_1_are_importable():
    from anchor_jax.parallel import SAME, SPLIT, fetched, repeated

    from anchor_jax import parallel

    assert parallel is mesh_lib
    assert (SPLIT, SAME) == (mesh_lib.SHARDED, mesh_lib.REPLICATED)
    assert (fetched, repeated) == (mesh_lib.device_get_global, mesh_lib.run_n_steps)
    for old, new in mesh_lib._OLD_NAMES.items():
        assert getattr(mesh_lib, old) is getattr(mesh_lib, new)
    with pytest.raises(AttributeError, match=r"module 'anchor_jax.runtime.mesh' has no attribute 'nothing'"):
        _ = mesh_lib.nothing
