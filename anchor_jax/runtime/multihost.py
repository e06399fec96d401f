"""The processes of one run, maybe on many hosts: how they find each other, what all do and what the first does."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import jax
import numpy as np

from anchor_jax.core.errors import UserError

LOST_PROCESS = (
    "another process of this run ended, or cannot be reached; start the same command again on all hosts, it goes on "
    "from the newest checkpoint"
)
FAILURE_STATUS = 1  # exit status of processes that end because another did

_HEARTBEAT_SECONDS = 5.0  # between two signs of life
_ERROR_SECONDS = 10  # in which the others come to the same mistake, if it is theirs too
_JOIN_SECONDS = 300  # in which process 0 must have started
_MAX_WAIT_SECONDS = 7 * 24 * 3600  # of processes that are alive for one another

_is_over = threading.Event()


def initialize(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
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
            heartbeat_timeout_seconds=_patience_seconds() + 60,  # JAX's own watch, which ends with a long log
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
    if is_multiprocess():
        threading.Thread(target=_watch, args=(_barrier(),), daemon=True).start()


def is_multiprocess() -> bool:
    """Whether this is one of several processes; where JAX was told of none it does not look for devices."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
    """Whether this is the one process that writes and tells."""
    return not is_multiprocess() or jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until all processes have come to the point of this name."""
    if is_multiprocess():
        _barrier()(key=name, timeout_ms=_MAX_WAIT_SECONDS * 1000)


def on_primary(action: Callable[[], object], name: str) -> None:
    """Let process 0 do something; none of the others is before it when it begins, all are after it when it is done."""
    barrier(f"before {name}")
    if is_primary():
        action()
    barrier(f"after {name}")


def process_allgather(numbers: Sequence[int]) -> np.ndarray:
    """The numbers that each process gives, int32 `[processes, n]`, on all of them."""
    if not is_multiprocess():
        return np.asarray([numbers], np.int32)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(numbers, np.int32)))


def broadcast_from_primary(number: int) -> int:
    """The number that process 0 gives, on all of them."""
    return int(process_allgather([number])[0, 0])


def all_arrive(name: str) -> bool:
    """Whether all processes come to the point of this name, in a few seconds."""
    if not is_multiprocess():
        return True
    try:
        _barrier()(key=name, timeout_ms=_ERROR_SECONDS * 1000)
    except RuntimeError:
        return False
    return True


def all_fail() -> bool:
    """Of a process that has failed: whether all others come here too, in a few seconds."""
    if not all_arrive("failed"):
        return False
    _is_over.set()
    return True


def shutdown() -> None:
    """Wait for all other processes at the end of a run; from here on none watches the others."""
    barrier("finished")
    _is_over.set()


def exit_now(status: int) -> NoReturn:
    """End this process at once, without regard to the others, which notice."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextlib.contextmanager
def profile_trace(folder: Path):
    """A profile of what is done inside, of process 0, in a folder."""
    with jax.profiler.trace(str(folder)) if is_primary() else contextlib.nullcontext():
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


def _patience_seconds() -> int:
    """Until a process that is silent is lost."""
    return int(os.environ.get("ANCHOR_JAX_PATIENCE_SECONDS", 60))


def _barrier() -> Callable[..., None]:
    from orbax.checkpoint import multihost  # takes a second to import

    return multihost.get_barrier_sync_fn()  # by JAX's service of processes, without their devices


def _watch(barrier) -> None:
    """Signs of life to one another."""
    while not _is_over.wait(_HEARTBEAT_SECONDS):
        try:
            barrier(key="alive", timeout_ms=_patience_seconds() * 1000)
        except RuntimeError:
            if not _is_over.is_set():
                print(f"error: {LOST_PROCESS}", file=sys.stderr)
                exit_now(FAILURE_STATUS)
