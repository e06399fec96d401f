"""Compute the batches of a training stream ahead of the training loop, in threads or worker processes of grain."""

import itertools
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from anchor_jax.core.errors import UserError
from anchor_jax.data.train_batches import BatchPart, BatchParts

_BATCHES_AHEAD = 2


def prefetch(parts: BatchParts, num_workers: int) -> Any:
    """Return an iterator over complete batches (`BatchPart`), without end.

    Args:
      parts: of the batches.
      num_workers: number of processes; 0 uses threads of this process.
    """
    import grain  # takes a moment to import

    if not flags.FLAGS.is_parsed():  # grain reads flags of its own, also in a program without a command line
        flags.FLAGS.mark_as_parsed()
    ahead = _BATCHES_AHEAD * parts.per_batch
    num_threads = 0 if num_workers else os.cpu_count() or 1
    options = grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=max(ahead, num_threads) * bool(num_threads)
    )
    loaded = grain.MapDataset.range(sys.maxsize).map(parts.load).to_iter_dataset(options)
    if num_workers:
        workers = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=math.ceil(ahead / num_workers))
        loaded = loaded.mp_prefetch(workers, worker_init_fn=_init_worker)
    return iter(loaded.batch(parts.per_batch, batch_fn=_concatenate))


def next_batch(batches: Any) -> BatchPart:
    """Return the next batch of `prefetch`.

    Raises:
      UserError: one was raised in a worker, or a worker process was killed.
    """
    try:
        return next(batches)
    except UserError as error:
        raise UserError(*error.args) from error  # without the lines that grain appends
    except RuntimeError as error:
        if "Worker process was terminated" not in str(error):
            raise
        raise UserError(
            f"an input worker process was killed ({error}); if memory is exhausted, decrease config.data.workers"
        ) from error


def _concatenate(parts: Sequence[BatchPart]) -> BatchPart:
    images, labels, rows, corrupt = zip(*parts, strict=True)
    return BatchPart(
        np.concatenate(images), np.concatenate(labels), np.concatenate(rows), list(itertools.chain(*corrupt))
    )


def _init_worker(*_: int) -> None:
    """Set up a worker process: it ends when its parent ends, and does not use an accelerator."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent gets them, too, and ends its workers once it has saved
    jax.config.update("jax_platforms", "cpu")
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
