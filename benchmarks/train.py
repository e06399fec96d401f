"""Images a second of the whole training step, here and in PyTorch, on the same random images.

    python benchmarks/train.py --official ../anchoring --json train.json

A step is the whole of what training does: random crop and mirror, references, mask, forward, backward and update, on
one device, which holds the data set; the released code does it as it was released. One sample is so many steps and a
wait for the device; the implementations take theirs in turn, each compiled before. "compile_time" is what a first
step takes beyond another, with nothing compiled by an earlier run. The loaders of the released code prepare some
batches ahead, which its next sample finds ready, while the next implementation has its turn.

"time_ratio" is what anchored training takes over what standard training takes, these two in turn as well.
"fraction_of_peak" is the floating-point work of the steps over what the same device does in the same time in a large
matrix product of random numbers of the same dtype (on a GPU float32 means TF32 in both). A step is taken for three
forward passes, and a forward pass for what XLA counts in it before it compiles it (`Lowered.cost_analysis`, on the
CPU, where it is to be had on every platform); products with the zeros that pad a convolution do not count.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from cifar import IMAGE_SHAPE, NUM_CLASSES, base, normalization_of, random_images
from timing import Result, forward_flop, installed_pytorch, interleaved, peak_rates, prepare, report

from anchor_jax import models
from anchor_jax.cli import app
from anchor_jax.config import Config
from anchor_jax.core.errors import UserError, unknown
from anchor_jax.models.layers import Classifier
from anchor_jax.runs import state
from anchor_jax.runs.state import Totals
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training import optimizer
from anchor_jax.training.model_batch import TrainData
from anchor_jax.training.step import make_in_memory_step, make_train_step

NUM_IMAGES = 50_000  # as CIFAR-10

# what of config.anchoring makes the case
CASES = {"standard": {"enabled": False}, "anchored": {"mask_prob": 0.0}, "masked": {"mask_prob": 0.25}}

JSON = flags.DEFINE_string("json", None, "Where the numbers go.")
OFFICIAL = flags.DEFINE_string("official", "", "A clone of LLNL/anchoring, the released code, to be timed too.")
MODEL = flags.DEFINE_string("model", "resnet18", "A name of anchor_jax.models; PyTorch takes part in resnet18 alone.")
WIDTH = flags.DEFINE_integer("width", 64, "Channels of the first stage of resnet18.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=1, upper_bound=NUM_IMAGES)
DTYPE = flags.DEFINE_enum("dtype", "float32", list(models.DTYPES), "Of activations; the released code has float32.")
SAMPLES = flags.DEFINE_integer("samples", 5, "Samples of each implementation.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", None, "Steps a sample; 100 by default, on CPU 2.", lower_bound=1)
CASE_NAMES = flags.DEFINE_list("cases", list(CASES), f"Of {', '.join(CASES)}.")
IMPLEMENTATIONS = flags.DEFINE_list("implementations", None, "Those to time, by name; all by default.")

OURS = "anchor_jax"

Steps = Callable[[int], None]  # trains for so many steps, and returns when they are done
Builders = Mapping[str, Callable[[], Steps]]


class Timing(NamedTuple):
    """Seconds of one implementation."""

    first_step: float
    samples: list[float]


def main() -> None:
    """Time every case, print a table, write the file."""
    prepare()
    configs = {case: config_of(case) for case in CASE_NAMES.value}
    pytorch = installed_pytorch() if MODEL.value == "resnet18" else None
    released = pytorch.Released.load(Path(OFFICIAL.value), WIDTH.value) if pytorch and OFFICIAL.value else None
    num_steps = STEPS.value or (2 if jax.default_backend() == "cpu" else 100)
    images, labels = random_data()

    flop = {case: flop_of_step(config) for case, config in configs.items()}
    peaks = {dtype: peak_rates(dtype) for dtype in sorted({"float32", DTYPE.value})}
    results = [Result(f"matrix product, {dtype}", "jax", "flop_rate", "FLOP/s", peaks[dtype]) for dtype in peaks]
    for case, config in configs.items():
        builders: Builders = {OURS: partial(own_training, config, images, labels)}
        if pytorch:
            builders |= pytorch.baselines(config, WIDTH.value, images, labels)
        if pytorch and released and config.anchoring.enabled:
            builders |= pytorch.released_training(released, config, images, labels)
        for name, timing in timed(chosen(case, builders), num_steps).items():
            dtype = "float32" if name.startswith("released") else DTYPE.value
            results += results_of(
                described(case, config, dtype), name, timing, num_steps, flop[case] / max(peaks[dtype])
            )
    results += time_ratios(configs, images, labels, num_steps)
    facts = {"steps_per_sample": num_steps, "flop_per_step": flop}
    report("training", facts, results, JSON.value)


def config_of(case: str) -> Config:
    """What CIFAR-10 is trained with, in one of the cases."""
    if case not in CASES:
        raise unknown("case", case, CASES)
    config = base()
    config.augmentation.crop_padding, config.augmentation.flip = 4, True
    config.model.name, config.model.dtype = MODEL.value, DTYPE.value
    if MODEL.value == "resnet18":
        config.model.options.width = WIDTH.value
    config.training.batch_size = BATCH_SIZE.value
    config.anchoring.update(CASES[case])
    return config


def random_data() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[N, H, W, C]` and labels int32 `[N]`, of which every class has some."""
    labels = np.random.default_rng().permutation(NUM_IMAGES).astype(np.int32) % NUM_CLASSES
    return random_images(NUM_IMAGES), labels


