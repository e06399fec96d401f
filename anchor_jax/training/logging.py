"""What a run tells while it goes: a progress bar or plain lines, JSON lines and TensorBoard."""

import contextlib
import json
import math
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

from anchor_jax.core.errors import CorruptDataWarning, UserError
from anchor_jax.runtime import multihost
from anchor_jax.runtime.atomic_files import atomic_write

SHOWN = {
    "loss": "loss {:.3f}",
    "accuracy": "accuracy {:.1%}",
    "masked_entropy": "masked entropy {:.2f}",
    "images_per_second": "{:,.0f} images/s",
    "input_wait": "{:.0%} waiting for input",
    "damaged_images": "{} damaged images",
    "skipped_updates": "{} updates left out",
}


class TrainLogger:
    """Writes numbers of a step everywhere, after the last one that was reported of those that are done; -1: of none.

    A terminal gets a bar, anything else one line a report.

    Attributes:
      reported: the last step of a report.
    """

    def __init__(self, workdir: Path, reported: int, total_steps: int):
        self.reported = reported
        self._workdir = workdir
        with _writing(workdir):
            _forget_after(workdir / "metrics.jsonl", reported)
            self._lines = (workdir / "metrics.jsonl").open("a", buffering=1)
            self._tensorboard = TensorBoardWriter(workdir / "tensorboard", reported + 1)
        self._console = Console()
        self._total_steps = total_steps
        columns = (
            "step",
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(
            *columns, console=self._console, disable=not self._console.is_terminal, speed_estimate_period=3600
        )
        self._task = self._bar.add_task("", total=total_steps, completed=max(reported, 0), text="compiling")

    def __enter__(self) -> "TrainLogger":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._bar.stop()
        with _writing(self._workdir):
            self._tensorboard.close()
            self._lines.close()

    def print(self, text: str) -> None:
        """A line for the reader of the terminal."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def log(self, step: int, prefix: str, numbers: Mapping[str, float | None]) -> None:
        """Numbers of a step under names such as "train/loss"; None where there was nothing to measure."""
        named = {f"{prefix}/{name}": value for name, value in numbers.items()}
        with _writing(self._workdir):
            self._lines.write(json.dumps({"step": step, **named}) + "\n")
            self._tensorboard.add(step, {name: value for name, value in named.items() if value is not None})
        self.reported = step
        shown = (text.format(numbers[name]) for name, text in SHOWN.items() if numbers.get(name) is not None)
        text = f"{prefix} {', '.join(shown)}"
        self._bar.update(self._task, completed=step, text=text)
        if not self._console.is_terminal or prefix != "train":
            self.print(f"step {step}/{self._total_steps}: {text}")

    def flush(self) -> None:
        """All that was reported is on disk."""
        with _writing(self._workdir):
            self._tensorboard.flush()
            self._lines.flush()
            os.fsync(self._lines.fileno())


class TensorBoardWriter:
    """A file for TensorBoard, in which a run goes on from a step; what earlier files say of it and later is void.

    It is written at once, not by a thread as tensorboardX would do: one that a full disk or a clock that goes backwards
    has ended makes a run wait for ever.
    """

    def __init__(self, folder: Path, first_step: int):
        folder.mkdir(exist_ok=True)
        suffix = f".{len(list(folder.iterdir()))}"  # its name has the time in seconds, which may come twice
        self._events = EventsWriter(str(folder / "events"), suffix)
        self._write(first_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of a step."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._write(step, summary=Summary(value=values))

    def _write(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, **content))

    def flush(self) -> None:
        """All that was added is in the file."""
        self._events.flush()

    def close(self) -> None:
        """Nothing more is added."""
        self._events.close()


class SilentLogger(TrainLogger):
    """Tells nobody: of a process that is not the first."""

    def __init__(self, reported: int):
        self.reported = reported

    def __enter__(self) -> "TrainLogger":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Not told."""

    def report(self, step: int, prefix: str, numbers: Mapping[str, float | None]) -> None:
        """Not told."""
        self.reported = step

    def flush(self) -> None:
        """Nothing was."""


def create_logger(workdir: Path, reported: int, total_steps: int) -> TrainLogger:
    """The `Reporter` of process 0; the others are silent."""
    return TrainLogger(workdir, reported, total_steps) if multihost.is_primary() else SilentLogger(reported)


@contextlib.contextmanager
def _writing(workdir):
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write what is told to '{workdir}' ({error.strerror}); checkpoints that are complete are kept; see "
            "to the disk, then start the same command again"
        ) from error


def _forget_after(file: Path, step: int) -> None:
    """Drop the lines of steps that a resumed run does again, and a line that was cut off."""
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    kept = [line for line in lines if _step_of(line) <= step]
    if file.exists():
        with atomic_write(file) as new:
            new.write_text("".join(line + "\n" for line in kept))
    last = max(map(_step_of, kept), default=0)
    if last < step:
        warnings.warn(
            f"'{file}' has lost what was told of steps {last + 1} to {step}", CorruptDataWarning, stacklevel=3
        )


def _step_of(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
