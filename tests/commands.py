"""The command lines as a user meets them, in processes of their own.

`command` starts Python anew. `quick_command` forks a process that has imported the package, but has not looked for
devices yet: seconds less for each of the many commands that end in a mistake.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TIMEOUT_SECONDS = 300

_warm = multiprocessing.get_context("forkserver")
_warm.set_forkserver_preload(
    ["anchor_jax.command", "anchor_jax.comparison", "anchor_jax.evaluation", "anchor_jax.training.loop"]
)


class Done(NamedTuple):
    """How a command ended."""

    returncode: int  # below 0: the signal that ended it
    stdout: str
    stderr: str


def assert_told(done: Done, status: int, message: str) -> None:
    """A command ended in a mistake, which it told in one line that holds the message."""
    assert message in done.stderr, done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.returncode == status


def environment_of_command(**changes: str) -> dict[str, str]:
    """That of the test, but for the flags which give it eight devices."""
    return {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"} | changes


def command(*arguments: object, **environment: str) -> Done:
    """Run Python with these arguments, on one device."""
    line = [sys.executable, *map(str, arguments)]
    settings = environment_of_command(**environment)
    done = subprocess.run(line, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    return Done(done.returncode, done.stdout, done.stderr)


def quick_command(*arguments: object, **environment: str) -> Done:
    """Run a script, or "-m" and a module, on one device; what JAX reads when it is imported is as in the test."""
    with tempfile.TemporaryDirectory() as scratch:
        out, err = (Path(scratch) / name for name in ("out", "err"))
        settings = environment_of_command(**environment)
        process = _warm.Process(target=_become, args=(tuple(map(str, arguments)), settings, str(out), str(err)))
        process.start()
        process.join(TIMEOUT_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutError(f"{arguments} took more than {TIMEOUT_SECONDS} s: {err.read_text()}")
        assert process.exitcode is not None
        return Done(process.exitcode, out.read_text(), err.read_text())


def _become(arguments, environment, out, err):
    """Inside a forked process: be the command."""
    for descriptor, file in ((1, out), (2, err)):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1) for descriptor in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the server of forks ignores
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    if arguments[0] == "-m":
        sys.argv = list(arguments[1:])
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        sys.path[0] = str(ROOT)
        runpy.run_path(arguments[0], run_name="__main__")
