"""Run commands in parallel until all are done or a stop signal arrives."""

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
    """Commands that run one after another.

    Attributes:
      name: unique.
      commands: command lines, run in the root of the repository; each is requested after the previous one has ended.
      log: file to which all output is appended.
    """

    name: str
    commands: Iterable[Sequence[str]]
    log: Path


def run_all(jobs: Sequence[Job], at_once: int, root: Path) -> None:
    """Run all jobs, several in parallel; on CPU each parallel job uses its own cores.

    Args:
      jobs: to run.
      at_once: number of parallel jobs.
      root: working directory of the commands.

    Raises:
      UserError: a command failed, or a job cannot determine its commands; the other jobs have finished.
      Preempted: a stop signal arrived; the running commands have saved and ended.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    failures: list[str] = []
    # no markup: rich would import its parser in another thread, while tfds replaces the function that imports
    runs, left = (TextColumn(text, markup=False) for text in ("runs", "left:"))
    columns = runs, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), left, TimeRemainingColumn()
    with preemption.catch_stop_signals() as stop_signal, Progress(*columns) as progress:
        worker = Worker(waiting, failures, stop_signal, progress, at_once, root)
        progress.add_task("", total=len(jobs))
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(worker.run, _core_sets(at_once)))  # raises the exceptions of the threads
        number = stop_signal()
    if failures:
        raise UserError("; ".join(failures))
    if number:
        raise Preempted(number, f"{signal.Signals(number).name}: rerun the same command to resume")


class Worker(NamedTuple):
    """Runs waiting jobs in a thread."""

    waiting: "queue.SimpleQueue[Job]"
    failures: list[str]
    stop_signal: Callable[[], int]  # number of the signal that arrived, or 0
    progress: Progress
    at_once: int
    root: Path

    def run(self, cores: Sequence[int]) -> None:
        """Run one job after another, restricted to these cores."""
        if self.at_once > 1 and cores:
            os.sched_setaffinity(0, cores)  # of this thread and the processes that it starts
        with contextlib.suppress(queue.Empty):
            while not self.stop_signal():
                self._run_job(self.waiting.get_nowait())

    def _run_job(self, job: Job) -> None:
        start = time.monotonic()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            for command in job.commands:
                self._run_command(command, job.log)
                if self.stop_signal():
                    return
        except UserError as error:
            self.failures.append(f"{job.name}: {error}")
        else:
            self.progress.console.print(f"{job.name}: {time.monotonic() - start:,.0f} s", highlight=False)
        self.progress.advance(self.progress.task_ids[0])

    def _run_command(self, command: Sequence[str], log: Path) -> None:
        environment = dict(os.environ)
        if self.at_once > 1:
            environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / self.at_once:.2f}"  # of a shared GPU
        with log.open("a") as output:
            print(f"$ {shlex.join(command)}", file=output, flush=True)
            process = subprocess.Popen(
                command, cwd=self.root, env=environment, stdout=output, stderr=output, start_new_session=True
            )
            while process.poll() is None:
                if self.stop_signal():
                    process.send_signal(signal.SIGTERM)  # the command saves and ends
                    break
                time.sleep(POLL_SECONDS)
            code = process.wait()
        if code and not self.stop_signal():
            last_line = (log.read_text(errors="replace").splitlines() or [""])[-1]
            raise UserError(f"{command[1]} exited with {code}, see {log} ({last_line})")


def _core_sets(num: int) -> list[list[int]]:
    """Divide the cores among `num` parallel jobs; the sets are empty if the system has no affinity."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [cores[first::num] or cores for first in range(num)]
