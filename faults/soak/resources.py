"""What a process that trains holds, checkpoint after checkpoint."""

import contextlib
import ctypes
import gc
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np

from anchor_jax.runs import checkpoint

MIB = 2**20


class Sample(NamedTuple):
    """What the process held after a step."""

    step: int
    memory: float  # MiB, resident, that no file backs
    arrays: int  # of JAX, alive
    array_memory: float  # MiB
    descriptors: int  # open
    threads: int  # but for those of tensorstore, whose number comes and goes


UNITS = {"memory": "MiB", "arrays": "1", "array_memory": "MiB", "descriptors": "1", "threads": "1"}


@contextlib.contextmanager
def sampled() -> Iterator[list[Sample]]:
    """What this process holds before each checkpoint that it saves, once the one before is on disk."""
    samples: list[Sample] = []
    save = checkpoint.save

    def look_and_save(checkpoints, saved, *rest):
        checkpoints.wait_until_finished()
        samples.append(_sample(int(saved.carry[0].step)))
        save(checkpoints, saved, *rest)

    with mock.patch.object(checkpoint, "save", look_and_save):
        yield samples


def _sample(step: int) -> Sample:
    gc.collect()
    _give_back_freed()
    arrays = jax.live_arrays()
    return Sample(
        step,
        memory=_memory(),
        arrays=len(arrays),
        array_memory=sum(array.nbytes for array in arrays) / MIB,
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=sum(file.read_text() != "ts_pool_worker\n" for file in Path("/proc/self/task").glob("*/comm")),
    )


def _give_back_freed() -> None:
    """Let glibc give back to the system what is free, which it does at a time of its own; others do as they do."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _memory() -> float:
    """MiB of this process that no file backs, since pages of files come and go as the system likes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def growth(samples: list[Sample]) -> float:
    """Of memory over all but the first tenth, by a straight line: MiB in 1,000 steps."""
    steps, memory = zip(*((1e-3 * it.step, it.memory) for it in samples[len(samples) // 10 :]), strict=True)
    return float(np.polyfit(steps, memory, 1)[0])


def grown(samples: list[Sample]) -> list[str]:
    """What else is more in the last tenth than in the second, by the median."""
    tenth = len(samples) // 10
    before, after = samples[tenth : 2 * tenth], samples[-tenth:]
    return [
        name
        for name in UNITS
        if name != "memory"
        and statistics.median(getattr(it, name) for it in after) > statistics.median(getattr(it, name) for it in before)
    ]
