"""What a run on ImageNet would cost, counted without running anything: chip-hours, and memory of each chip.

    python benchmarks/estimate.py --json docs/results/estimates.json

Nothing here is measured. An image of an epoch costs the greater of two times. Computing: the floating-point operations
of the forward pass as XLA counts them, three times for a training step, at a fraction of a peak, both stated; the
defaults are 40 % of 790 TFLOP/s, four fifths of what the data sheet of an H200 has for bfloat16. Moving: the
activations that are kept for the gradient, written and read once, and their gradients likewise, at the stated
bandwidth, by default the 4.8 TB/s of that data sheet; no chip keeps that up, so where it decides, the time is the
least. Evaluations, reading and decoding images are left out.

Memory is what one of `--chips` chips holds: parameters, gradients, the state of the optimizer and the average of
parameters (with `training.sharding="fsdp"` all of them divided among the chips), float32; and the activations that
JAX keeps of its part of a batch for the gradient, so many times what one image more adds. XLA keeps less where it
computes cheap ones again, and so does the attention of cuDNN, which is not what is counted; what a step needs
besides, such as the block that `model.remat` computes again, is left out.
"""

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from timing import Result, forward_flop, report

from anchor_jax import models
from anchor_jax.cli import app
from anchor_jax.config import Config
from anchor_jax.core.errors import unknown
from anchor_jax.core.losses import anchored_cross_entropy
from anchor_jax.models.layers import Classifier
from anchor_jax.runs import state
from anchor_jax.training import optimizer

NUM_IMAGES, NUM_CLASSES = 1_281_167, 1_000  # of ImageNet-1K's training set
ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted(
    file.stem for file in (ROOT / "configs").glob("*.py") if file.stem.startswith(("imagenet_", "finetune"))
)
TRAINING = 3  # forward passes that the work of a training step is taken for
MOVES = 4  # of each activation or its gradient to memory and back

JSON = flags.DEFINE_string("json", None, "Where the numbers go.")
CONFIGS = flags.DEFINE_list("configs", EXPERIMENTS, f"Of {', '.join(EXPERIMENTS)}.")
CHIPS = flags.DEFINE_integer("chips", 8, "Among which a batch is divided.", lower_bound=1)
PEAK = flags.DEFINE_float("peak", 790e12, "FLOP/s of a chip, stated.", lower_bound=1)
BANDWIDTH = flags.DEFINE_float("bandwidth", 4.8e12, "Bytes/s of a chip's memory, stated.", lower_bound=1)
FRACTION = flags.DEFINE_float("fraction", 0.4, "Of the peak, that training reaches, stated.", lower_bound=0.001)


def main() -> None:
    """Print a table of all experiments, write the file."""
    results = []
    sys.path.append(str(ROOT))  # for configs
    for name in CONFIGS.value:
        if name not in EXPERIMENTS:
            raise unknown("config", name, EXPERIMENTS)
        config = importlib.import_module(f"configs.{name}").get_config()
        results += estimated(name, config, CHIPS.value, PEAK.value * FRACTION.value, BANDWIDTH.value)
    stated = {"chips": CHIPS.value, "peak": PEAK.value, "fraction": FRACTION.value, "bandwidth": BANDWIDTH.value}
    report("estimates, nothing measured", {"stated": stated}, results, JSON.value)


def estimated(name: str, config: Config, num_chips: int, rate: float, bandwidth: float) -> list[Result]:
    """All numbers of one experiment, of chips that do `rate` operations and move `bandwidth` bytes a second."""
    settings = config.model
    model = models.create(
        settings.name, NUM_CLASSES, dtype=settings.dtype, remat=settings.remat, **dict(settings.options)
    )
    channels = 3 * (1 + config.anchoring.enabled)
    image_shape = (config.data.image_size, config.data.image_size, channels)
    flop = forward_flop(model, (1, *image_shape))
    images_per_chip = config.training.batch_size / num_chips / config.training.accumulation_steps
    held = bytes_held(config, model, image_shape) / (num_chips if config.training.sharding == "fsdp" else 1)
    kept = bytes_kept_per_image(model, image_shape)
    activations = images_per_chip * kept
    hours = NUM_IMAGES * config.training.total_epochs / 3600  # where an image takes a second
    computing, moving = hours * TRAINING * flop / rate, hours * MOVES * kept / bandwidth
    numbers = {
        ("forward_flop", "GFLOP"): flop / 1e9,
        ("chip_hours_computing", "h"): computing,
        ("chip_hours_moving", "h"): moving,
        ("chip_hours", "h"): max(computing, moving),
        ("parameters_and_optimizer", "GB"): held / 1e9,
        ("activations", "GB"): activations / 1e9,
        ("memory", "GB"): (held + activations) / 1e9,
    }
    return [Result(name, "anchor_jax", metric, unit, [number]) for (metric, unit), number in numbers.items()]


def bytes_held(config: Config, model: Classifier, image_shape: tuple[int, ...]) -> int:
    """Of parameters and statistics, gradients, the optimizer's state, and their average where there is one."""
    create = partial(state.create_state, model, optimizer.create(config.optimizer, lambda _: 0.0))
    first = jax.eval_shape(lambda: create(jax.random.key(0), (1, *image_shape)))
    variables = state.variables(first)
    average = variables if config.training.ema_decay else ()
    return size_of((variables, first.params, first.opt_state, average))


def bytes_kept_per_image(model: Classifier, image_shape: tuple[int, ...]) -> int:
    """What the gradient needs of the forward pass for each image: what the second of two adds."""

    def kept(num_images: int) -> int:
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
            _, of_params = jax.vjp(lambda params: loss(params, others, inputs), params)
            return of_params  # a pytree, whose leaves are what it keeps

        others = {name: values for name, values in variables.items() if name != "params"}
        return size_of(jax.eval_shape(pullback, variables["params"], others, inputs))

    return kept(2) - kept(1)


def size_of(tree: Any) -> int:
    """Bytes of all arrays."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


if __name__ == "__main__":
    app.run(main)
