"""Train for many steps in one process and check that memory, arrays, open files and threads do not grow.

    python -m faults.soak --steps 20000 --json soak.json

A tiny run with checkpoints and evaluations is sampled before each checkpoint. The first tenth of the samples is not
used, because programs are compiled and pools filled then. In the rest, memory may grow by --most_growth MiB per 1,000
steps (the slope of a linear fit). Other resources must not grow: their median in the last tenth of the samples must
not exceed that in the second. The exit status is 0 only if all of this holds.
"""

import tempfile
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from anchor_jax.cli import app
from anchor_jax.core.errors import UserError
from anchor_jax.data import load_train
from anchor_jax.training.loop import train
from benchmarks.report import Result, report
from faults.soak.resources import UNITS, Sample, growing_resources, memory_growth, sample_resources

CONFIG = config_flags.DEFINE_config_file("config", "faults/small_run.py:mlp", "Config of the run.")
JSON = app.define_path("json", None, "Result file.", what="a new file")
STEPS = flags.DEFINE_integer("steps", 20_000, "Training steps.", lower_bound=1)
LOOKS = flags.DEFINE_integer("looks", 50, "Number of checkpoints, evaluations and samples.", lower_bound=20)
MOST_GROWTH = flags.DEFINE_float("most_growth", 0.5, "Allowed growth of memory, in MiB per 1,000 steps.", lower_bound=0)


def main() -> None:
    """Train, then check the samples."""
    config = app.load_config(CONFIG)
    steps_per_epoch = len(load_train(config.data, config.seed)[0].images) // config.training.batch_size
    config.training.total_epochs = epochs = STEPS.value / steps_per_epoch
    config.checkpoint.every_epochs = config.evaluation.every_epochs = epochs / LOOKS.value
    config.logging.every_steps = 0
    with tempfile.TemporaryDirectory() as workdir, sample_resources() as samples:
        train(config, Path(workdir))
    _check(samples)


def _check(samples: list[Sample]) -> None:
    """Report the samples.

    Raises:
      UserError: a resource grew.
    """
    slope, growing = memory_growth(samples), growing_resources(samples)
    case = f"{samples[-1].step:,} steps, {len(samples)} checkpoints and evaluations"
    results = [
        Result(case, "anchor_jax", name, unit, [getattr(sample, name) for sample in samples])
        for name, unit in UNITS.items()
    ]
    results.append(Result(case, "anchor_jax", "growth_of_memory", "MiB/1,000 steps", [slope]))
    facts = {
        "config": config_flags.get_config_filename(flags.FLAGS["config"]),
        "seed": app.load_config(CONFIG).seed,
        "most_growth": MOST_GROWTH.value,
    }
    report("A long run in one process", facts, results, JSON.value)
    if slope > MOST_GROWTH.value:
        growing.append(f"memory by {slope:.3g} MiB per 1,000 steps (allowed: {MOST_GROWTH.value:g})")
    if growing:
        raise UserError(f"resources grew in {samples[-1].step:,} steps: {', '.join(growing)}")


if __name__ == "__main__":
    app.run(main)
