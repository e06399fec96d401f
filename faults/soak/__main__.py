"""Train for long in one process, and look whether anything grows: memory, arrays, open files, threads.

    python -m faults.soak --json soak.json

A tiny run takes many steps, with checkpoints and evaluations in between. Before each checkpoint the process is looked
at: its memory, the arrays of JAX that are alive and their bytes, open file descriptors, threads. The first
tenth is left out, in which programs are compiled and pools filled. Over the rest memory may grow by --most_growth MiB
in 1,000 steps, by the slope of a straight line, and the others not at all: their median in the last tenth may not be
above that in the second. The exit status is 0 only if all of that holds.
"""

import gc
import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

from anchor_jax import command
from anchor_jax.data import load_train
from anchor_jax.errors import UserError
from anchor_jax.training import checkpoint
from anchor_jax.training.loop import train
from benchmarks.measuring import Result, report

MIB = 2**20

CONFIG = config_flags.DEFINE_config_file("config", "faults/small_run.py:mlp", "What is trained.")
JSON = flags.DEFINE_string("json", None, "The result file.")
STEPS = flags.DEFINE_integer("steps", 20_000, "Of training.", lower_bound=1)
LOOKS = flags.DEFINE_integer("looks", 50, "Checkpoints, evaluations and samples.", lower_bound=20)
MOST_GROWTH = flags.DEFINE_float("most_growth", 0.5, "Of memory, in MiB in 1,000 steps.", lower_bound=0)


class Sample(NamedTuple):
    """What the process held after a step."""

    step: int
    memory: float  # MiB, resident, that no file backs
    arrays: int  # of JAX, alive
    array_memory: float  # MiB
    descriptors: int  # open
    threads: int  # but for those of tensorstore, whose number comes and goes


UNITS = {"memory": "MiB", "arrays": "1", "array_memory": "MiB", "descriptors": "1", "threads": "1"}


def main() -> None:
    """Train and look, then judge."""
    config = command.loaded(CONFIG)
    steps_per_epoch = len(load_train(config.data, config.seed)[0].images) // config.training.batch_size
    config.training.total_epochs = epochs = STEPS.value / steps_per_epoch
    config.checkpoint.every_epochs = config.evaluation.every_epochs = epochs / LOOKS.value
    config.logging.every_steps = 0
    with tempfile.TemporaryDirectory() as workdir, sampled() as samples:
        train(config, Path(workdir))
    _judge(samples)


@contextmanager
def sampled() -> Iterator[list[Sample]]:
    """What this process holds before each checkpoint that it saves, once the one before is on disk."""
    samples: list[Sample] = []
    save = checkpoint.save

    def look_and_save(checkpoints, state, *rest):
        checkpoints.wait_until_finished()
        samples.append(_sample(int(state.step)))
        save(checkpoints, state, *rest)

    with mock.patch.object(checkpoint, "save", look_and_save):
        yield samples


def _sample(step: int) -> Sample:
    gc.collect()
    arrays = jax.live_arrays()
    return Sample(
        step,
        memory=_memory(),
        arrays=len(arrays),
        array_memory=sum(array.nbytes for array in arrays) / MIB,
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=sum(file.read_text() != "ts_pool_worker\n" for file in Path("/proc/self/task").glob("*/comm")),
    )


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


def _judge(samples: list[Sample]) -> None:
    """Report what was found.

    Raises:
      UserError: something grew.
    """
    slope, more = growth(samples), grown(samples)
    case = f"{samples[-1].step:,} steps, {len(samples)} checkpoints and evaluations"
    results = [
        Result(case, "anchor_jax", name, unit, [getattr(it, name) for it in samples]) for name, unit in UNITS.items()
    ]
    results.append(Result(case, "anchor_jax", "growth_of_memory", "MiB/1,000 steps", [slope]))
    facts = {"config": config_flags.get_config_filename(flags.FLAGS["config"]), "most_growth": MOST_GROWTH.value}
    report("A long run in one process", facts, results, JSON.value)
    if slope > MOST_GROWTH.value:
        more.append(f"memory by {slope:.3g} MiB in 1,000 steps (at most {MOST_GROWTH.value:g} are allowed)")
    if more:
        raise UserError(f"what grew in {samples[-1].step:,} steps: {', '.join(more)}")


if __name__ == "__main__":
    command.run(main)
