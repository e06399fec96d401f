"""Devices and processes: a mesh with one data axis, the mapping of a step written for one device over all of them,
and what the processes of one run, maybe on many hosts, do together or leave to the first.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anchor_jax import backends
from anchor_jax.errors import UserError

AXIS = "data"  # the name a step gives to `lax.pmean` and its like
SPLIT = PartitionSpec(AXIS)  # the first axis is divided over the devices
SAME = PartitionSpec()  # every device holds all of it

LOST = (
    "another process of this run ended, or cannot be reached; start the same command again on all hosts, it goes on "
    "from the newest checkpoint"
)
FAILED = 1  # exit status of processes that end because another did

_PATIENCE_SECONDS = int(os.environ.get("ANCHOR_JAX_PATIENCE_SECONDS", 60))  # until a process that is silent is lost
_BEAT_SECONDS = 5.0  # between two signs of life
_ERROR_SECONDS = 10  # in which the others come to the same mistake, if it is theirs too
_JOIN_SECONDS = 300  # in which process 0 must have started
_MAX_WAIT_SECONDS = 7 * 24 * 3600  # of processes that are alive for one another

_is_over = threading.Event()

Tree = TypeVar("Tree")


def start(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Join the processes of one run; to be called before JAX looks for devices. One process alone has nothing to do.

    Without arguments they are what JAX finds for a cluster that it knows: on TPU, or where SLURM or Open MPI
    started several processes. Nothing else is looked for, least of all on a network.

    From then on every process watches the others: one that is silent for `ANCHOR_JAX_PATIENCE_SECONDS` (60) ends
    them all with one line and status 1.

    Args:
      coordinator: "host:port", of process 0.
      num_processes: of the run.
      process_id: 0 to `num_processes - 1`.

    Raises:
      UserError: the environment is that of several processes, but does not say how to join them, or they cannot.
    """
    if num_processes == 1 or (coordinator is None and not _is_in_cluster()):
        return
    if coordinator and process_id:
        _await(coordinator)
    on_termination = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            cluster_detection_method="deactivate" if coordinator else None,
            initialization_timeout=_JOIN_SECONDS,
            heartbeat_timeout_seconds=_PATIENCE_SECONDS + 60,  # JAX's own watch, which ends with a long log
        )
    except ValueError as error:
        if _has_tpu():  # of one host, of which no environment tells
            return
        raise UserError(
            f"several processes were started together, but JAX cannot join them ({error}); give --coordinator, "
            "--num_processes and --process_id"
        ) from error
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot join the other processes ({reason}); look at --coordinator and the network") from error
    signal.signal(signal.SIGTERM, on_termination)  # JAX only notes it, for those who ask; nobody does here
    if are_many():
        threading.Thread(target=_watch, args=(_barrier(),), daemon=True).start()


def are_many() -> bool:
    """Whether this is one of several processes; where JAX was told of none it does not look for devices."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the one process that writes and tells."""
    return not are_many() or jax.process_index() == 0


def together(name: str) -> None:
    """Wait until all processes have come to the point of this name."""
    if are_many():
        _barrier()(key=name, timeout_ms=_MAX_WAIT_SECONDS * 1000)


def by_first(action: Callable[[], object], name: str) -> None:
    """Let process 0 do something; none of the others is before it when it begins, all are after it when it is done."""
    together(f"before {name}")
    if is_first():
        action()
    together(f"after {name}")


def agreed(number: int) -> int:
    """The number that process 0 gives, on all of them."""
    if not are_many():
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def all_fail() -> bool:
    """Of a process that has failed: whether all others come here too, in a few seconds."""
    if not are_many():
        return True
    try:
        _barrier()(key="failed", timeout_ms=_ERROR_SECONDS * 1000)
    except RuntimeError:
        return False
    _is_over.set()
    return True


def finish() -> None:
    """Wait for all other processes at the end of a run; from here on none watches the others."""
    together("finished")
    _is_over.set()


def leave(status: int) -> NoReturn:
    """End this process at once, without regard to the others, which notice."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextlib.contextmanager
def traced(folder: Path):
    """A profile of what is done inside, of process 0, in a folder."""
    with jax.profiler.trace(str(folder)) if is_first() else contextlib.nullcontext():
        yield


def _is_in_cluster() -> bool:
    tasks = os.environ.get("SLURM_NTASKS", "1") if "SLURM_STEP_NODELIST" in os.environ else "1"
    return _has_tpu() or int(tasks) > 1 or int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1


def _has_tpu() -> bool:
    return os.environ.get("TPU_ML_PLATFORM") == "JAX"  # which JAX sets where it finds TPU chips


def _await(coordinator: str) -> None:
    """Wait until somebody listens there; JAX itself would give up with a long log instead of an exception."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + _JOIN_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"cannot reach process 0 at {coordinator} ({error}); start it too, look at --coordinator and at "
                    "whether its port is open"
                ) from error
        time.sleep(0.2)


