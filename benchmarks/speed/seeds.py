"""Time training with several seeds on one device: one after another, with `vmap`, or in parallel processes.

    python -m benchmarks.speed.seeds --seeds 2 --json seeds.json

Measures the throughput of training with masking on random images, summed over the seeds:

in turn       one run at a time uses the complete machine
vmap          one program trains all seeds
side by side  one process per seed, on CPU each with its own cores, as in `python -m studies --at_once`
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from anchor_jax import models
from anchor_jax.cli import app
from anchor_jax.config import Config
from anchor_jax.core.errors import UserError
from anchor_jax.data.image_table import ImageTable
from anchor_jax.runs import state
from anchor_jax.runs.state import Totals
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training import optimizer
from anchor_jax.training.model_batch import TrainData
from anchor_jax.training.step import make_in_memory_step, make_train_step
from benchmarks.report import Result, report
from benchmarks.speed.cifar import NUM_CLASSES, base, normalization_of
from benchmarks.timing import prepare, time_interleaved

ROOT = Path(__file__).parents[2]
NUM_IMAGES = 10_000

JSON = app.define_path("json", None, "Result file.", what="a new file")
SEEDS = flags.DEFINE_integer("seeds", 2, "Number of seeds.", lower_bound=2)
WIDTH = flags.DEFINE_integer("width", 16, "Channels of the first stage of resnet18.", lower_bound=1)
STAGES = flags.DEFINE_integer("stages", 3, "3: one block each, as in the reduced studies; 4: two blocks each.", 3, 4)
SIDE = flags.DEFINE_integer("side", 16, "Height and width of the images.", lower_bound=8)
SAMPLES = flags.DEFINE_integer("samples", 5, "Samples of each implementation.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 50, "Steps per sample.", lower_bound=1)
IS_WORKER = flags.DEFINE_bool("worker", False, "Internal: print the throughput of one run in every sample.")


def main() -> None:
    """Time all three ways."""
    prepare()
    if IS_WORKER.value:
        train = create_training(study_config(), num_seeds=1)
        print(*(throughput(1, s) for s in time_interleaved({"": lambda: train(STEPS.value)}, SAMPLES.value)[""]))
        return
    single, vmapped = (create_training(study_config(), num_seeds) for num_seeds in (1, SEEDS.value))
    runs = {"in turn": lambda: single(STEPS.value), "vmap": lambda: vmapped(STEPS.value)}
    seconds = time_interleaved(runs, SAMPLES.value)
    throughputs = {
        "in turn": [throughput(1, s) for s in seconds["in turn"]],
        "vmap": [throughput(SEEDS.value, s) for s in seconds["vmap"]],
        "side by side": run_side_by_side(),
    }
    blocks = "(1, 1, 1)" if STAGES.value == 3 else "(2, 2, 2, 2)"
    case = f"masked, resnet18 width {WIDTH.value}, blocks {blocks}, {SIDE.value}×{SIDE.value}, batch 128"
    case += f", {SEEDS.value} seeds"
    results = [Result(case, name, "images_per_second", "images/s", samples) for name, samples in throughputs.items()]
    report("seeds", {"steps_per_sample": STEPS.value}, results, JSON.value)


def study_config() -> Config:
    """Return the config of the timed run."""
    config = base()
    config.augmentation.crop_padding, config.augmentation.flip = 2, True
    config.model.options.width = WIDTH.value
    if STAGES.value == 3:
        config.model.options.stage_sizes = (1, 1, 1)
    return config


def create_training(config: Config, num_seeds: int) -> Callable[[int], None]:
    """Return a compiled function that trains one network per seed, in one program, for a number of steps."""
    rng, mesh = np.random.default_rng(0), mesh_lib.mesh(1)
    images = rng.integers(0, 256, (NUM_IMAGES, SIDE.value, SIDE.value, 3), np.uint8)
    examples = np.arange(NUM_IMAGES, dtype=np.int32)
    images, labels = mesh_lib.replicate((ImageTable.of(images), examples % NUM_CLASSES), mesh)
    data = TrainData(images, labels, bank_images=images)
    model = models.create("resnet18", NUM_CLASSES, axis_name=mesh_lib.AXIS, **dict(config.model.options))
    transformation = optimizer.create(config.optimizer, optimizer.create_schedule(config.optimizer, 100, 10_000))
    step = make_train_step(model, transformation, config, normalization_of(config))
    step = make_in_memory_step(step, config.training.batch_size)
    keys = jax.random.split(jax.random.key(0), num_seeds)

    def create(key):
        return state.create_state(model, transformation, key, (1, SIDE.value, SIDE.value, 6))

    if num_seeds == 1:
        carry = jax.jit(create)(keys[0]), Totals.zeros()
    else:
        step = jax.vmap(step, in_axes=(0, None, None))
        carry = jax.jit(jax.vmap(create))(keys), jax.tree.map(lambda zero: jnp.zeros(num_seeds), Totals.zeros())
    run_steps, carry = mesh_lib.run_n_steps(step, mesh), mesh_lib.replicate(carry, mesh)

    def train(num_steps):
        nonlocal carry
        carry = jax.block_until_ready(run_steps(carry, num_steps, data, examples))

    train(1)
    return train


def run_side_by_side() -> list[float]:
    """Run one worker process per seed at the same time; return the sums of their throughputs, one per sample."""
    cores = sorted(os.sched_getaffinity(0))
    given = (f"--{flag.name}={flag.value}" for flag in (SEEDS, WIDTH, STAGES, SIDE, SAMPLES, STEPS))
    line = [sys.executable, "-m", "benchmarks.speed.seeds", "--worker", *given]
    processes = []
    for first in range(SEEDS.value):
        os.sched_setaffinity(0, cores[first :: SEEDS.value] or cores)  # inherited by the process
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        processes.append(subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True))
    os.sched_setaffinity(0, cores)
    printed = [process.communicate()[0].split() for process in processes]
    if failed := [process.returncode for process in processes if process.returncode]:
        raise UserError(f"a worker process exited with status {failed[0]}; see its output above")
    return [sum(map(float, sample)) for sample in zip(*printed, strict=True)]


def throughput(num_seeds: int, seconds: float) -> float:
    """Return the images per second of all seeds together."""
    return num_seeds * STEPS.value * study_config().training.batch_size / seconds


if __name__ == "__main__":
    app.run(main)
