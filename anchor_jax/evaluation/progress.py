"""Progress of an evaluation with the time left: one bar on a terminal, and a line now and then in a log."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

from anchor_jax.data import EvalDataset
from anchor_jax.evaluation.presentation import format_num_references
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runtime import multihost

_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds between two lines of a log


class LogLines:
    """Prints progress as lines on standard error, where there is no terminal.

    The first line comes after a second, each further one after half the time so far, at most a minute. The time left
    follows from the speed since the line before, because programs are compiled in the beginning.
    """

    def __init__(self) -> None:
        self._started = self._last = monotonic()
        self._last_done = 0.0

    def advanced(self, done: float, total: float, title: str) -> None:
        """Print a line if it is time for one."""
        now = monotonic()
        pause = min(max((self._last - self._started) / 2, _SHORTEST_PAUSE), _LONGEST_PAUSE)
        if now < self._last + pause:
            return
        left = format_seconds((now - self._last) * max(total - done, 0) / (done - self._last_done))
        self._last, self._last_done = now, done
        print(f"progress: {min(done / total, 1):.0%}, {left} left: {title}", file=sys.stderr, flush=True)

    def finished(self) -> None:
        """Print how long everything took, if there were other lines."""
        if self._last_done:
            print(f"progress: done in {format_seconds(monotonic() - self._started)}", file=sys.stderr, flush=True)


@dataclasses.dataclass
class _Bar:
    """What is shown: a bar of rich, or lines."""

    progress: Progress
    task: TaskID
    lines: LogLines | None
    total: float
    done: float = 0.0

    def advance(self, num: float, title: str) -> None:
        self.done += num
        self.progress.advance(self.task, num)
        if self.lines:
            self.lines.advanced(self.done, self.total, title)

    def extend(self, num: float) -> None:
        self.total += num
        self.progress.update(self.task, total=self.total)


@dataclasses.dataclass(frozen=True)
class _Part:
    """A part of a bar: what it is called, and whether its length was counted when the bar was made."""

    bar: _Bar
    title: str
    is_counted: bool


_shared: ContextVar[_Part | None] = ContextVar("shared progress bar", default=None)


@contextlib.contextmanager
def progress_bar(title: str, num_predictions: int) -> Iterator[None]:
    """Show one bar for all batches that are read inside the block; a bar of an outer block goes on instead.

    Args:
      title: the beginning of what it shows, or "".
      num_predictions: how many images are predicted, each counted once per reference. 0 if that is unknown: each
        dataset then has a bar of its own, or makes the bar of an outer block longer.
    """
    outer = _shared.get()
    if not outer and not num_predictions:
        yield
        return
    with contextlib.ExitStack() as stack:
        bar = outer.bar if outer else stack.enter_context(_bar(title, num_predictions))
        token = _shared.set(_Part(bar, title, is_counted=num_predictions > 0))
        try:
            yield
        finally:
            _shared.reset(token)


def with_progress(
    stream: EvalDataset, predictor: Predictor, title: str, num_references: int
) -> Iterator[tuple[Any, ...]]:
    """Yield the batches of a dataset, of the predictor's size, and move the bar of the block, or one of its own.

    Args:
      stream: the dataset.
      predictor: that the batches are for.
      title: of the dataset.
      num_references: K, to which the time of a batch is about proportional; 0 for a standard network.
    """
    weight, title = max(num_references, 1), f"{title}, {format_num_references(num_references)}"
    with contextlib.ExitStack() as stack:
        part = _shared.get()
        bar = part.bar if part else stack.enter_context(_bar(title, weight * stream.num_examples))
        if part:
            title = f"{part.title}: {title}" if part.title else title
            bar.progress.update(bar.task, description=title)
            if not part.is_counted:
                bar.extend(weight * stream.num_examples)
        for batch in stream.batches(predictor.size_for(stream.num_examples)):
            yield batch
            bar.advance(weight * len(batch[0]), title)


@contextlib.contextmanager
def _bar(title: str, total: int) -> Iterator[_Bar]:
    console = Console()
    lines = None if console.is_terminal or not multihost.is_primary() else LogLines()
    disable = not (console.is_terminal and multihost.is_primary())
    with Progress(console=console, transient=True, disable=disable) as progress:
        yield _Bar(progress, progress.add_task(title, total=total), lines, total)
    if lines:
        lines.finished()


def format_seconds(seconds: float) -> str:
    """Return a time as minutes and seconds, or as hours, minutes and seconds.

    >>> format_seconds(75.4), format_seconds(3_675)
    ('1:15', '1:01:15')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
