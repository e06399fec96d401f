"""Commands in processes of their own, forked from one that has imported the package but not looked for devices yet.

Each starts seconds sooner than a Python of its own, which serves where many are started.
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

# what a killed command has left of semaphores is cleaned up by a process that says so in the end
sys.warnoptions.append("ignore:resource_tracker:UserWarning")
_warm = multiprocessing.get_context("forkserver")
_warm.set_forkserver_preload(
    ["anchor_jax.cli.app", "anchor_jax.reporting.comparison", "anchor_jax.evaluation", "anchor_jax.training.loop"]
)


def started(
    arguments: Sequence[object], environment: Mapping[str, str], out: Path, err: Path, *, fatal_byte: int | None = None
) -> BaseProcess:
    """A command that has been started.

    Args:
      arguments: a script of this folder, "-m" and a module or "-c" and a program, then what it is given.
      environment: all of it, though JAX read its own settings when it was imported.
      out: what the command prints is added to this file.
      err: likewise; it may be the same file.
      fatal_byte: the kernel ends the process amid the write that makes a file longer than this.
    """
    given = tuple(map(str, arguments)), dict(environment), str(out), str(err), fatal_byte
    process = _warm.Process(target=_become, args=given)
    process.start()
    return process


def _become(arguments, environment, out, err, fatal_byte):
    """Inside a forked process: be the command."""
    for descriptor, file in ((1, out), (2, err)):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1) for descriptor in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the server of forks ignores
    if fatal_byte is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python would make an error of it
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (fatal_byte, fatal_byte))
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    try:
        _run(arguments)
    finally:
        atexit._run_exitfuncs()  # which `multiprocessing` leaves out, and the end of JAX's service of processes needs


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
