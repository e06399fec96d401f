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
from anchor_jax.runtime import launchers, object_storage

LOST_PROCESS = (
    "another process of this run ended or cannot be reached; start the same command again on all hosts to resume "
    "from the latest checkpoint"
)
FAILURE_STATUS = 1  # exit status of a process that ends because another one did

_HEARTBEAT_SECONDS = 5.0
_ERROR_SECONDS = 10  # how long to wait for the other processes to fail with the same error
JOIN_SECONDS = 300  # how long to wait for the other processes to start
_PATIENCE_VARIABLE, _PATIENCE_SECONDS = "ANCHOR_JAX_PATIENCE_SECONDS", 60
_SILENT_SECONDS = 15  # how long to wait for the other processes before saying so
_MAX_WAIT_SECONDS = 7 * 24 * 3600  # how long processes that are alive wait for one another

_is_over = threading.Event()


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = JOIN_SECONDS,
) -> None:
    """Connect the processes of a run; call it before JAX initializes its devices. A single process needs no connection.

    Without arguments, JAX detects the cluster: a TPU pod, or several processes started by SLURM or Open MPI. Other
    environments, and the network, are not searched.

    If the processes are not connected in time, this one ends with a one-line error and status 1. Afterwards, every
    process monitors the others. If one of them is silent for `ANCHOR_JAX_PATIENCE_SECONDS` (60 by default), all end in
    the same way.

    Args:
      coordinator: "host:port" of process 0.
      num_processes: number of processes of the run.
      process_id: 0 to `num_processes - 1`.
      timeout: seconds to wait for the other processes.

    Raises:
      UserError: the environment says that there are several processes but not how to connect them, or they cannot
        connect.
    """
    if num_processes == 1:
        return
    launch = None if coordinator or _has_tpu() else launchers.detect()
    if not (coordinator or launch or _has_tpu()):
        return
    if launch:
        num_processes = launch.num_processes
    patience = patience_seconds()
    if coordinator and process_id:
        _wait_for(coordinator, timeout)
    on_termination = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    try:
        with _ending_after(timeout, _processes(coordinator, num_processes, launch)):
            jax.distributed.initialize(
                coordinator,
                num_processes,
                process_id,
                cluster_detection_method="deactivate" if coordinator else None,
                initialization_timeout=timeout + 60,  # JAX aborts with a long log
                heartbeat_timeout_seconds=patience + 60,  # JAX's own heartbeat fails with a long log
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
    if not is_primary():
        yield
        return
    with object_storage.write_folder(folder) as local, jax.profiler.trace(str(local)):
        yield


def _has_tpu() -> bool:
    return os.environ.get("TPU_ML_PLATFORM") == "JAX"  # JAX sets it if it finds TPU chips


def _processes(coordinator: str | None, num_processes: int | None, launch: launchers.Launch | None) -> str:
    """Describe what this process waits for."""
    if launch:
        return f"all {launch.num_processes} processes that {launch.launcher} started ({launch.variable})"
    return f"all {num_processes} processes at {coordinator}" if coordinator else "the other hosts of the TPU slice"


@contextlib.contextmanager
def _ending_after(seconds: int, what: str) -> Iterator[None]:
    """End this process with a one-line error if the block, in which Python cannot be interrupted, takes longer."""
    is_connected = threading.Event()

    def wait() -> None:
        silent = min(_SILENT_SECONDS, seconds)
        if is_connected.wait(silent):
            return
        print(f"waiting for {what}, at most {seconds} s", file=sys.stderr)
        if not is_connected.wait(seconds - silent):
            print(
                f"error: waited {seconds} s for {what}; start all of them, and check --num_processes and the network",
                file=sys.stderr,
            )
            exit_now(FAILURE_STATUS)

    threading.Thread(target=wait, daemon=True).start()
    try:
        yield
    finally:
        is_connected.set()


def _wait_for(coordinator: str, seconds: int) -> None:
    """Wait until process 0 accepts connections; JAX would fail with a long log instead of an exception."""
    host, _, port = coordinator.rpartition(":")
    started, has_said = time.monotonic(), False
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            return
        except OSError as error:
            waited = time.monotonic() - started
            if waited > seconds:
                raise UserError(
                    f"cannot reach process 0 at {coordinator} in {seconds} s ({error}); start it, and check "
                    "--coordinator and that its port is open"
                ) from error
            if waited > _SILENT_SECONDS and not has_said:
                print(f"waiting for process 0 at {coordinator} ({error}), at most {seconds} s", file=sys.stderr)
                has_said = True
        time.sleep(0.2)


def patience_seconds() -> int:
    """Return after how many seconds of silence a process counts as lost."""
    seconds = launchers.integer(_PATIENCE_VARIABLE, _PATIENCE_SECONDS)
    if seconds is None or seconds < 1:
        raise UserError(f"{_PATIENCE_VARIABLE} must be at least 1; got {seconds}")
    return seconds


def _barrier() -> Callable[..., None]:
    from orbax.checkpoint import multihost  # takes a second to import

    return multihost.get_barrier_sync_fn()  # uses JAX's coordination service, not the devices


def _watch(barrier: Callable[..., None]) -> None:
    """Exchange heartbeats with all processes; end this process if one of them is lost."""
    while not _is_over.wait(_HEARTBEAT_SECONDS):
        try:
            barrier(key="alive", timeout_ms=patience_seconds() * 1000)
        except RuntimeError:
            if not _is_over.is_set():
                print(f"error: {LOST_PROCESS}", file=sys.stderr)
                exit_now(FAILURE_STATUS)
