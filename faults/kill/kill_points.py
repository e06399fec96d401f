"""When to kill a run, and what it was doing when it was killed, according to its folder."""

import json
import time
from collections.abc import Callable, Set
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anchor_jax.runtime.atomic_files import is_incomplete
from faults.kill.target_run import TargetRun

_TEMPORARY = ".orbax-checkpoint-tmp"
_PARTS = (
    "_CHECKPOINT_METADATA",
    "average/_METADATA",
    "metrics/metrics",
    "opt_state/_METADATA",
    "record/metadata",
    "variables/_METADATA",
)  # of a complete checkpoint


class Attempt:
    """A command about to start, possibly in a folder with leftovers of a killed command.

    Args:
      target: the run.
      eval_steps: the steps at which it evaluates.

    Attributes:
      poll_seconds: time between two looks at what the command does.
    """

    poll_seconds = 0.003

    def __init__(self, target: TargetRun, eval_steps: Set[int]):
        self.target, self.start_time, self._eval_steps = target, time.time(), eval_steps
        self._leftovers = {*self._incomplete_files(), *self._incomplete_checkpoints()}

    def is_stepping(self) -> bool:
        """Return whether train.py has logged a step."""
        return "\nstep " in self.target.output()

    def is_only_stepping(self) -> bool:
        """Return whether train.py has compiled everything and does nothing but take steps."""
        is_warm = "test accuracy" in self.target.output()
        return is_warm and not (self.is_evaluating() or self.is_saving() or self.is_deleting())

    def is_evaluating(self) -> bool:
        """Return whether train.py is between the last step before an evaluation and its result."""
        last = _last_line(self.target.workdir / "metrics.jsonl")
        return "train/loss" in last and last["step"] in self._eval_steps

    def is_saving(self) -> bool:
        """Return whether a checkpoint is being written."""
        return any(_TEMPORARY in folder.name for folder in self._checkpoints())

    def is_deleting(self) -> bool:
        """Return whether a checkpoint is partly deleted."""
        return not self._leftovers.issuperset(self._incomplete_checkpoints())

    def is_writing_file(self) -> bool:
        """Return whether a file that will replace another is being written."""
        return not self._leftovers.issuperset(self._incomplete_files())

    def is_writing_results(self) -> bool:
        """Return whether eval.py has started to write results."""
        return any(_mtime(file) > self.start_time for file in (self.target.workdir / "eval").rglob("*.*"))

    def newest_checkpoint(self) -> int | None:
        """Return the step of the newest checkpoint, or None."""
        return max((int(folder.name) for folder in self._checkpoints() if folder.name.isdigit()), default=None)

    def _checkpoints(self) -> list[Path]:
        return _entries(self.target.workdir / "checkpoints")

    def _incomplete_checkpoints(self) -> list[Path]:
        finalized = [folder for folder in self._checkpoints() if _TEMPORARY not in folder.name]
        return [folder for folder in finalized if not all((folder / part).exists() for part in _PARTS)]

    def _incomplete_files(self) -> list[Path]:
        return [file for folder in self._folders() for file in folder.rglob("*") if is_incomplete(file)]

    def _folders(self) -> list[Path]:
        """Return the folders of this machine in which the command writes files."""
        return [self.target.workdir, self.target.cache]


class KillPoint(NamedTuple):
    """When to kill a command: at a random time within some seconds after a condition first holds."""

    command: str
    condition: Callable[[Attempt], bool] = lambda _: True
    within: float = 0.0  # seconds
    max_bytes: int = 0  # if positive: instead, in the write that makes a file exceed a random number of bytes
    with_empty_cache: bool = False


def kill_points(command: str, seconds: float) -> dict[str, KillPoint]:
    """Return the kill points of a command, by name.

    Args:
      command: "train.py" or "eval.py".
      seconds: its duration without interruption.
    """
    if command == "eval.py":
        return {
            "eval start": KillPoint(command, within=seconds / 2),
            "eval results": KillPoint(command, lambda it: it.is_writing_results(), within=seconds / 4),
            "eval file": KillPoint(command, max_bytes=2**14),
        }
    return {
        "cache file": KillPoint(command, max_bytes=2**16, with_empty_cache=True),
        "cold start": KillPoint(command, within=seconds / 4, with_empty_cache=True),
        "start": KillPoint(command, within=seconds / 8),
        "steps": KillPoint(command, lambda it: it.is_only_stepping()),
        "evaluation": KillPoint(command, lambda it: it.is_stepping() and it.is_evaluating(), within=0.02),
        "checkpoint": KillPoint(command, lambda it: it.is_stepping() and it.is_saving(), within=0.2),
        "deletion": KillPoint(command, lambda it: it.is_stepping() and it.is_deleting()),
        "file": KillPoint(command, max_bytes=2**13),
    }


def phase(attempt: Attempt, command: str) -> str:
    """Return what a command was doing when it was killed."""
    if command == "eval.py":
        return "eval.py, writing results" if attempt.is_writing_results() else "eval.py, before its results"
    if not attempt.is_stepping():
        return "start of train.py"
    if attempt.is_saving():
        return "a checkpoint being written"
    if attempt.is_deleting():
        return "a checkpoint being deleted"
    return "evaluation in training" if attempt.is_evaluating() else "steps"


def run_and_kill(attempt: Attempt, kill_point: KillPoint, rng: np.random.Generator) -> tuple[int, float]:
    """Start the command and kill it at the kill point, unless it ends earlier; return its exit code and seconds."""
    if kill_point.with_empty_cache:
        attempt.target.delete_cache()
    fatal_byte = round(2 ** rng.uniform(9, np.log2(kill_point.max_bytes))) if kill_point.max_bytes else None
    delay = rng.uniform(0, kill_point.within)
    process = attempt.target.start(kill_point.command, fatal_byte)
    try:
        while process.is_alive() and (fatal_byte or not kill_point.condition(attempt)):
            time.sleep(attempt.poll_seconds)
        process.join(None if fatal_byte else delay)
    finally:
        process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode, time.time() - attempt.start_time


def _entries(folder: Path) -> list[Path]:
    """Return the content of a folder; none if it does not exist."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _mtime(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _last_line(file: Path) -> dict[str, float]:
    lines = file.read_text().splitlines() if file.exists() else []
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        return {"step": -1}
