"""Training logs: a progress bar or plain lines on the terminal, JSON lines, and trackers."""

import contextlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from anchor_jax.core.errors import CorruptDataWarning, Preempted, UserError
from anchor_jax.runs import training_log
from anchor_jax.runs.record import Run
from anchor_jax.runtime import leases, multihost
from anchor_jax.runtime.atomic_files import atomic_write
from anchor_jax.runtime.object_storage import AppendedFiles, is_remote
from anchor_jax.runtime.paths import printable
from anchor_jax.training.tensorboard import TensorBoardWriter
from anchor_jax.training.trackers import TENSORBOARD, Pictures, Trackers

_PUBLISH_SECONDS = 60.0  # between uploads of the logs of a run in a bucket, if there is no checkpoint

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
    """Write metrics to the terminal, `metrics.jsonl` and trackers.

    A terminal shows a progress bar; anything else gets one line per log step.

    Attributes:
      last_logged: the last step that was logged; -1 if none was.
    """

    def __init__(
        self,
        run: Run,
        last_logged: int,
        total_steps: int,
        trackers: Sequence[str] = (TENSORBOARD,),
        pictures: Pictures | None = None,
    ):
        """Open the log files of a run.

        Args:
          run: its record.
          last_logged: the last step that was logged before the checkpoint that the run resumes from, -1 if none was;
            what the files hold of later steps is discarded.
          total_steps: the length of the run.
          trackers: their names; see `trackers.check`.
          pictures: draws what trackers show.
        """
        workdir = run.workdir
        self.last_logged = last_logged
        self._workdir = workdir
        with _write_errors(workdir):
            self._files = AppendedFiles(workdir, training_log.FILE)
            _discard_after(self._files.folder / training_log.FILE, last_logged, workdir)
            self._lines = (self._files.folder / training_log.FILE).open("a", buffering=1)
            folder, first = self._files.folder / "tensorboard", last_logged + 1
            self._tensorboard = TensorBoardWriter(folder, first) if TENSORBOARD in trackers else None
        self._published = time.monotonic()
        self._pictures = pictures
        self._trackers = Trackers([name for name in trackers if name != TENSORBOARD], run, workdir, folder)
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
        is_failure = kind and not issubclass(kind, Preempted | KeyboardInterrupt)
        self._trackers.close("FAILED" if is_failure else "KILLED" if kind else "FINISHED")
        with _write_errors(self._workdir), contextlib.closing(self._files):
            if self._tensorboard:
                self._tensorboard.close()
            self._lines.close()
            leases.check_held(self._workdir)
            self._files.publish()

    def print(self, text: str) -> None:
        """Print a line on the terminal."""
        self._console.print(printable(text), highlight=False, soft_wrap=True, markup=False)

    def log(self, step: int, prefix: str, metrics: Mapping[str, float | None]) -> None:
        """Log the metrics of a step as `prefix/name`, such as "train/loss"; None marks one that was not measured."""
        tagged = {f"{prefix}/{name}": value for name, value in metrics.items()}
        with _write_errors(self._workdir):
            self._lines.write(json.dumps({"step": step, **tagged}) + "\n")
            measured = {tag: value for tag, value in tagged.items() if value is not None}
            if self._tensorboard:
                self._tensorboard.add(step, measured)
        if self._files.are_copies and time.monotonic() - self._published > _PUBLISH_SECONDS:
            self.flush()
        self._trackers.log(step, prefix, measured)
        self.last_logged = step
        texts = (text.format(metrics[name]) for name, text in TERMINAL_FORMATS.items() if metrics.get(name) is not None)
        text = f"{prefix} {', '.join(texts)}"
        self._bar.update(self._task, completed=step, text=text)
        if not self._console.is_terminal or prefix != "train":
            self.print(f"step {step}/{self._total_steps}: {text}")

    def picture(self, step: int, name: str, draw: Callable[[Pictures], bytes]) -> None:
        """Draw a picture, if this logger draws any, and send it to all trackers."""
        if not self._pictures:
            return
        try:
            png = draw(self._pictures)
        except Exception as error:  # a picture must not end the training
            warnings.warn(f"the picture '{name}' was not drawn ({error})", stacklevel=2)
            return
        if self._tensorboard:
            with _write_errors(self._workdir):
                self._tensorboard.add_image(step, name, png)
        self._trackers.picture(step, name, png)

    def flush(self) -> None:
        """Write everything that was logged to disk."""
        with _write_errors(self._workdir):
            if self._tensorboard:
                self._tensorboard.flush()
            self._lines.flush()
            os.fsync(self._lines.fileno())
            leases.check_held(self._workdir)
            self._files.publish()
        self._published = time.monotonic()


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

    def picture(self, step: int, name: str, draw: Callable[[Pictures], bytes]) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""


def create_logger(run: Run, last_logged: int, *options: Any) -> TrainLogger:
    """Return the `TrainLogger` of the primary process, see there, or a `SilentLogger` in all others."""
    return TrainLogger(run, last_logged, *options) if multihost.is_primary() else SilentLogger(last_logged)


@contextlib.contextmanager
def _write_errors(workdir: Path) -> Iterator[None]:
    """Turn an `OSError` of a log file into a `UserError`."""
    try:
        yield
    except OSError as error:
        what = "bucket" if is_remote(workdir) else "disk"
        raise UserError(
            f"cannot write the logs in '{workdir}' ({error.strerror}); complete checkpoints are kept; fix the {what}, "
            "then run the same command again"
        ) from error


def _discard_after(file: Path, step: int, workdir: Path) -> None:
    """Drop the lines of steps that a resumed run of `workdir` repeats, and a line that is cut off."""
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    kept = [line for line in lines if training_log.step_of(line) <= step]
    if file.exists():
        with atomic_write(file) as new:
            new.write_text("".join(line + "\n" for line in kept))
    last = max(map(training_log.step_of, kept), default=0)
    if last < step:
        lost = f"'{workdir / file.name}' has lost the metrics of steps {last + 1} to {step}"
        warnings.warn(lost, CorruptDataWarning, stacklevel=3)
