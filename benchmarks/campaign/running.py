"""Run commands with a time limit, each in a session of its own, so that its child processes end with it."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from faults import forked

POLL_SECONDS = 0.05

DONE, FAILED, STOPPED, INTERRUPTED = "done", "failed", "stopped at its limit", "interrupted"


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
      status: `DONE`, `FAILED`, `STOPPED` (by its limit) or `INTERRUPTED` (by a signal to this process).
      message: the reason in one line, if the command failed; otherwise "".
    """

    status: str
    message: str


def run(
    arguments: Sequence[str],
    log: Path,
    seconds: float,
    grace: float,
    stop_signal: Callable[[], int] = int,
    xla_flags: str = "",
) -> Ended:
    """Run Python with these arguments; at the limit or on a signal, end it and its descendants.

    Args:
      arguments: those of `forked.start`.
      log: file to which all output is appended.
      seconds: its time limit, which includes the grace.
      grace: seconds before the limit at which it receives SIGTERM, to save what it has.
      stop_signal: returns the number of the signal that this process received, or 0.
      xla_flags: added to `$XLA_FLAGS`.
    """
    environment = dict(os.environ)
    if xla_flags:
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {xla_flags}".strip()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        print(f"$ python {' '.join(arguments)}", file=file)
    size = log.stat().st_size
    started = time.monotonic()
    process = forked.start(arguments, environment, log, log, new_session=True)
    status = _wait(process, started + seconds - grace, stop_signal)
    if status:
        _signal(process, signal.SIGTERM)
        process.join(grace)
    for pid in _descendants(process):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    _signal(process, signal.SIGKILL)  # the rest of its session, too
    process.join()
    if status:
        return Ended(status, "")
    if process.exitcode == 0:
        return Ended(DONE, "")
    return Ended(FAILED, _reason(log, size, process.exitcode))


def _wait(process: BaseProcess, until: float, stop_signal: Callable[[], int]) -> str:
    """Wait until a process ends or must be ended; return the status in the latter case, otherwise ""."""
    while process.is_alive():
        if stop_signal():
            return INTERRUPTED
        if time.monotonic() >= until:
            return STOPPED
        process.join(POLL_SECONDS)
    return ""


def _signal(process: BaseProcess, number: int) -> None:
    """Send a signal to the session of a process, or to the process if it does not lead one yet."""
    assert process.pid is not None
    with contextlib.suppress(OSError):
        if process.is_alive() and os.getpgid(process.pid) != process.pid:
            os.kill(process.pid, number)
        else:
            os.killpg(process.pid, number)


def _descendants(process: BaseProcess) -> list[int]:
    """Return a living process and its descendants, also those in sessions of their own (Linux)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [process.pid] if process.is_alive() and process.pid else []
    for pid in found:  # grows
        found += children.get(pid, [])
    return found


def _reason(log: Path, start: int, code: int | None) -> str:
    """Return the error that a command has written to its log, or its last line."""
    with log.open("rb") as file:
        file.seek(start)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    last = (errors or lines or ["it wrote nothing"])[-1].removeprefix("error: ")
    by_signal = f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"exit status {code}"
    return last if errors else f"{by_signal}; {last}"
