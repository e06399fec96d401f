"""Train for long in one process, and look whether anything grows: memory, arrays, open files, threads.

    python -m faults.soak --json soak.json

A tiny run takes many steps, with checkpoints and evaluations in between. Before each checkpoint the process is looked
at: its memory, the arrays of JAX that are alive and their bytes, open file descriptors, threads. The first
tenth is left out, in which programs are compiled and pools filled. Over the rest memory may grow by --most_growth MiB
in 1,000 steps, by the slope of a straight line, and the others not at all: their median in the last tenth may not be
above that in the second. The exit status is 0 only if all of that holds.
"""

import sys
import tempfile
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from anchor_jax.cli import app
from anchor_jax.core.errors import UserError
from anchor_jax.data import load_train
from anchor_jax.training.loop import train
from benchmarks.report import Result, report
from faults.soak.resources import UNITS, Sample, grown, growth, sampled

CONFIG = config_flags.DEFINE_config_file("config", "faults/small_run.py:mlp", "What is trained.")
JSON = flags.DEFINE_string("json", None, "The result file.")
STEPS = flags.DEFINE_integer("steps", 20_000, "Of training.", lower_bound=1)
LOOKS = flags.DEFINE_integer("looks", 50, "Checkpoints, evaluations and samples.", lower_bound=20)
MOST_GROWTH = flags.DEFINE_float("most_growth", 0.5, "Of memory, in MiB in 1,000 steps.", lower_bound=0)


def main() -> None:
    """Train and look, then judge."""
    config = app.load_config(CONFIG)
    steps_per_epoch = len(load_train(config.data, config.seed)[0].images) // config.training.batch_size
    config.training.total_epochs = epochs = STEPS.value / steps_per_epoch
    config.checkpoint.every_epochs = config.evaluation.every_epochs = epochs / LOOKS.value
    config.logging.every_steps = 0
    with tempfile.TemporaryDirectory() as workdir, sampled() as samples:
        train(config, Path(workdir))
    _judge(samples)


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
    facts = {
        "command": " ".join(["python -m faults.soak", *sys.argv[1:]]),
        "config": config_flags.get_config_filename(flags.FLAGS["config"]),
        "seed": app.load_config(CONFIG).seed,
        "most_growth": MOST_GROWTH.value,
    }
    report("A long run in one process", facts, results, JSON.value)
    if slope > MOST_GROWTH.value:
        more.append(f"memory by {slope:.3g} MiB in 1,000 steps (at most {MOST_GROWTH.value:g} are allowed)")
    if more:
        raise UserError(f"what grew in {samples[-1].step:,} steps: {', '.join(more)}")


if __name__ == "__main__":
    app.run(main)
