"""The command lines as a user meets them, in processes of their own.

`command` starts Python anew. `quick_command` forks a process that has imported the package, but has not looked for
devices yet: seconds less for each of the many commands that end in a mistake.
"""

import contextlib
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

# compiling is most of what the tests take: it takes XLA on CPU a fraction of the time for code that is slower
_CHEAPLY = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)
_GIVEN = os.environ.get("XLA_FLAGS", "")


def xla_flags(num_devices: int) -> str:
    """What compiles cheaply, for so many devices on the CPU; other flags in the environment of the tests win."""
    return f"{_CHEAPLY} {_GIVEN} --xla_force_host_platform_device_count={num_devices}"


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
    """That of the test, but for its eight devices."""
    return os.environ | {"XLA_FLAGS": xla_flags(1)} | changes


def command(*arguments: object, **environment: str) -> Done:
    """Run Python with these arguments, on one device."""
    line = [sys.executable, *map(str, arguments)]
    settings = environment_of_command(**environment)
    done = subprocess.run(line, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    return Done(done.returncode, done.stdout, done.stderr)


class Running(NamedTuple):
    """A command that goes on beside the test."""

    process: BaseProcess
    out: Path
    err: Path

    def ended(self) -> Done:
        """How it ended; waits for that."""
        self.process.join(TIMEOUT_SECONDS)
        if self.process.is_alive():
            raise TimeoutError(f"a command took more than {TIMEOUT_SECONDS} s: {self.err.read_text()}")
        assert self.process.exitcode is not None
        return Done(self.process.exitcode, self.out.read_text(), self.err.read_text())

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)


@contextlib.contextmanager
def running(*arguments: object, **environment: str) -> Iterator[Running]:
    """Start what `quick_command` runs; it is killed in the end, if it still runs."""
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
    """Run what `forked.start` takes, on one device; what JAX reads when it is imported is as in the test."""
    with running(*arguments, **environment) as process:
        return process.ended()
