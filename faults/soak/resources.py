"""Sample the resources of a training process before each checkpoint."""

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
    """Resources of the process after a step."""

    step: int
    memory: float  # MiB, resident and anonymous (not backed by a file)
    arrays: int  # live JAX arrays
    array_memory: float  # MiB
    descriptors: int  # open files
    threads: int  # except those of tensorstore, whose number varies


UNITS = {"memory": "MiB", "arrays": "1", "array_memory": "MiB", "descriptors": "1", "threads": "1"}


@contextlib.contextmanager
def sample_resources() -> Iterator[list[Sample]]:
    """Sample this process before each checkpoint it saves, after the previous one is on disk."""
    samples: list[Sample] = []
    save = checkpoint.save

    def sample_and_save(checkpoints, saved, *rest):
        checkpoints.wait_until_finished()
        samples.append(_sample(int(saved.carry[0].step)))
        save(checkpoints, saved, *rest)

    with mock.patch.object(checkpoint, "save", sample_and_save):
        yield samples


def _sample(step: int) -> Sample:
    gc.collect()
    _trim_heap()
    arrays = jax.live_arrays()
    return Sample(
        step,
        memory=_memory(),
        arrays=len(arrays),
        array_memory=sum(array.nbytes for array in arrays) / MIB,
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=sum(file.read_text() != "ts_pool_worker\n" for file in Path("/proc/self/task").glob("*/comm")),
    )


def _trim_heap() -> None:
    """Make glibc return free memory to the system; other C libraries have no such function."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _memory() -> float:
    """Return the anonymous resident memory in MiB; the system evicts file-backed pages at will."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def memory_growth(samples: list[Sample]) -> float:
    """Return the slope of a linear fit to memory in MiB per 1,000 steps, without the first tenth of the samples."""
    steps, memory = zip(*((1e-3 * sample.step, sample.memory) for sample in samples[len(samples) // 10 :]), strict=True)
    return float(np.polyfit(steps, memory, 1)[0])


def growing_resources(samples: list[Sample]) -> list[str]:
    """Return the resources, other than memory, whose median is higher in the last tenth than in the second."""
    tenth = len(samples) // 10
    before, after = samples[tenth : 2 * tenth], samples[-tenth:]
    return [
        name
        for name in UNITS
        if name != "memory"
        and statistics.median(getattr(sample, name) for sample in after)
        > statistics.median(getattr(sample, name) for sample in before)
    ]
