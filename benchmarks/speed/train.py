"""Time the complete training step in JAX and PyTorch: crop and flip, references, mask, forward, backward and update.

    python -m benchmarks.speed.train --official ../anchoring --json train.json

Each implementation trains on the same random images, held on one device. Samples of the implementations are
interleaved, and each is compiled before the first sample.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from anchor_jax import models
from anchor_jax.cli import app
from anchor_jax.config import Config
from anchor_jax.core.errors import unknown
from anchor_jax.data.image_table import ImageTable
from anchor_jax.models.layers import Classifier
from anchor_jax.runs import state
from anchor_jax.runs.state import Totals
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training import optimizer
from anchor_jax.training.model_batch import TrainData
from anchor_jax.training.step import make_in_memory_step, make_train_step
from benchmarks import pytorch
from benchmarks.report import Result, report
from benchmarks.speed.cifar import IMAGE_SHAPE, NUM_CLASSES, base, normalization_of, random_images
from benchmarks.timing import build_each, forward_flop, peak_flop_rates, prepare, time_interleaved

NUM_IMAGES = 50_000  # as in CIFAR-10

# case -> changes to config.anchoring
CASES = {
    "standard": {"enabled": False},
    "anchored": {"mask_prob": 0.0},
    "masked": {"mask_prob": 0.25, "masked_target": "uniform"},  # as PyTorch's, see `benchmarks.pytorch.training`
}

JSON = app.define_path("json", None, "Result file.", what="a new file")
OFFICIAL = app.define_path("official", None, "A clone of LLNL/anchoring, the released code, to time as well.")
MODEL = flags.DEFINE_string("model", "resnet18", "A model of anchor_jax.models; PyTorch is timed for resnet18 only.")
WIDTH = flags.DEFINE_integer("width", 64, "Channels of the first stage of resnet18.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images per step.", lower_bound=1, upper_bound=NUM_IMAGES)
DTYPE = flags.DEFINE_enum("dtype", "float32", list(models.DTYPES), "Of activations; the released code uses float32.")
SAMPLES = flags.DEFINE_integer("samples", 5, "Samples of each implementation.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", None, "Steps per sample; 100 by default, 2 on CPU.", lower_bound=1)
CASE_NAMES = flags.DEFINE_list("cases", list(CASES), f"Comma-separated, of {', '.join(CASES)}.")
IMPLEMENTATIONS = flags.DEFINE_list("implementations", None, "Comma-separated names; all by default.")

OURS = "anchor_jax"

Steps = Callable[[int], None]  # trains for a number of steps, and returns when the device is done
Builders = Mapping[str, Callable[[], Steps]]  # by the name of the implementation


class Timing(NamedTuple):
    """Seconds of one implementation."""

    first_step: float
    samples: list[float]


def main() -> None:
    """Time every case."""
    prepare()
    configs = {case: case_config(case) for case in CASE_NAMES.value}
    is_wanted = set(IMPLEMENTATIONS.value or ["all"]) != {OURS}
    with_pytorch = MODEL.value == "resnet18" and is_wanted and pytorch.is_installed()
    official = load_official() if with_pytorch and OFFICIAL.value else None
    num_steps = STEPS.value or (2 if jax.default_backend() == "cpu" else 100)
    images, labels = random_data()

    flop = {case: step_flop(config) for case, config in configs.items()}
    peaks = {dtype: peak_flop_rates(dtype, num_samples=2 * SAMPLES.value) for dtype in sorted({"float32", DTYPE.value})}
    results = [Result(f"matrix product, {dtype}", "jax", "flop_rate", "FLOP/s", peaks[dtype]) for dtype in peaks]
    for case, config in configs.items():
        builders: Builders = {OURS: partial(train_ours, config, images, labels)}
        if with_pytorch:
            builders = {**builders, **pytorch_builders(official, config, images, labels)}
        for name, timing in time_builders(selected(case, builders), num_steps).items():
            dtype = "float32" if name.startswith("released") else DTYPE.value
            seconds_at_peak = flop[case] / max(peaks[dtype])
            results += results_of(describe(case, config, dtype), name, timing, num_steps, seconds_at_peak)
    results += time_ratios(configs, images, labels, num_steps)
    report("training", {"steps_per_sample": num_steps, "flop_per_step": flop}, results, JSON.value)


def case_config(case: str) -> Config:
    """Return the config of CIFAR-10 training in a case."""
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
    """Return images, uint8 `[N, H, W, C]`, and labels, int32 `[N]`, with equally many examples of each class."""
    labels = np.random.default_rng().permutation(NUM_IMAGES).astype(np.int32) % NUM_CLASSES
    return random_images(NUM_IMAGES), labels


def train_ours(config: Config, images: np.ndarray, labels: np.ndarray) -> Steps:
    """Return training as in `anchor_jax.training.loop`, on one device."""
    mesh, steps_per_epoch = mesh_lib.mesh(1), NUM_IMAGES // config.training.batch_size
    model = create_model(config, axis_name=mesh_lib.AXIS)
    schedule = optimizer.create_schedule(config.optimizer, steps_per_epoch, 200 * steps_per_epoch)
    transformation = optimizer.create(config.optimizer, schedule)
    step = make_train_step(model, transformation, config, normalization_of(config))
    step = make_in_memory_step(step, config.training.batch_size)
    run_steps = mesh_lib.run_n_steps(step, mesh)

    examples = np.arange(NUM_IMAGES, dtype=np.int32)
    on_devices = mesh_lib.replicate((ImageTable.of(images), labels), mesh)
    data = TrainData(*on_devices, bank_images=on_devices[0] if config.anchoring.enabled else None)
    order = mesh_lib.replicate(np.random.default_rng().permutation(examples), mesh)
    key = jax.random.key(0, impl="rbg")  # compiles quickly
    first_state = jax.jit(lambda: state.create_state(model, transformation, key, input_shape(config, 1)))()
    carry = mesh_lib.replicate((first_state, Totals.zeros()), mesh)

    def train(num_steps):
        nonlocal carry
        carry = jax.block_until_ready(run_steps(carry, num_steps, data, order))

    return train


def load_official() -> Any:
    """Import the released code from --official."""
    from benchmarks.pytorch.released import Released

    return Released.load(OFFICIAL.value, WIDTH.value)


def pytorch_builders(official: Any, config: Config, images: np.ndarray, labels: np.ndarray) -> Builders:
    """Return the PyTorch implementations: plain PyTorch, and for anchored cases the released code, if given.

    The loaders of the released code prepare batches ahead, also while other implementations are timed; its next
    sample starts with these.
    """
    from benchmarks.pytorch import released, training

    builders = training.baselines(config, WIDTH.value, images, labels)
    if official is None or not config.anchoring.enabled:
        return builders
    return {**builders, **released.training(official, config, images, labels)}


def create_model(config: Config, axis_name: str | None = None) -> Classifier:
    """Create the network; `axis_name` is the mapped axis of training."""
    settings = config.model
    return models.create(
        settings.name, NUM_CLASSES, dtype=settings.dtype, axis_name=axis_name, **dict(settings.options)
    )


def input_shape(config: Config, batch_size: int) -> tuple[int, ...]:
    """Return the shape of the network's inputs."""
    *sides, channels = IMAGE_SHAPE
    return (batch_size, *sides, channels * (1 + config.anchoring.enabled))


