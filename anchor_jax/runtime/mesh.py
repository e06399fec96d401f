"""Devices: a mesh with one data axis, arrays on it, and the mapping of a step written for one device over all."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.runtime import backends

AXIS = "data"  # the name a step gives to `lax.pmean` and its like
SHARDED = PartitionSpec(AXIS)  # the first axis is divided over the devices
REPLICATED = PartitionSpec()  # every device holds all of it

Tree = TypeVar("Tree")


def mesh(num_devices: int | None = None) -> Mesh:
    """One axis over the first `num_devices` devices, over all by default; those of one process side by side."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if num_devices is not None and not 1 <= checks.integer("num_devices", num_devices) <= len(devices):
        raise UserError(f"num_devices must lie in 1..{len(devices)}, the devices that JAX sees; got {num_devices}")
    return Mesh(np.array(devices[:num_devices]), (AXIS,))


def pmapped(
    step: Callable[..., Any],
    mesh: Mesh,
    *,
    in_specs: Any,
    out_specs: Any,
    donate_argnums: tuple[int, ...] = (),
) -> Callable[..., Any]:
    """Map a function written for one device, with the axis `AXIS`, over the mesh, and compile it.

    It is what `jax.pmap` itself is since JAX 0.8, without the leading device axis: arrays keep their
    global shape, `in_specs` and `out_specs` (`SPLIT` or `SAME`, one an argument) say what is divided.
    """
    mapped = jax.shard_map(step, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    compiler_options = backends.compiler_options(platform_of(mesh))
    return jax.jit(mapped, donate_argnums=donate_argnums, compiler_options=compiler_options)


def run_n_steps(step: Callable[..., Tree], mesh: Mesh, carry_specs: Any = REPLICATED) -> Callable[..., Tree]:
    """Map `step(carry, *args) -> carry` over the mesh, to be run many times: `run(carry, num_steps, *args)`.

    Every device holds all of `args` and, if `carry_specs` say nothing else, of `carry`, which is donated. However many
    steps are asked for, they are compiled once; the host waits for none of them.
    """
    if backends.has_fast_device_loops(platform_of(mesh)):

        @wraps(step)
        def steps(carry, num_steps, args):
            return jax.lax.fori_loop(0, num_steps, lambda _, carry: step(carry, *args), carry)

        all_steps = pmapped(
            steps, mesh, in_specs=(carry_specs, REPLICATED, REPLICATED), out_specs=carry_specs, donate_argnums=(0,)
        )
        return lambda carry, num_steps, *args: all_steps(carry, num_steps, args)

    @wraps(step)  # its name is seen in a trace
    def one(carry, args):
        return step(carry, *args)

    one_step = pmapped(one, mesh, in_specs=(carry_specs, REPLICATED), out_specs=carry_specs, donate_argnums=(0,))

    def run(carry, num_steps, *args):
        for _ in range(num_steps):
            carry = one_step(carry, args)
        return carry

    return run


def platform_of(mesh: Mesh) -> str:
    """The platform of a mesh: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays that every device of the mesh holds in full."""
    return NamedSharding(mesh, REPLICATED)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The arrays of a tree in full on every device of the mesh; of several processes each gives the same."""
    return jax.tree.map(lambda array: _placed(array, replicated_sharding(mesh)), tree)


def shard_batch(array: Any, mesh: Mesh) -> jax.Array:
    """An array with its first axis divided over the devices of the mesh; of several processes each gives all of it."""
    return _placed(array, NamedSharding(mesh, SHARDED))


def make_global_batch(tree: Any, mesh: Mesh) -> Any:
    """As `divided`, where each process gives an equal part of the arrays: process 0 their beginning, and so on."""
    sharding = NamedSharding(mesh, SHARDED)
    return jax.tree.map(lambda part: jax.make_array_from_process_local_data(sharding, part), tree)


def device_get_global(tree: Any) -> Any:
    """The arrays of a tree as NumPy arrays, in full on each process; all of them must ask."""
    leaves, structure = jax.tree.flatten(tree)
    is_divided = [not (_is_here(leaf) or leaf.is_fully_replicated) for leaf in leaves]
    if any(is_divided):
        parts = [leaf for leaf, divided in zip(leaves, is_divided, strict=True) if divided]
        whole = iter(jax.jit(_same, out_shardings=replicated_sharding(parts[0].sharding.mesh))(parts))
        leaves = [next(whole) if divided else leaf for leaf, divided in zip(leaves, is_divided, strict=True)]
    return jax.device_get(jax.tree.unflatten(structure, leaves))


def _placed(array, sharding):
    if sharding.is_fully_addressable or not _is_here(array):
        return jax.device_put(array, sharding)
    # `device_put` would send it to all other processes, to see that it is the same there
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _is_here(array):
    """Whether this process holds all of an array."""
    return not isinstance(array, jax.Array) or array.is_fully_addressable


def _same(arrays):
    return arrays


def replicated_shapes(tree: Any, mesh: Mesh) -> Any:
    """What `replicated` would make of arrays of these shapes, without the arrays."""
    return state_shapes(tree, None, mesh)


def place_state(tree: Tree, specs: Tree | None, mesh: Mesh) -> Tree:
    """The arrays of a tree on the devices of the mesh, each divided as its spec says; in full where there are none."""
    if specs is None:
        return replicate(tree, mesh)
    return jax.tree.map(lambda array, spec: _placed(array, NamedSharding(mesh, spec)), tree, specs)


def state_shapes(tree: Tree, specs: Tree | None, mesh: Mesh) -> Tree:
    """What `placed` would make of arrays of these shapes, without the arrays."""
    specs = jax.tree.map(lambda _: REPLICATED, tree) if specs is None else specs
    return jax.tree.map(
        lambda array, spec: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=NamedSharding(mesh, spec)),
        tree,
        specs,
    )


def local_shard(tree: Tree, axis_name: str = AXIS) -> Tree:
    """Inside a mapped step: this device's equal share of arrays that every device holds in full."""

    def part(array):
        shares = array.reshape(jax.lax.axis_size(axis_name), -1, *array.shape[1:])
        return shares[jax.lax.axis_index(axis_name)]

    return jax.tree.map(part, tree)
