"""Estimate the cost of ImageNet runs without running them: chip-hours, and memory per chip.

    python -m benchmarks.speed.estimate --configs imagenet_vit_b16 --chips 8

Nothing is measured. The time per image is the larger of compute (floating-point operations at --fraction of --peak)
and memory traffic (activations at --bandwidth). Evaluation, and reading and decoding images, are not included.
"""

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from anchor_jax import models
from anchor_jax.cli import app
from anchor_jax.config import Config
from anchor_jax.core.errors import unknown
from anchor_jax.core.losses import anchored_cross_entropy
from anchor_jax.models.layers import Classifier
from anchor_jax.runs import state
from anchor_jax.training import optimizer
from benchmarks.report import Result, report
from benchmarks.timing import forward_flop

NUM_IMAGES, NUM_CLASSES = 1_281_167, 1_000  # ImageNet-1K's training set
ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(
    file.stem for file in (ROOT / "configs").glob("*.py") if file.stem.startswith(("imagenet_", "finetune"))
)
TRAINING = 3  # a training step is taken as three forward passes
MOVES = 4  # each activation and its gradient are written and read once

JSON = app.define_path("json", None, "Result file.", what="a new file")
CONFIGS = flags.DEFINE_list("configs", EXPERIMENTS, f"Comma-separated, of {', '.join(EXPERIMENTS)}.")
CHIPS = flags.DEFINE_integer("chips", 8, "Number of chips that share a batch.", lower_bound=1)
# the H200's data sheet: four fifths of its bfloat16 FLOP/s, and its memory bandwidth
PEAK = flags.DEFINE_float("peak", 790e12, "Assumed peak FLOP/s of a chip.", lower_bound=1)
BANDWIDTH = flags.DEFINE_float("bandwidth", 4.8e12, "Assumed memory bandwidth of a chip, bytes/s.", lower_bound=1)
FRACTION = flags.DEFINE_float("fraction", 0.4, "Assumed fraction of the peak in training.", lower_bound=0.001)


def main() -> None:
    """Estimate every experiment."""
    results = []
    sys.path.append(str(ROOT))  # configs/ is not a package
    for name in CONFIGS.value:
        if name not in EXPERIMENTS:
            raise unknown("config", name, EXPERIMENTS)
        config = importlib.import_module(f"configs.{name}").get_config()
        results += estimate(name, config, CHIPS.value, PEAK.value * FRACTION.value, BANDWIDTH.value)
    stated = {"chips": CHIPS.value, "peak": PEAK.value, "fraction": FRACTION.value, "bandwidth": BANDWIDTH.value}
    report("estimates, not measured", {"stated": stated}, results, JSON.value)


def estimate(name: str, config: Config, num_chips: int, rate: float, bandwidth: float) -> list[Result]:
    """Return the estimates of one experiment.

    Memory traffic counts the activations stored for the gradient, and their gradients. No chip sustains the bandwidth
    of its data sheet, so a time that memory traffic determines is a lower bound.

    Memory per chip is float32 parameters, gradients, optimizer state and parameter average, all divided among the
    chips with `training.sharding="fsdp"`, plus the activations that JAX stores for the gradient of the chip's part of a
    batch. XLA stores less if it recomputes cheap activations, and so does cuDNN's attention, which is not counted;
    temporary memory, such as for the block that `model.remat` recomputes, is not included.

    Args:
      name: of the experiment.
      config: of the experiment.
      num_chips: that share a batch.
      rate: FLOP/s that a chip reaches in training.
      bandwidth: bytes/s of a chip's memory.
    """
    settings = config.model
    model = models.create(
        settings.name, NUM_CLASSES, dtype=settings.dtype, remat=settings.remat, **dict(settings.options)
    )
    channels = 3 * (1 + config.anchoring.enabled)
    image_shape = (config.data.image_size, config.data.image_size, channels)
    flop = forward_flop(model, (1, *image_shape))
    images_per_chip = config.training.batch_size / num_chips / config.training.accumulation_steps
    state_bytes = train_state_bytes(config, model, image_shape) / (
        num_chips if config.training.sharding == "fsdp" else 1
    )
    bytes_per_image = activation_bytes_per_image(model, image_shape)
    activations = images_per_chip * bytes_per_image
    hours = NUM_IMAGES * config.training.total_epochs / 3600  # at one second per image
    computing, moving = hours * TRAINING * flop / rate, hours * MOVES * bytes_per_image / bandwidth
    numbers = {
        ("forward_flop", "GFLOP"): flop / 1e9,
        ("chip_hours_computing", "h"): computing,
        ("chip_hours_moving", "h"): moving,
        ("chip_hours", "h"): max(computing, moving),
        ("parameters_and_optimizer", "GB"): state_bytes / 1e9,
        ("activations", "GB"): activations / 1e9,
        ("memory", "GB"): (state_bytes + activations) / 1e9,
    }
    return [Result(name, "anchor_jax", metric, unit, [number]) for (metric, unit), number in numbers.items()]


def train_state_bytes(config: Config, model: Classifier, image_shape: tuple[int, ...]) -> int:
    """Return the bytes of parameters, batch statistics, gradients, optimizer state, and the average if there is one."""
    create = partial(state.create_state, model, optimizer.create(config.optimizer, lambda _: 0.0))
    first = jax.eval_shape(lambda: create(jax.random.key(0), (1, *image_shape)))
    variables = state.variables(first)
    average = variables if config.training.ema_decay else ()
    return num_bytes((variables, first.params, first.opt_state, average))


def activation_bytes_per_image(model: Classifier, image_shape: tuple[int, ...]) -> int:
    """Return the bytes that the gradient stores per image: those for two images minus those for one."""

    def stored_bytes(num_images: int) -> int:
        inputs = jax.ShapeDtypeStruct((num_images, *image_shape), jnp.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), inputs)
        labels = jnp.zeros(num_images, jnp.int32)

        def loss(params, others, inputs):
            rngs = {"stochastic_depth": jax.random.key(0)}
            logits, _ = model.apply(
                {**others, "params": params}, inputs, train=True, mutable=["batch_stats"], rngs=rngs
            )
            return jnp.mean(anchored_cross_entropy(logits, labels))

        def pullback(params, others, inputs) -> Any:
            _, vjp_fn = jax.vjp(lambda params: loss(params, others, inputs), params)
            return vjp_fn  # a pytree; its leaves are the stored arrays

        others = {name: values for name, values in variables.items() if name != "params"}
        return num_bytes(jax.eval_shape(pullback, variables["params"], others, inputs))

    return stored_bytes(2) - stored_bytes(1)


def num_bytes(tree: Any) -> int:
    """Return the bytes of all arrays in a pytree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


if __name__ == "__main__":
    app.run(main)
