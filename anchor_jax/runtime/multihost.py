"""Runs of multiple processes, on one or more hosts: how they connect, synchronize and end together."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import jax
import numpy as np

from anchor_jax.core.errors import UserError

LOST_PROCESS = (
    "another process of this run ended or cannot be reached; start the same command again on all hosts to resume "
    "from the latest checkpoint"
)
FAILURE_STATUS = 1  # exit status of a process that ends because another one did

_HEARTBEAT_SECONDS = 5.0
_ERROR_SECONDS = 10  # how long to wait for the other processes to fail with the same error
_JOIN_SECONDS = 300  # how long to wait for process 0 to start
_MAX_WAIT_SECONDS = 7 * 24 * 3600  # how long processes that are alive wait for one another

_is_over = threading.Event()


def initialize(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Connect the processes of a run; call it before JAX initializes its devices. A single process needs no connection.

    Without arguments, JAX detects the cluster: a TPU pod, or several processes started by SLURM or Open MPI. Other
    environments, and the network, are not searched.

    Afterwards, every process monitors the others. If one of them is silent for `ANCHOR_JAX_PATIENCE_SECONDS` (60 by
    default), all end with a one-line error and status 1.

    Args:
      coordinator: "host:port" of process 0.
      num_processes: number of processes of the run.
      process_id: 0 to `num_processes - 1`.

    Raises:
      UserError: the environment says that there are several processes but not how to connect them, or they cannot
        connect.
    """
    if num_processes == 1 or (coordinator is None and not _is_in_cluster()):
        return
    if coordinator and process_id:
        _wait_for(coordinator)
    on_termination = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            cluster_detection_method="deactivate" if coordinator else None,
            initialization_timeout=_JOIN_SECONDS,
            heartbeat_timeout_seconds=_patience_seconds() + 60,  # JAX's own heartbeat fails with a long log
        )
    except ValueError as error:
        if _has_tpu():  # a single host, which no environment variable describes
            return
        raise UserError(
            f"several processes were started, but JAX cannot connect them ({error}); give --coordinator, "
            "--num_processes and --process_id"
        ) from error
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"cannot connect to the other processes ({reason}); check --coordinator and the network"
        ) from error
    signal.signal(signal.SIGTERM, on_termination)  # JAX's handler only records the signal, and nothing here reads that
    if is_multiprocess():
        threading.Thread(target=_watch, args=(_barrier(),), daemon=True).start()


def is_multiprocess() -> bool:
    """Return whether this is one of several processes; does not initialize devices if `initialize` was not called."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
    """Return whether this is process 0, the only one that writes files and prints."""
    return not is_multiprocess() or jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until all processes have reached the barrier of this name."""
    if is_multiprocess():
        _barrier()(key=name, timeout_ms=_MAX_WAIT_SECONDS * 1000)


def on_primary(action: Callable[[], object], name: str) -> None:
    """Run an action on process 0, between two barriers for all processes."""
    barrier(f"before {name}")
    if is_primary():
        action()
    barrier(f"after {name}")


def process_allgather(numbers: Sequence[int]) -> np.ndarray:
    """Return the numbers of every process, int32 `[processes, n]`, on all of them."""
    if not is_multiprocess():
        return np.asarray([numbers], np.int32)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(numbers, np.int32)))


def broadcast_from_primary(number: int) -> int:
    """Return the number that process 0 passes, on all processes."""
    return int(process_allgather([number])[0, 0])


def all_arrive(name: str) -> bool:
    """Return whether all processes reach the point of this name within a few seconds."""
    if not is_multiprocess():
        return True
    try:
        _barrier()(key=name, timeout_ms=_ERROR_SECONDS * 1000)
    except RuntimeError:
        return False
    return True


def all_fail() -> bool:
    """After an error in this process, return whether all others fail, too, within a few seconds."""
    if not all_arrive("failed"):
        return False
    _is_over.set()
    return True


def shutdown() -> None:
    """Wait for all processes at the end of a run, and stop monitoring them."""
    barrier("finished")
    _is_over.set()


def exit_now(status: int) -> NoReturn:
    """End this process immediately, without waiting for the others; they notice."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextlib.contextmanager
def profile_trace(folder: Path) -> Iterator[None]:
    """Write a profile of the block into a folder, from process 0 only."""
    with jax.profiler.trace(str(folder)) if is_primary() else contextlib.nullcontext():
        yield


def _is_in_cluster() -> bool:
    tasks = os.environ.get("SLURM_NTASKS", "1") if "SLURM_STEP_NODELIST" in os.environ else "1"
    return _has_tpu() or int(tasks) > 1 or int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1


def _has_tpu() -> bool:
    return os.environ.get("TPU_ML_PLATFORM") == "JAX"  # JAX sets it if it finds TPU chips


def _wait_for(coordinator: str) -> None:
    """Wait until process 0 accepts connections; JAX would fail with a long log instead of an exception."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + _JOIN_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"cannot reach process 0 at {coordinator} ({error}); start it, and check --coordinator and that "
                    "its port is open"
                ) from error
        time.sleep(0.2)


def _patience_seconds() -> int:
    """Return after how many seconds of silence a process counts as lost."""
    return int(os.environ.get("ANCHOR_JAX_PATIENCE_SECONDS", 60))


def _barrier() -> Callable[..., None]:
    from orbax.checkpoint import multihost  # takes a second to import

    return multihost.get_barrier_sync_fn()  # uses JAX's coordination service, not the devices


def _watch(barrier: Callable[..., None]) -> None:
    """Exchange heartbeats with all processes; end this process if one of them is lost."""
    while not _is_over.wait(_HEARTBEAT_SECONDS):
        try:
            barrier(key="alive", timeout_ms=_patience_seconds() * 1000)
        except RuntimeError:
            if not _is_over.is_set():
                print(f"error: {LOST_PROCESS}", file=sys.stderr)
                exit_now(FAILURE_STATUS)
