"""The flags and environment variables that join several processes into one run."""

import os
import re
from typing import Any

from absl import flags

from anchor_jax.cli.console import USAGE_STATUS, exit_with_error
from anchor_jax.runtime import multihost

# flag -> the environment variable that replaces it
VARIABLES = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}


def define_flags() -> tuple[flags.FlagHolder[Any], ...]:
    """Define the flags of `multihost.initialize` and return them."""
    return (
        flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, or $JAX_COORDINATOR_ADDRESS."),
        flags.DEFINE_integer(
            "num_processes", None, "Number of processes on all hosts, or $JAX_NUM_PROCESSES.", lower_bound=1
        ),
        flags.DEFINE_integer("process_id", None, "Index of this process, from 0, or $JAX_PROCESS_ID.", lower_bound=0),
        flags.DEFINE_integer(
            "connect_timeout", multihost.JOIN_SECONDS, "Seconds to wait for the other processes.", lower_bound=1
        ),
    )


def arguments() -> dict[str, Any]:
    """Return the arguments of `multihost.initialize`.

    They have all of `VARIABLES`, none of them for a known cluster, or only a number of processes of 1.
    """
    return {"timeout": flags.FLAGS.connect_timeout} | _connection()


def _connection() -> dict[str, Any]:
    given: dict[str, Any] = {flag: _flag_or_variable(flag, variable) for flag, variable in VARIABLES.items()}
    missing = [f"--{flag} (or {VARIABLES[flag]})" for flag, value in given.items() if value is None]
    if len(missing) == len(given):
        return {}
    if given["num_processes"] == 1 and not given["process_id"]:
        return {"num_processes": 1}
    if missing:
        exit_with_error(
            USAGE_STATUS,
            f"--coordinator, --num_processes and --process_id must be given together; give {' and '.join(missing)} too",
        )
    if not re.fullmatch(r".+:\d+", given["coordinator"]):
        exit_with_error(USAGE_STATUS, f"--coordinator must be HOST:PORT of process 0; got '{given['coordinator']}'")
    if not 0 <= given["process_id"] < given["num_processes"]:
        last = given["num_processes"] - 1
        exit_with_error(
            USAGE_STATUS, f"--process_id must lie in 0..{last}, below --num_processes; got {given['process_id']}"
        )
    return given


def _flag_or_variable(flag: str, variable: str) -> str | int | None:
    value, default = flags.FLAGS[flag].value, os.environ.get(variable)
    if value is not None or not default:
        return value
    if flag == "coordinator":
        return default
    try:
        return int(default)
    except ValueError:
        exit_with_error(USAGE_STATUS, f"{variable} must be an integer; got '{default}'")
