"""A run to kill in a bucket; what it is doing follows from its objects and its output."""

import dataclasses
import re
from collections.abc import Set
from pathlib import Path
from typing import Any

from anchor_jax.runtime import object_storage
from faults.kill.kill_points import Attempt, KillPoint
from faults.kill.target_run import TargetRun


@dataclasses.dataclass(frozen=True)
class BucketRun(TargetRun):
    """A run in a bucket; its data, cache and output are on this machine.

    Attributes:
      address: of the folder of all runs, such as `gs://bucket/kill`.
    """

    address: str = ""

    @property
    def workdir(self) -> Path:
        """Return the run's path in the bucket."""
        return object_storage.path_of(f"{self.address}/{self.name}")

    def copy(self) -> Path:
        """Copy the run to a local folder, and return that; locks, whose numbers count the starts, are left out."""
        folder = self.folder / f"{self.name}-copy"
        object_storage.file_system(self.workdir).get(str(self.workdir), str(folder), recursive=True)
        for lock in folder.rglob("lock/*"):
            lock.unlink()
        return folder


class BucketAttempt(Attempt):
    """A command about to start on a run in a bucket."""

    poll_seconds = 0.1  # each look is a request

    def __init__(self, target: TargetRun, eval_steps: Set[int]):
        super().__init__(target, eval_steps)
        self._results_before = self._results()

    def is_evaluating(self) -> bool:
        """Return whether train.py has printed the last step before an evaluation, and not its result."""
        last = re.findall(r"^step (\d+)/\d+: (\w+)", self.target.output(), re.MULTILINE)[-1:]
        return any(kind == "train" and int(step) in self._eval_steps for step, kind in last)

    def is_saving(self) -> bool:
        """Return whether a checkpoint is being written."""
        steps = self._steps()
        return any(object_storage.COMMIT_FILE not in files for step, files in steps.items() if step == max(steps))

    def is_deleting(self) -> bool:
        """Return whether a checkpoint is partly deleted."""
        steps = self._steps()
        return any(object_storage.COMMIT_FILE not in files for step, files in steps.items() if step != max(steps))

    def is_writing_results(self) -> bool:
        """Return whether eval.py has started to write results."""
        return self._results() != self._results_before

    def newest_checkpoint(self) -> int | None:
        """Return the step of the newest complete checkpoint, or None."""
        return max((step for step, files in self._steps().items() if object_storage.COMMIT_FILE in files), default=None)

    def _incomplete_checkpoints(self) -> list[Path]:
        return []

    def _folders(self) -> list[Path]:
        return [self.target.cache]

    def _results(self) -> dict[str, Any]:
        found = object_storage.file_system(self.target.workdir).find(f"{self.target.workdir}/eval", detail=True)
        return {
            name: info.get("ETag") or info.get("generation") for name, info in found.items() if "/lock/" not in name
        }

    def _steps(self) -> dict[int, set[str]]:
        """Return the objects of each checkpoint, relative to it, by step."""
        steps: dict[int, set[str]] = {}
        for name in object_storage.file_system(self.target.workdir).find(f"{self.target.workdir}/checkpoints"):
            step, _, file = name.partition("/checkpoints/")[2].partition("/")
            if step.isdigit():
                steps.setdefault(int(step), set()).add(file)
        return steps


def without_deletion(points: dict[str, KillPoint]) -> dict[str, KillPoint]:
    """Return the kill points of a run in a bucket, where all objects of a checkpoint are deleted by one request."""
    return {name: point for name, point in points.items() if name != "deletion"}
