"""Devices as a mesh with one data axis: arrays on it, and steps mapped over it.

The examples use one device; `mesh()` uses all of them.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.runtime import backends, placement
from anchor_jax.runtime.settings import outside_mesh

AXIS = "data"  # the axis name for `jax.lax.pmean` and other collectives
SHARDED = PartitionSpec(AXIS)  # the first axis of an array is sharded over the devices
REPLICATED = PartitionSpec()  # every device holds the complete array

AxisName = str | tuple[str, ...]  # a mapped axis, or several, the outermost first
Tree = TypeVar("Tree")


def mesh(num_devices: int | None = None) -> Mesh:
    """Return a mesh with the single axis `AXIS`; the devices of a process are adjacent.

    >>> import anchor_jax as aj
    >>> aj.parallel.mesh(1).size
    1

    Args:
      num_devices: use only the first devices; all by default.

    Raises:
      UserTypeError: `num_devices` is not an integer.
      UserError: `num_devices` is below 1 or above the number of devices.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if num_devices is not None and not 1 <= checks.integer("num_devices", num_devices) <= len(devices):
        raise UserError(f"num_devices must lie in 1..{len(devices)}, the number of devices; got {num_devices}")
    return Mesh(np.array(devices[:num_devices]), (AXIS,))


def pmapped(
    step: Callable[..., Any],
    mesh: Mesh,
    *,
    in_specs: Any,
    out_specs: Any,
    donate_argnums: tuple[int, ...] = (),
) -> Callable[..., Any]:
    """Map a function written for one device over the mesh, and compile it.

    This is `jax.jit(jax.shard_map(...))`, which is also how `jax.pmap` works since JAX 0.8. Unlike `jax.pmap`, arrays
    keep their global shape, without a leading device axis. On several devices of a CPU, a call waits for its results,
    see `one_at_a_time`.

    >>> import anchor_jax as aj
    >>> import jax, jax.numpy as jnp
    >>> def mean(x):  # runs on each device, with its shard of `x`
    ...     return jax.lax.pmean(jnp.mean(x), aj.parallel.AXIS)
    >>> mapped = aj.parallel.pmapped(
    ...     mean, aj.parallel.mesh(1), in_specs=aj.parallel.SHARDED, out_specs=aj.parallel.REPLICATED
    ... )
    >>> float(mapped(jnp.arange(4.0)))
    1.5

    Args:
      step: the function; its collectives use the axis name `AXIS`.
      mesh: the devices, see `mesh`.
      in_specs: `SHARDED` or `REPLICATED` for each argument, or a tree of such specs.
      out_specs: the same for the results.
      donate_argnums: arguments whose memory the results may reuse.
    """
    mapped = jax.shard_map(step, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    compiler_options = backends.compiler_options(platform_of(mesh))
    compiled = jax.jit(mapped, donate_argnums=donate_argnums, compiler_options=compiler_options)
    return one_at_a_time(_OutsideMesh(compiled), mesh)


def one_at_a_time(program: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Make calls of a compiled function wait for their results, if the mesh has several devices of a CPU.

    These devices share a few threads, and each holds one while it waits for the others in a collective. Several
    programs at once can take all threads, even if each needs the results of the previous one; XLA ends the process
    after 40 seconds of this. On any other mesh, returns the function as it is.

    >>> import anchor_jax as aj
    >>> import jax, jax.numpy as jnp
    >>> int(aj.parallel.one_at_a_time(jax.jit(jnp.sum), aj.parallel.mesh(1))(jnp.arange(4)))
    6
    """
    return _OneAtATime(program) if platform_of(mesh) == "cpu" and mesh.size > 1 else program


class _CompiledWrapper:
    def __init__(self, program: Callable[..., Any]):
        self._program = program

    def __getattr__(self, name: str):  # `lower` and other attributes of compiled functions
        return getattr(self._program, name)


class _OutsideMesh(_CompiledWrapper):
    def __call__(self, *args):
        with outside_mesh():
            return self._program(*args)


class _OneAtATime(_CompiledWrapper):
    def __call__(self, *args):
        return jax.block_until_ready(self._program(*args))


class NSteps(NamedTuple):
    """`run(carry, num_steps, *args) -> carry`, see `run_n_steps`; `trace` is that of `jax.jit`."""

    run: Callable[..., Any]
    trace: Callable[..., Any]

    def __call__(self, carry: Any, num_steps: Any, *args: Any) -> Any:
        """Return the carry after `num_steps` steps."""
        return self.run(carry, num_steps, *args)


def run_n_steps(step: Callable[..., Any], mesh: Mesh, carry_specs: Any = REPLICATED) -> NSteps:
    """Map `step(carry, *args) -> carry` over the mesh and return `run(carry, num_steps, *args) -> carry`.

    The steps are compiled once, whatever `num_steps` is. On accelerators they run in one device-side loop, for which
    the host does not wait; on CPU the host dispatches them one by one, which is faster there, and waits for each if
    there are several devices (see `one_at_a_time`).

    >>> import anchor_jax as aj
    >>> import jax.numpy as jnp
    >>> mesh = aj.parallel.mesh(1)
    >>> run = aj.parallel.run_n_steps(lambda carry, increment: carry + increment, mesh)
    >>> carry, increment = aj.parallel.replicate((jnp.float32(0), jnp.float32(2)), mesh)
    >>> float(run(carry, 5, increment))
    10.0

    Args:
      step: one step, written for one device.
      mesh: the devices.
      carry_specs: how `carry` is sharded, see `pmapped`; replicated by default. All of `args` are replicated.

    Returns:
      `run(carry, num_steps, *args)`, which donates `carry`.
    """
    if backends.has_fast_device_loops(platform_of(mesh)):

        @wraps(step)
        def steps(carry, num_steps, args):
            return jax.lax.fori_loop(0, num_steps, lambda _, carry: step(carry, *args), carry)

        all_steps: Any = pmapped(
            steps, mesh, in_specs=(carry_specs, REPLICATED, REPLICATED), out_specs=carry_specs, donate_argnums=(0,)
        )
        return NSteps(
            lambda carry, num_steps, *args: all_steps(carry, num_steps, args),
            lambda carry, num_steps, *args: all_steps.trace(carry, num_steps, args),
        )

    @wraps(step)  # profiles show the name of the step
    def one(carry, args):
        return step(carry, *args)

    one_step: Any = pmapped(one, mesh, in_specs=(carry_specs, REPLICATED), out_specs=carry_specs, donate_argnums=(0,))

    def run(carry, num_steps, *args):
        for _ in range(num_steps):
            carry = one_step(carry, args)
        return carry

    return NSteps(run, lambda carry, _, *args: one_step.trace(carry, args))


def platform_of(mesh: Mesh) -> str:
    """Return the platform of a mesh: "cpu", "gpu" or "tpu".

    >>> import anchor_jax as aj
    >>> aj.parallel.platform_of(aj.parallel.mesh(1)) in ("cpu", "gpu", "tpu")
    True
    """
    return mesh.devices.flat[0].platform


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays that every device holds completely.

    >>> import anchor_jax as aj
    >>> aj.parallel.replicated_sharding(aj.parallel.mesh(1)).is_fully_replicated
    True
    """
    return NamedSharding(mesh, REPLICATED)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copy the arrays of a tree to every device of the mesh.

    >>> import anchor_jax as aj
    >>> import numpy as np
    >>> weights = aj.parallel.replicate({"kernel": np.ones((3, 2))}, aj.parallel.mesh(1))
    >>> weights["kernel"].is_fully_replicated
    True

    Args:
      tree: arrays of any shape; with multiple processes, the same on each.
      mesh: the devices.
    """
    return placement.place_each(tree, jax.tree.map(lambda _: replicated_sharding(mesh), tree))


def shard_batch(array: Any, mesh: Mesh) -> jax.Array:
    """Shard the first axis of an array over the devices of the mesh.

    >>> import anchor_jax as aj
    >>> import numpy as np
    >>> images = aj.parallel.shard_batch(np.zeros((8, 32, 32, 3)), aj.parallel.mesh(1))
    >>> images.sharding.shard_shape(images.shape)  # per device
    (8, 32, 32, 3)

    Args:
      array: `[B, ...]`, where B is divisible by the number of devices; with multiple processes, the complete array on
        each.
      mesh: the devices.
    """
    return placement.place(array, NamedSharding(mesh, SHARDED))


def make_global_batch(tree: Any, mesh: Mesh) -> Any:
    """Same as `shard_batch` for a tree, where each process passes only its own part of the batch.

    >>> import anchor_jax as aj
    >>> import numpy as np
    >>> batch = {"images": np.zeros((8, 32, 32, 3)), "labels": np.arange(8)}
    >>> aj.parallel.make_global_batch(batch, aj.parallel.mesh(1))["labels"].shape  # with one process
    (8,)

    Args:
      tree: arrays `[B / processes, ...]`: rows of the global batch in the order of the processes.
      mesh: the devices of all processes.

    Returns:
      Arrays `[B, ...]`.
    """
    sharding = NamedSharding(mesh, SHARDED)
    return jax.tree.map(lambda part: jax.make_array_from_process_local_data(sharding, part), tree)


def device_get_global(tree: Any) -> Any:
    """Same as `jax.device_get`, also for arrays that are sharded over multiple processes; all of them must call it.

    >>> import anchor_jax as aj
    >>> import numpy as np
    >>> aj.parallel.device_get_global(aj.parallel.shard_batch(np.arange(4, dtype=np.int32), aj.parallel.mesh(1)))
    array([0, 1, 2, 3], dtype=int32)

    Args:
      tree: arrays of any shape and sharding.

    Returns:
      Complete NumPy arrays, on every process.
    """
    leaves, structure = jax.tree.flatten(tree)
    targets = {
        index: replicated_sharding(leaf.sharding.mesh)
        for index, leaf in enumerate(leaves)
        if not (placement.is_addressable(leaf) or leaf.is_fully_replicated)
    }
    return jax.device_get(structure.unflatten(placement.reshard(leaves, targets)))


def place_state(tree: Tree, specs: Tree | None, mesh: Mesh) -> Tree:
    """Place the arrays of a tree on the mesh, each sharded as its spec says.

    >>> import anchor_jax as aj
    >>> import numpy as np
    >>> specs = {"kernel": aj.parallel.SHARDED, "bias": aj.parallel.REPLICATED}
    >>> state = aj.parallel.place_state({"kernel": np.ones((8, 2)), "bias": np.ones(2)}, specs, aj.parallel.mesh(1))
    >>> state["kernel"].sharding.shard_shape((8, 2))  # per device
    (8, 2)

    Args:
      tree: arrays of any shape; with multiple processes, the same complete arrays on each.
      specs: a `PartitionSpec` for each array; None replicates all of them.
      mesh: the devices.
    """
    if specs is None:
        return replicate(tree, mesh)
    return placement.place_each(tree, jax.tree.map(lambda _, spec: NamedSharding(mesh, spec), tree, specs))


def state_shapes(tree: Tree, specs: Tree | None, mesh: Mesh) -> Tree:
    """Return the `jax.ShapeDtypeStruct` of each array that `place_state` would return, with its sharding.

    >>> import anchor_jax as aj
    >>> import jax.numpy as jnp
    >>> aj.parallel.state_shapes(jnp.ones((8, 2)), aj.parallel.SHARDED, aj.parallel.mesh(1)).shape
    (8, 2)

    Args:
      tree: arrays or `jax.ShapeDtypeStruct`.
      specs: see `place_state`.
      mesh: the devices.
    """
    specs = jax.tree.map(lambda _: REPLICATED, tree) if specs is None else specs
    return jax.tree.map(
        lambda array, spec: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=NamedSharding(mesh, spec)),
        tree,
        specs,
    )


def replicated_shapes(tree: Any, mesh: Mesh) -> Any:
    """Return the `jax.ShapeDtypeStruct` of each array that `replicate` would return.

    >>> import anchor_jax as aj
    >>> import jax.numpy as jnp
    >>> aj.parallel.replicated_shapes(jnp.ones((8, 2)), aj.parallel.mesh(1)).shape
    (8, 2)

    Args:
      tree: arrays or `jax.ShapeDtypeStruct`.
      mesh: the devices.
    """
    return state_shapes(tree, None, mesh)


def local_shard(tree: Tree, axis_name: AxisName = AXIS) -> Tree:
    """Inside a mapped step, return this device's shard of replicated arrays.

    >>> import anchor_jax as aj
    >>> import jax.numpy as jnp
    >>> specs = {"in_specs": aj.parallel.REPLICATED, "out_specs": aj.parallel.SHARDED}
    >>> aj.parallel.pmapped(aj.parallel.local_shard, aj.parallel.mesh(1), **specs)(jnp.arange(4)).tolist()
    [0, 1, 2, 3]

    Args:
      tree: arrays `[B, ...]`, where B is divisible by the number of devices.
      axis_name: the mapped axis; or several, the outermost first.

    Returns:
      Arrays `[B / devices, ...]`.
    """

    def shard(array):
        shards = array.reshape(jax.lax.axis_size(axis_name), -1, *array.shape[1:])
        return shards[jax.lax.axis_index(axis_name)]

    return jax.tree.map(shard, tree)


# Names of version 0.1, still importable.
_OLD_NAMES = {
    "SAME": "REPLICATED",
    "SPLIT": "SHARDED",
    "divided": "shard_batch",
    "everywhere": "replicated_sharding",
    "fetched": "device_get_global",
    "from_parts": "make_global_batch",
    "own_part": "local_shard",
    "placed": "place_state",
    "placed_shapes": "state_shapes",
    "repeated": "run_n_steps",
    "replicated": "replicate",
}


def __getattr__(name: str) -> Any:
    if name in _OLD_NAMES:
        return globals()[_OLD_NAMES[name]]
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
