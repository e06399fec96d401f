"""Run commands in processes forked from one that has imported the package but has not initialized JAX's devices.

This saves seconds per command compared with starting Python, which matters if many are started.
"""

import atexit
import multiprocessing
import os
import resource
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).parents[1]

# the process that cleans up the semaphores of killed commands warns about each
sys.warnoptions.append("ignore:resource_tracker:UserWarning")
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["anchor_jax.cli.app", "anchor_jax.reporting.comparison", "anchor_jax.evaluation", "anchor_jax.training.loop"]
)


def start(
    arguments: Sequence[object],
    environment: Mapping[str, str],
    out: Path,
    err: Path,
    *,
    fatal_byte: int | None = None,
    new_session: bool = False,
) -> BaseProcess:
    """Start a command.

    Args:
      arguments: a script in the root of the repository, "-m" and a module or "-c" and a program; then its arguments.
      environment: all variables; JAX has read its own at import, before these are set.
      out: file to which standard output is appended.
      err: file to which standard error is appended; it may be the same file.
      fatal_byte: if given, the kernel kills the process in the write that makes a file longer than this.
      new_session: whether the process leads a session, so that signals can reach all processes that it starts.

    Returns:
      The process.
    """
    args = tuple(map(str, arguments)), dict(environment), str(out), str(err), fatal_byte, new_session
    process = _context.Process(target=_run_as_command, args=args)
    process.start()
    return process


def _run_as_command(arguments, environment, out, err, fatal_byte, new_session):
    """Turn a forked process into the command."""
    if new_session:
        os.setsid()
    for descriptor, file in ((1, out), (2, err)):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1) for descriptor in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by the fork server
    if fatal_byte is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python would raise an error instead
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (fatal_byte, fatal_byte))
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    try:
        _run(arguments)
    finally:
        atexit._run_exitfuncs()  # `multiprocessing` skips these, but shutting down jax.distributed needs them


def _run(arguments):
    if arguments[0] == "-m":
        sys.argv = list(arguments[1:])
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        exec(arguments[1], {"__name__": "__main__"})
    else:
        sys.argv = list(arguments)
        sys.path[0] = str(ROOT)
        runpy.run_path(arguments[0], run_name="__main__")