def _barrier() -> Callable[..., None]:
    from orbax.checkpoint import multihost  # takes a second to import

    return multihost.get_barrier_sync_fn()  # by JAX's service of processes, without their devices


def _watch(barrier) -> None:
    """Signs of life to one another."""
    while not _is_over.wait(_BEAT_SECONDS):
        try:
            barrier(key="alive", timeout_ms=_PATIENCE_SECONDS * 1000)
        except RuntimeError:
            if not _is_over.is_set():
                print(f"error: {LOST}", file=sys.stderr)
                leave(FAILED)


def mesh(num_devices: int | None = None) -> Mesh:
    """One axis over the first `num_devices` devices, over all by default; those of one process side by side."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if num_devices is not None and not 1 <= num_devices <= len(devices):
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


def repeated(step: Callable[..., Tree], mesh: Mesh, carry_specs: Any = SAME) -> Callable[..., Tree]:
    """Map `step(carry, *args) -> carry` over the mesh, to be run many times: `run(carry, num_steps, *args)`.

    Every device holds all of `args` and, if `carry_specs` say nothing else, of `carry`, which is donated. However many
    steps are asked for, they are compiled once; the host waits for none of them.
    """
    if backends.loops_on_device(platform_of(mesh)):

        @wraps(step)
        def steps(carry, num_steps, args):
            return jax.lax.fori_loop(0, num_steps, lambda _, carry: step(carry, *args), carry)

        all_steps = pmapped(steps, mesh, in_specs=(carry_specs, SAME, SAME), out_specs=carry_specs, donate_argnums=(0,))
        return lambda carry, num_steps, *args: all_steps(carry, num_steps, args)

    @wraps(step)  # its name is seen in a trace
    def one(carry, args):
        return step(carry, *args)

    one_step = pmapped(one, mesh, in_specs=(carry_specs, SAME), out_specs=carry_specs, donate_argnums=(0,))

    def run(carry, num_steps, *args):
        for _ in range(num_steps):
            carry = one_step(carry, args)
        return carry

    return run


def platform_of(mesh: Mesh) -> str:
    """The platform of a mesh: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def everywhere(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays that every device of the mesh holds in full."""
    return NamedSharding(mesh, SAME)


def replicated(tree: Any, mesh: Mesh) -> Any:
    """The arrays of a tree in full on every device of the mesh; of several processes each gives the same."""
    return jax.tree.map(lambda array: _placed(array, everywhere(mesh)), tree)


def divided(array: Any, mesh: Mesh) -> jax.Array:
    """An array with its first axis divided over the devices of the mesh; of several processes each gives all of it."""
    return _placed(array, NamedSharding(mesh, SPLIT))


def from_parts(tree: Any, mesh: Mesh) -> Any:
    """As `divided`, where each process gives an equal part of the arrays: process 0 their beginning, and so on."""
    sharding = NamedSharding(mesh, SPLIT)
    return jax.tree.map(lambda part: jax.make_array_from_process_local_data(sharding, part), tree)


def fetched(tree: Any) -> Any:
    """The arrays of a tree as NumPy arrays, in full on each process; all of them must ask."""
    leaves, structure = jax.tree.flatten(tree)
    is_divided = [not (_is_here(leaf) or leaf.is_fully_replicated) for leaf in leaves]
    if any(is_divided):
        parts = [leaf for leaf, divided in zip(leaves, is_divided, strict=True) if divided]
        whole = iter(jax.jit(_same, out_shardings=everywhere(parts[0].sharding.mesh))(parts))
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
    return placed_shapes(tree, None, mesh)


def placed(tree: Tree, specs: Tree | None, mesh: Mesh) -> Tree:
    """The arrays of a tree on the devices of the mesh, each divided as its spec says; in full where there are none."""
    if specs is None:
        return replicated(tree, mesh)
    return jax.tree.map(lambda array, spec: _placed(array, NamedSharding(mesh, spec)), tree, specs)


def placed_shapes(tree: Tree, specs: Tree | None, mesh: Mesh) -> Tree:
    """What `placed` would make of arrays of these shapes, without the arrays."""
    specs = jax.tree.map(lambda _: SAME, tree) if specs is None else specs
    return jax.tree.map(
        lambda array, spec: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=NamedSharding(mesh, spec)),
        tree,
        specs,
    )


def own_part(tree: Tree, axis_name: str = AXIS) -> Tree:
    """Inside a mapped step: this device's equal share of arrays that every device holds in full."""

    def part(array):
        shares = array.reshape(jax.lax.axis_size(axis_name), -1, *array.shape[1:])
        return shares[jax.lax.axis_index(axis_name)]

    return jax.tree.map(part, tree)
