"""Progress bars on a terminal: one for everything that a suite predicts, with the time left."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress, TaskID

from anchor_jax.data import EvalDataset
from anchor_jax.evaluation.presentation import format_num_references
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runtime import multihost


class _Bar(NamedTuple):
    progress: Progress
    task: TaskID
    title: str


_shared: ContextVar[_Bar | None] = ContextVar("shared progress bar", default=None)


@contextlib.contextmanager
def progress_bar(title: str, num_predictions: int) -> Iterator[None]:
    """Show one bar for all batches that are read inside the block; a bar of an outer block goes on instead.

    Args:
      title: its beginning.
      num_predictions: how many images are predicted, each counted once per reference; 0 if that is unknown, which
        leaves a bar to each dataset.
    """
    if _shared.get() or not num_predictions:
        yield
        return
    with _bar(title, num_predictions) as bar:
        token = _shared.set(bar)
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
        shared = _shared.get()
        bar = shared or stack.enter_context(_bar(title, weight * stream.num_examples))
        if shared:
            bar.progress.update(bar.task, description=f"{bar.title}: {title}")
        for batch in stream.batches(predictor.size_for(stream.num_examples)):
            yield batch
            bar.progress.advance(bar.task, weight * len(batch[0]))


@contextlib.contextmanager
def _bar(title: str, total: int) -> Iterator[_Bar]:
    console = Console()
    disable = not (console.is_terminal and multihost.is_primary())
    with Progress(console=console, transient=True, disable=disable) as progress:
        yield _Bar(progress, progress.add_task(title, total=total), title)
