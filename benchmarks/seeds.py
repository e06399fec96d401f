"""Several seeds on one device: one run after the other, all as one by `vmap`, or side by side.

    python benchmarks/seeds.py --json seeds.json

Images a second of training with masking, of all seeds together, on random images. "in turn" has the whole machine for
one run; "vmap" trains all as one program; "side by side" has a process for each seed, on CPU with cores of its own,
which is what `python -m studies --at_once` does: its samples are sums over processes that time themselves at once.
"""

import os
import subprocess
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from cifar import NUM_CLASSES, base, normalization_of
from timing import Result, interleaved, prepare, report

from anchor_jax import models
from anchor_jax.cli import app
from anchor_jax.config import Config
from anchor_jax.core.errors import UserError
from anchor_jax.runs import state
from anchor_jax.runs.state import Totals
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training import optimizer
from anchor_jax.training.model_batch import TrainData
from anchor_jax.training.step import make_in_memory_step, make_train_step

NUM_IMAGES = 10_000

JSON = flags.DEFINE_string("json", None, "Where the numbers go.")
SEEDS = flags.DEFINE_integer("seeds", 2, "How many.", lower_bound=2)
WIDTH = flags.DEFINE_integer("width", 16, "Channels of the first stage of resnet18.", lower_bound=1)
STAGES = flags.DEFINE_integer("stages", 3, "Of one block each, as in the reduced studies; 4: two each.", 3, 4)
SIDE = flags.DEFINE_integer("side", 16, "Of the images.", lower_bound=8)
SAMPLES = flags.DEFINE_integer("samples", 5, "Of each implementation.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 50, "Steps a sample.", lower_bound=1)
IS_ONE_OF_MANY = flags.DEFINE_bool("one_of_many", False, "Print the speed of one run in every sample; for itself.")


def main() -> None:
    """Time all three, print a table, write the file."""
    prepare()
    if IS_ONE_OF_MANY.value:
        train = training(config_of(), num_seeds=1)
        print(*(rate(1, seconds) for seconds in interleaved({"": lambda: train(STEPS.value)}, SAMPLES.value)[""]))
        return
    one, all_as_one = (training(config_of(), num_seeds) for num_seeds in (1, SEEDS.value))
    runs = {"in turn": lambda: one(STEPS.value), "vmap": lambda: all_as_one(STEPS.value)}
    seconds = interleaved(runs, SAMPLES.value)
    rates = {
        "in turn": [rate(1, each) for each in seconds["in turn"]],
        "vmap": [rate(SEEDS.value, each) for each in seconds["vmap"]],
        "side by side": side_by_side(),
    }
    blocks = "(1, 1, 1)" if STAGES.value == 3 else "(2, 2, 2, 2)"
    case = f"masked, resnet18 width {WIDTH.value}, blocks {blocks}, {SIDE.value}×{SIDE.value}, batch 128"
    case += f", {SEEDS.value} seeds"
    results = [Result(case, name, "images_per_second", "images/s", of_name) for name, of_name in rates.items()]
    report("seeds", {"steps_per_sample": STEPS.value}, results, JSON.value)


def config_of() -> Config:
    """Of the run that is timed."""
    config = base()
    config.augmentation.crop_padding, config.augmentation.flip = 2, True
    config.model.options.width = WIDTH.value
    if STAGES.value == 3:
        config.model.options.stage_sizes = (1, 1, 1)
    return config


def training(config: Config, num_seeds: int) -> Callable[[int], None]:
    """Trains so many networks as one for a number of steps, compiled already, and returns when they are done."""
    rng, mesh = np.random.default_rng(0), mesh_lib.mesh(1)
    images = rng.integers(0, 256, (NUM_IMAGES, SIDE.value, SIDE.value, 3), np.uint8)
    examples = np.arange(NUM_IMAGES, dtype=np.int32)
    images, labels = mesh_lib.replicate((images, examples % NUM_CLASSES), mesh)
    data = TrainData(images, labels, bank_images=images)
    model = models.create("resnet18", NUM_CLASSES, axis_name=mesh_lib.AXIS, **dict(config.model.options))
    transformation = optimizer.create(config.optimizer, optimizer.create_schedule(config.optimizer, 100, 10_000))
    step = make_train_step(model, transformation, config, normalization_of(config))
    step = make_in_memory_step(step, config.training.batch_size)
    keys = jax.random.split(jax.random.key(0), num_seeds)

    def created(key):
        return state.create_state(model, transformation, key, (1, SIDE.value, SIDE.value, 6))

    if num_seeds == 1:
        carry = jax.jit(created)(keys[0]), Totals.zeros()
    else:
        step = jax.vmap(step, in_axes=(0, None, None))
        carry = jax.jit(jax.vmap(created))(keys), jax.tree.map(lambda zero: jnp.zeros(num_seeds), Totals.zeros())
    run_steps, carry = mesh_lib.run_n_steps(step, mesh), mesh_lib.replicate(carry, mesh)

    def train(num_steps):
        nonlocal carry
        carry = jax.block_until_ready(run_steps(carry, num_steps, data, examples))

    train(1)
    return train


def side_by_side() -> list[float]:
    """The sum of what so many processes of this benchmark print."""
    cores = sorted(os.sched_getaffinity(0))
    given = (f"--{flag.name}={flag.value}" for flag in (SEEDS, WIDTH, STAGES, SIDE, SAMPLES, STEPS))
    line = [sys.executable, __file__, "--one_of_many", *given]
    processes = []
    for first in range(SEEDS.value):
        os.sched_setaffinity(0, cores[first :: SEEDS.value] or cores)  # which the process inherits
        settings = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        processes.append(subprocess.Popen(line, env=settings, stdout=subprocess.PIPE, text=True))
    os.sched_setaffinity(0, cores)
    printed = [process.communicate()[0].split() for process in processes]
    if failed := [process.returncode for process in processes if process.returncode]:
        raise UserError(f"a process of this benchmark ended with {failed[0]}; what it said stands above")
    return [sum(map(float, of_all)) for of_all in zip(*printed, strict=True)]


def rate(num_seeds: int, seconds: float) -> float:
    """Images a second, of all seeds together."""
    return num_seeds * STEPS.value * config_of().training.batch_size / seconds


if __name__ == "__main__":
    app.run(main)
