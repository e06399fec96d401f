"""When a run is killed, and where on its way it was then, as its folder tells."""

import json
import time
from collections.abc import Callable, Set
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anchor_jax.runtime.atomic_files import is_incomplete
from faults.kill.target_run import Victim

POLL_SECONDS = 0.003
_TEMPORARY = ".orbax-checkpoint-tmp"
_PARTS = (
    "_CHECKPOINT_METADATA",
    "average/_METADATA",
    "metrics/metrics",
    "opt_state/_METADATA",
    "record/metadata",
    "variables/_METADATA",
)  # of a whole checkpoint


class Attempt:
    """A command that is about to start, on what may have been left by one that was killed.

    Args:
      victim: the run.
      evaluated: the steps at which it evaluates.
    """

    def __init__(self, victim: Victim, evaluated: Set[int]):
        self.victim, self.started, self._evaluated = victim, time.time(), evaluated
        self._left = {*self._being_replaced(), *self._being_deleted()}

    def is_stepping(self) -> bool:
        """Whether train.py has told of a step."""
        return "\nstep " in self.victim.said()

    def is_only_stepping(self) -> bool:
        """Whether train.py makes steps, with all compiled, and does nothing else."""
        is_warm = "test accuracy" in self.victim.said()
        return is_warm and not (self.is_evaluating() or self.is_saving() or self.is_deleting())

    def is_evaluating(self) -> bool:
        """Whether train.py is on its way from the last step before an evaluation to its result."""
        last = _last_line(self.victim.workdir / "metrics.jsonl")
        return "train/loss" in last and last["step"] in self._evaluated

    def is_saving(self) -> bool:
        """Whether a checkpoint is being written."""
        return any(_TEMPORARY in folder.name for folder in self._checkpoints())

    def is_deleting(self) -> bool:
        """Whether a part of a checkpoint is gone already."""
        return not self._left.issuperset(self._being_deleted())

    def is_replacing(self) -> bool:
        """Whether a file is being written that will replace another."""
        return not self._left.issuperset(self._being_replaced())

    def is_reporting(self) -> bool:
        """Whether eval.py has begun to write."""
        return any(_changed(file) > self.started for file in (self.victim.workdir / "eval").rglob("*.*"))

    def newest_checkpoint(self) -> int | None:
        """Its step; None where there is none yet."""
        return max((int(folder.name) for folder in self._checkpoints() if folder.name.isdigit()), default=None)

    def _checkpoints(self) -> list[Path]:
        return _entries(self.victim.workdir / "checkpoints")

    def _being_deleted(self) -> list[Path]:
        complete = [folder for folder in self._checkpoints() if _TEMPORARY not in folder.name]
        return [folder for folder in complete if not all((folder / part).exists() for part in _PARTS)]

    def _being_replaced(self) -> list[Path]:
        places = (self.victim.workdir, self.victim.cache)
        return [file for place in places for file in place.rglob("*") if is_incomplete(file)]


class Aim(NamedTuple):
    """The moment for which a kill is meant: at random within some seconds after something has begun."""

    command: str
    begun: Callable[[Attempt], bool] = lambda _: True
    within: float = 0.0
    most_bytes: int = 0  # above 0: amid the write of a file, once that has a number of bytes that is drawn
    with_empty_cache: bool = False


def aims(command: str, seconds: float) -> dict[str, Aim]:
    """By name, those at a command that takes so many seconds undisturbed."""
    if command == "eval.py":
        return {
            "eval start": Aim(command, within=seconds / 2),
            "eval results": Aim(command, Attempt.is_reporting, within=seconds / 4),
            "eval file": Aim(command, most_bytes=2**14),
        }
    return {
        "cache file": Aim(command, most_bytes=2**16, with_empty_cache=True),
        "cold start": Aim(command, within=seconds / 4, with_empty_cache=True),
        "start": Aim(command, within=seconds / 8),
        "steps": Aim(command, Attempt.is_only_stepping),
        "evaluation": Aim(command, lambda it: it.is_stepping() and it.is_evaluating(), within=0.02),
        "checkpoint": Aim(command, lambda it: it.is_stepping() and it.is_saving(), within=0.2),
        "deletion": Aim(command, lambda it: it.is_stepping() and it.is_deleting()),
        "file": Aim(command, most_bytes=2**13),
    }


def found(attempt: Attempt, command: str) -> str:
    """What a command was about when it was killed."""
    if command == "eval.py":
        return "eval.py, writing results" if attempt.is_reporting() else "eval.py, before its results"
    if not attempt.is_stepping():
        return "start of train.py"
    if attempt.is_saving():
        return "a checkpoint being written"
    if attempt.is_deleting():
        return "a checkpoint being deleted"
    return "evaluation in training" if attempt.is_evaluating() else "steps"


def strike(attempt: Attempt, aim: Aim, rng: np.random.Generator) -> tuple[int, float]:
    """Start the command, and kill it at the moment of an aim unless it ends before: exit code and seconds."""
    if aim.with_empty_cache:
        attempt.victim.forget_cache()
    fatal_byte = round(2 ** rng.uniform(9, np.log2(aim.most_bytes))) if aim.most_bytes else None
    delay = rng.uniform(0, aim.within)
    process = attempt.victim.start(aim.command, fatal_byte)
    try:
        while process.is_alive() and (fatal_byte or not aim.begun(attempt)):
            time.sleep(POLL_SECONDS)
        process.join(None if fatal_byte else delay)
    finally:
        process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode, time.time() - attempt.started


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, which may be gone by now."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _changed(file: Path) -> float:
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
