"""Training logs: a progress bar or plain lines on the terminal, JSON lines, and TensorBoard."""

import contextlib
import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

from anchor_jax.core.errors import CorruptDataWarning, UserError
from anchor_jax.runs import training_log
from anchor_jax.runtime import multihost
from anchor_jax.runtime.atomic_files import atomic_write

# metric -> its text on the terminal; the files have all metrics
TERMINAL_FORMATS = {
    "loss": "loss {:.3f}",
    "accuracy": "accuracy {:.1%}",
    "masked_entropy": "masked entropy {:.2f}",
    "images_per_second": "{:,.0f} images/s",
    "input_wait": "{:.0%} waiting for input",
    "damaged_images": "{} corrupt images",
    "skipped_updates": "{} updates skipped",
}


class TrainLogger:
    """Write metrics to the terminal, `metrics.jsonl` and TensorBoard.

    A terminal shows a progress bar; anything else gets one line per log step.

    Attributes:
      last_logged: the last step that was logged; -1 if none was.
    """

    def __init__(self, workdir: Path, last_logged: int, total_steps: int):
        """Open the log files of a run.

        Args:
          workdir: the run's folder.
          last_logged: the last step that was logged before the checkpoint that the run resumes from, -1 if none was;
            what the files hold of later steps is discarded.
          total_steps: the length of the run.
        """
        self.last_logged = last_logged
        self._workdir = workdir
        with _write_errors(workdir):
            _discard_after(workdir / training_log.FILE, last_logged)
            self._lines = (workdir / training_log.FILE).open("a", buffering=1)
            self._tensorboard = TensorBoardWriter(workdir / "tensorboard", last_logged + 1)
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
        self._task = self._bar.add_task("", total=total_steps, completed=max(last_logged, 0), text="compiling")

    def __enter__(self) -> "TrainLogger":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._bar.stop()
        with _write_errors(self._workdir):
            self._tensorboard.close()
            self._lines.close()

    def print(self, text: str) -> None:
        """Print a line on the terminal."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def log(self, step: int, prefix: str, metrics: Mapping[str, float | None]) -> None:
        """Log the metrics of a step as `prefix/name`, such as "train/loss"; None marks one that was not measured."""
        tagged = {f"{prefix}/{name}": value for name, value in metrics.items()}
        with _write_errors(self._workdir):
            self._lines.write(json.dumps({"step": step, **tagged}) + "\n")
            self._tensorboard.add(step, {tag: value for tag, value in tagged.items() if value is not None})
        self.last_logged = step
        texts = (text.format(metrics[name]) for name, text in TERMINAL_FORMATS.items() if metrics.get(name) is not None)
        text = f"{prefix} {', '.join(texts)}"
        self._bar.update(self._task, completed=step, text=text)
        if not self._console.is_terminal or prefix != "train":
            self.print(f"step {step}/{self._total_steps}: {text}")

    def flush(self) -> None:
        """Write everything that was logged to disk."""
        with _write_errors(self._workdir):
            self._tensorboard.flush()
            self._lines.flush()
            os.fsync(self._lines.fileno())


class SilentLogger(TrainLogger):
    """Log nothing; used by all processes except the primary one."""

    def __init__(self, last_logged: int):
        self.last_logged = last_logged

    def __enter__(self) -> TrainLogger:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def print(self, text: str) -> None:
        """Do nothing."""

    def log(self, step: int, prefix: str, metrics: Mapping[str, float | None]) -> None:
        """Remember the step."""
        self.last_logged = step

    def flush(self) -> None:
        """Do nothing."""


def create_logger(workdir: Path, last_logged: int, total_steps: int) -> TrainLogger:
    """Return the `TrainLogger` of the primary process, or a `SilentLogger` in all others."""
    return TrainLogger(workdir, last_logged, total_steps) if multihost.is_primary() else SilentLogger(last_logged)


class TensorBoardWriter:
    """Write an event file for TensorBoard, which discards what earlier files of the folder hold of the same steps.

    Events are written synchronously. tensorboardX's own writer uses a thread; once a full disk or a clock that is set
    back has ended it, a run waits for it forever.
    """

    def __init__(self, folder: Path, first_step: int):
        """Start an event file in `folder` for the steps from `first_step`."""
        folder.mkdir(exist_ok=True)
        suffix = f".{len(list(folder.iterdir()))}"  # the file's name has the time in seconds, which may not be unique
        self._events = EventsWriter(str(folder / "events"), suffix)
        self._write(first_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars of a step, by tag."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(step, summary=Summary(value=values))

    def _write(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, **content))

    def flush(self) -> None:
        """Write all events to the file."""
        self._events.flush()

    def close(self) -> None:
        """Close the file."""
        self._events.close()


@contextlib.contextmanager
def _write_errors(workdir: Path) -> Iterator[None]:
    """Turn an `OSError` of a log file into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the logs in '{workdir}' ({error.strerror}); complete checkpoints are kept; fix the disk, "
            "then run the same command again"
        ) from error


def _discard_after(file: Path, step: int) -> None:
    """Drop the lines of steps that a resumed run repeats, and a line that is cut off."""
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    kept = [line for line in lines if training_log.step_of(line) <= step]
    if file.exists():
        with atomic_write(file) as new:
            new.write_text("".join(line + "\n" for line in kept))
    last = max(map(training_log.step_of, kept), default=0)
    if last < step:
        warnings.warn(f"'{file}' has lost the metrics of steps {last + 1} to {step}", CorruptDataWarning, stacklevel=3)
