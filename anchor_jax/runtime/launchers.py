"""What launchers of several processes, such as SLURM, say in the environment of each process."""

import os
from typing import NamedTuple

from anchor_jax.core.errors import UserError


class Launch(NamedTuple):
    """Several processes that were started together."""

    launcher: str
    variable: str  # says how many
    num_processes: int


class _Launcher(NamedTuple):
    name: str
    counts: tuple[str, ...]  # variables for the number of processes; the first that is set counts
    also: str  # a variable that is set, too, in each of these processes
    jax_connects: bool  # whether JAX knows how to connect them


_LAUNCHERS = (
    # of the step: in the shell of `salloc`, the job has several tasks, and the step of the shell has one
    _Launcher("SLURM", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), "SLURM_STEP_NODELIST", True),
    _Launcher("Open MPI", ("OMPI_COMM_WORLD_SIZE",), "OMPI_COMM_WORLD_SIZE", True),
    _Launcher("MPI", ("PMI_SIZE",), "PMI_RANK", False),
    _Launcher("MPI", ("MV2_COMM_WORLD_SIZE",), "MV2_COMM_WORLD_RANK", False),
    _Launcher("torchrun", ("WORLD_SIZE",), "RANK", False),
)


def detect() -> Launch | None:
    """Return how this process was started together with others; None if it was started alone.

    Raises:
      UserError: there are others, but JAX does not know how to connect them; a number of processes is not an integer.
    """
    for launcher in _LAUNCHERS:
        launch = _launch(launcher)
        if launch and launch.num_processes > 1:
            if launcher.jax_connects:
                return launch
            raise UserError(
                f"{launch.num_processes} processes were started by {launch.launcher} ({launch.variable}="
                f"{launch.num_processes}), which does not say how to connect them; give --coordinator, --num_processes "
                "and --process_id, or --num_processes=1 to run this one alone"
            )
    return None


def integer(variable: str, default: int | None = None) -> int | None:
    """Return an environment variable as an integer, or the default if it is not set or empty.

    Raises:
      UserError: it is not an integer.
    """
    value = os.environ.get(variable)
    if not value:
        return default
    try:
        return int(value)
    except ValueError:
        raise UserError(f"the environment variable {variable} must be an integer; got '{value}'") from None


def _launch(launcher: _Launcher) -> Launch | None:
    if launcher.also not in os.environ:
        return None
    for variable in launcher.counts:
        number = integer(variable)
        if number is not None:
            return Launch(launcher.name, variable, number)
    return None