def time_ratios(configs: Mapping[str, Config], images: np.ndarray, labels: np.ndarray, num_steps: int) -> list[Result]:
    """Return the time of anchored training divided by that of standard training, from interleaved samples."""
    if OURS not in (IMPLEMENTATIONS.value or [OURS]) or "standard" not in configs:
        return []
    builders = {case: partial(train_ours, config, images, labels) for case, config in configs.items()}
    seconds = {case: np.array(timing.samples) for case, timing in time_builders(builders, num_steps).items()}
    standard = seconds.pop("standard")
    names = {case: f"{describe(case, configs[case], DTYPE.value)}, over standard" for case in seconds}
    return [Result(names[case], OURS, "time_ratio", "1", (seconds[case] / standard).tolist()) for case in seconds]


def describe(case: str, config: Config, dtype: str) -> str:
    """Return the case as the result file names it."""
    options = (f"{option} {value}" for option, value in config.model.options.items())
    return ", ".join([case, " ".join([config.model.name, *options]), f"batch {config.training.batch_size}", dtype])


def selected(case: str, builders: Builders) -> Builders:
    """Return the implementations that --implementations names."""
    names = IMPLEMENTATIONS.value or builders
    for name in names:
        if name not in builders:
            print(f"{case}: no implementation '{name}'; available: {', '.join(builders)}")
    return {name: build for name, build in builders.items() if name in names}


def time_builders(builders: Builders, num_steps: int) -> dict[str, Timing]:
    """Time the first step and all samples of each implementation; skip those of PyTorch that fail here."""

    def started(build: Callable[[], Steps]) -> tuple[float, Steps]:
        train = build()
        start = time.perf_counter()
        train(1)
        first_step = time.perf_counter() - start
        train(num_steps)
        return first_step, train

    built = build_each({name: partial(started, build) for name, build in builders.items()}, (OURS, *CASES), "training")
    samples = time_interleaved({name: partial(train, num_steps) for name, (_, train) in built.items()}, SAMPLES.value)
    return {name: Timing(first_step, samples[name]) for name, (first_step, _) in built.items()}


def results_of(case: str, name: str, timing: Timing, num_steps: int, seconds_at_peak: float) -> list[Result]:
    """Return the throughput, the fraction of the peak rate, and the compile time.

    The fraction compares the step with a large matrix product of the same dtype on the same device; on a GPU float32
    means TF32 in both. The compile time is that of a first step beyond a later one.

    Args:
      case: as the result file names it.
      name: of the implementation.
      timing: its seconds.
      num_steps: per sample.
      seconds_at_peak: of a step at the rate of the matrix product.
    """
    steps_per_second = [num_steps / seconds for seconds in timing.samples]
    numbers = {
        ("images_per_second", "images/s"): [BATCH_SIZE.value * rate for rate in steps_per_second],
        ("fraction_of_peak", "1"): [seconds_at_peak * rate for rate in steps_per_second],
    }
    if not name.startswith("released"):
        numbers["compile_time", "s"] = [max(timing.first_step - 1 / statistics.median(steps_per_second), 0.0)]
    return [Result(case, name, metric, unit, samples) for (metric, unit), samples in numbers.items()]


def step_flop(config: Config) -> float:
    """Return the floating-point operations of a training step, taken as three forward passes.

    XLA counts a forward pass before it compiles it for the CPU (`Lowered.cost_analysis`), which works on every
    platform; products with the zeros that pad a convolution do not count.
    """
    return 3 * forward_flop(create_model(config), input_shape(config, config.training.batch_size))


if __name__ == "__main__":
    app.run(main)
