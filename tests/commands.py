"""Run the commands in processes of their own.

`command` starts a new Python. `quick_command` forks a process that has imported the package but not yet looked for
devices; this saves seconds per command, and most tests of commands end in an error.
"""

import contextlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from faults import forked
from faults.forked import ROOT as ROOT

TIMEOUT_SECONDS = 300

# compilation takes most of the time of the tests; these flags trade fast code for fast compilation
_FAST_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# jax 0.12 has no such flag, and an unknown one aborts the process
HAS_FUSION_EMITTERS_FLAG = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11)
if HAS_FUSION_EMITTERS_FLAG:
    _FAST_COMPILATION += " --xla_cpu_use_fusion_emitters=false"
_USER_FLAGS = os.environ.get("XLA_FLAGS", "")


def xla_flags(num_devices: int) -> str:
    """Return flags for fast compilation and this number of CPU devices; $XLA_FLAGS takes precedence."""
    return f"{_FAST_COMPILATION} {_USER_FLAGS} --xla_force_host_platform_device_count={num_devices}"


class Done(NamedTuple):
    """How a command ended."""

    returncode: int  # negative: the signal that ended it
    stdout: str
    stderr: str


def assert_error(done: Done, status: int, message: str) -> None:
    """Assert that a command failed with this status and a one-line error that contains the message."""
    assert message in done.stderr, done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.returncode == status


assert_told = assert_error


def environment_of_command(**changes: str) -> dict[str, str]:
    """Return the environment of the tests, with one device instead of eight."""
    return os.environ | {"XLA_FLAGS": xla_flags(1)} | changes


def run_process(*line: object, cwd: Path = ROOT, **environment: str) -> Done:
    """Run a program on one device."""
    done = subprocess.run(
        [*map(str, line)],
        cwd=cwd,
        env=environment_of_command(**environment),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def command(*arguments: object, **environment: str) -> Done:
    """Run Python with these arguments, on one device."""
    return run_process(sys.executable, *arguments, **environment)


class Running(NamedTuple):
    """A command that runs during the test."""

    process: BaseProcess
    out: Path
    err: Path

    def ended(self) -> Done:
        """Wait for its end and return how it ended."""
        self.process.join(TIMEOUT_SECONDS)
        if self.process.is_alive():
            raise TimeoutError(f"a command took more than {TIMEOUT_SECONDS} s: {self.err.read_text()}")
        assert self.process.exitcode is not None
        return Done(self.process.exitcode, self.out.read_text(), self.err.read_text())

    def send(self, number: int) -> None:
        """Send a signal to it."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)


@contextlib.contextmanager
def running(*arguments: object, **environment: str) -> Iterator[Running]:
    """Start the command that `quick_command` runs; it is killed on exit if it still runs."""
    with tempfile.TemporaryDirectory() as scratch:
        out, err = (Path(scratch) / name for name in ("out", "err"))
        out.touch()
        err.touch()
        settings = environment_of_command(**environment)
        process = forked.start(arguments, settings, out, err)
        try:
            yield Running(process, out, err)
        finally:
            process.kill()
            process.join()


def quick_command(*arguments: object, **environment: str) -> Done:
    """Run the command that `forked.start` takes, on one device.

    Settings that JAX reads when it is imported are those of the test process.
    """
    with running(*arguments, **environment) as process:
        return process.ended()