def own_training(config: Config, images: np.ndarray, labels: np.ndarray) -> Steps:
    """Training as `anchor_jax.training.loop` does it, on one device."""
    mesh, steps_per_epoch = mesh_lib.mesh(1), NUM_IMAGES // config.training.batch_size
    model = model_of(config, axis_name=mesh_lib.AXIS)
    schedule = optimizer.create_schedule(config.optimizer, steps_per_epoch, 200 * steps_per_epoch)
    transformation = optimizer.create(config.optimizer, schedule)
    step = make_train_step(model, transformation, config, normalization_of(config))
    step = make_in_memory_step(step, config.training.batch_size)
    run_steps = mesh_lib.run_n_steps(step, mesh)

    examples = np.arange(NUM_IMAGES, dtype=np.int32)
    on_devices = mesh_lib.replicate((images, labels), mesh)
    data = TrainData(*on_devices, bank_images=on_devices[0] if config.anchoring.enabled else None)
    order = mesh_lib.replicate(np.random.default_rng().permutation(examples), mesh)
    key = jax.random.key(0, impl="rbg")  # quick to compile
    first_state = jax.jit(lambda: state.create_state(model, transformation, key, input_shape(config, 1)))()
    carry = mesh_lib.replicate((first_state, Totals.zeros()), mesh)

    def train(num_steps):
        nonlocal carry
        carry = jax.block_until_ready(run_steps(carry, num_steps, data, order))

    return train


def model_of(config: Config, axis_name: str | None = None) -> Classifier:
    """The network; `axis_name` is the mapped axis of training."""
    settings = config.model
    return models.create(
        settings.name, NUM_CLASSES, dtype=settings.dtype, axis_name=axis_name, **dict(settings.options)
    )


def input_shape(config: Config, batch_size: int) -> tuple[int, ...]:
    """Of what the network sees."""
    *sides, channels = IMAGE_SHAPE
    return (batch_size, *sides, channels * (1 + config.anchoring.enabled))


def time_ratios(configs: Mapping[str, Config], images: np.ndarray, labels: np.ndarray, num_steps: int) -> list[Result]:
    """What anchoring and masking cost: seconds of our training over those of standard training, all in turn."""
    if OURS not in (IMPLEMENTATIONS.value or [OURS]) or "standard" not in configs:
        return []
    builders = {case: partial(own_training, config, images, labels) for case, config in configs.items()}
    seconds = {case: np.array(timing.samples) for case, timing in timed(builders, num_steps).items()}
    standard = seconds.pop("standard")
    names = {case: f"{described(case, configs[case], DTYPE.value)}, over standard" for case in seconds}
    return [Result(names[case], OURS, "time_ratio", "1", (seconds[case] / standard).tolist()) for case in seconds]


def described(case: str, config: Config, dtype: str) -> str:
    """A case in full."""
    options = (f"{option} {value}" for option, value in config.model.options.items())
    return ", ".join([case, " ".join([config.model.name, *options]), f"batch {config.training.batch_size}", dtype])


def chosen(case: str, builders: Builders) -> Builders:
    """Those of --implementations."""
    names = IMPLEMENTATIONS.value or builders
    for name in names:
        if name not in builders:
            print(f"{case}: no implementation '{name}'; there are {', '.join(builders)}")
    return {name: build for name, build in builders.items() if name in names}


def timed(builders: Builders, num_steps: int) -> dict[str, Timing]:
    """First step and samples of each implementation that runs here."""
    first_steps, runs = {}, {}
    for name, build in builders.items():
        try:
            train = build()
            started = time.perf_counter()
            train(1)
            first_steps[name] = time.perf_counter() - started
            train(num_steps)
        except Exception as error:  # PyTorch's compilers fail in many ways, and the others are worth their numbers
            if name in (OURS, *CASES) or isinstance(error, UserError):
                raise
            print(f"{name} is left out: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        else:
            runs[name] = partial(train, num_steps)
    samples = interleaved(runs, SAMPLES.value)
    return {name: Timing(first_steps[name], samples[name]) for name in runs}


def results_of(case: str, name: str, timing: Timing, num_steps: int, peak_seconds: float) -> list[Result]:
    """Speed, fraction of the peak rate and time to compile; at that rate a step takes `peak_seconds`."""
    steps_per_second = [num_steps / seconds for seconds in timing.samples]
    numbers = {
        ("images_per_second", "images/s"): [BATCH_SIZE.value * rate for rate in steps_per_second],
        ("fraction_of_peak", "1"): [peak_seconds * rate for rate in steps_per_second],
    }
    if not name.startswith("released"):
        numbers["compile_time", "s"] = [max(timing.first_step - 1 / statistics.median(steps_per_second), 0.0)]
    return [Result(case, name, metric, unit, samples) for (metric, unit), samples in numbers.items()]


def flop_of_step(config: Config) -> float:
    """Floating-point operations of a training step: three forward passes, as XLA counts them."""
    return 3 * forward_flop(model_of(config), input_shape(config, config.training.batch_size))


if __name__ == "__main__":
    app.run(main)
