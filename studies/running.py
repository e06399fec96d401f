"""Runs commands side by side until all are done, or until somebody asks to stop."""

import contextlib
import os
import queue
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from anchor_jax.core.errors import Preempted, UserError
from anchor_jax.runtime import preemption

POLL_SECONDS = 0.2


class Job(NamedTuple):
    """Commands that follow one another.

    Attributes:
      name: unique.
      commands: each with its arguments; run in the root of the project. The next is asked for when one has ended.
      log: the file to which all that they print is added.
    """

    name: str
    commands: Iterable[Sequence[str]]
    log: Path


def run_all(jobs: Sequence[Job], at_once: int, root: Path) -> None:
    """Run all jobs, so many at once; on CPU each has its own share of the cores.

    Raises:
      UserError: a command failed, or a job cannot tell its commands; the other jobs have come to their end.
      Stopped: somebody asked for it; what was running has saved and ended.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    failures: list[str] = []
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn()
    with preemption.catch_stop_signals() as asked_to_stop, Progress(TextColumn("runs"), *columns) as progress:
        lane = Lane(waiting, failures, asked_to_stop, progress, at_once, root)
        progress.add_task("", total=len(jobs))
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(lane.work, _shares(at_once)))  # raises what a lane raises
        number = asked_to_stop()
    if failures:
        raise UserError("; ".join(failures))
    if number:
        raise Preempted(number, f"{signal.Signals(number).name}: the same command goes on from here")


class Lane(NamedTuple):
    """What works through the jobs that wait."""

    waiting: "queue.SimpleQueue[Job]"
    failures: list[str]
    asked_to_stop: Callable[[], int]
    progress: Progress
    at_once: int
    root: Path

    def work(self, cores: Sequence[int]) -> None:
        """Take one job after the other, on these cores alone."""
        if self.at_once > 1 and cores:
            os.sched_setaffinity(0, cores)  # of this thread, and of the processes that it starts
        with contextlib.suppress(queue.Empty):
            while not self.asked_to_stop():
                self._do(self.waiting.get_nowait())

    def _do(self, job: Job) -> None:
        started = time.monotonic()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            for command in job.commands:
                self._run(command, job.log)
                if self.asked_to_stop():
                    return
        except UserError as error:
            self.failures.append(f"{job.name}: {error}")
        else:
            self.progress.console.print(f"{job.name}: {time.monotonic() - started:,.0f} s", highlight=False)
        self.progress.advance(self.progress.task_ids[0])

    def _run(self, command: Sequence[str], log: Path) -> None:
        environment = dict(os.environ)
        if self.at_once > 1:
            environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / self.at_once:.2f}"  # of a GPU that they share
        with log.open("a") as output:
            print(f"$ {shlex.join(command)}", file=output, flush=True)
            process = subprocess.Popen(
                command, cwd=self.root, env=environment, stdout=output, stderr=output, start_new_session=True
            )
            while process.poll() is None:
                if self.asked_to_stop():
                    process.send_signal(signal.SIGTERM)  # it saves, and ends
                    break
                time.sleep(POLL_SECONDS)
            code = process.wait()
        if code and not self.asked_to_stop():
            last = (log.read_text(errors="replace").splitlines() or [""])[-1]
            raise UserError(f"{command[1]} ended with {code}, see {log} ({last})")


def _shares(num: int) -> list[list[int]]:
    """The cores of each of so many processes at once; none where the system cannot tell."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [cores[first::num] or cores for first in range(num)]
