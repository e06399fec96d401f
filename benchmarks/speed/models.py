"""Time every model at full size, forward and training, in JAX and PyTorch, and measure its memory.

    python -m benchmarks.speed.models --models vit_b16,swin_v2_t --json models.json

Both sides process the same random images, from uint8 or normalized images on one device. In the anchored case each
pass draws its references from the batch, with replacement, and the network receives six channels. Samples of the
implementations are interleaved, and each is compiled before the first sample.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import anchor_jax as aj
from anchor_jax import models
from anchor_jax.cli import app
from anchor_jax.config import Config
from anchor_jax.core.errors import unknown
from anchor_jax.data import normalize
from anchor_jax.data.image_table import ImageTable
from anchor_jax.models.layers import Classifier
from anchor_jax.runs import state
from anchor_jax.runs.state import Totals
from anchor_jax.runtime import backends
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.runtime.mesh import REPLICATED
from anchor_jax.training import optimizer
from anchor_jax.training.model_batch import TrainData
from anchor_jax.training.step import make_in_memory_step, make_train_step
from benchmarks import pytorch
from benchmarks.report import Result, report
from benchmarks.speed.cifar import base, normalization_of
from benchmarks.timing import (
    build_each,
    forward_flop,
    peak_flop_rates,
    peak_host_memory,
    prepare,
    time_interleaved,
)

OURS, EAGER, COMPILED = "anchor_jax", "pytorch-eager", "pytorch-compiled"
NAMES = [name for name in models.MODELS if name != "mlp"]

# case -> changes to config.anchoring; 0.2 is the paper's value for ImageNet
CASES = {"standard": {"enabled": False}, "anchored": {"mask_prob": 0.2}}
PASSES = {"forward": 1, "training": 3}  # pass -> forward passes that its floating-point work is taken for

# pixels per side; 224 for all others
IMAGE_SIZES = {"resnet18": 32, "wrn40_2": 32, "wrn28_10": 32, "swin_v2_t": 256, "swin_v2_s": 256, "swin_v2_b": 256}
OPTIONS = {"resnet34": {"stem": "imagenet"}, "resnet50": {"stem": "imagenet"}}

JSON = app.define_path("json", None, "Result file.", what="a new file")
MODELS = flags.DEFINE_list("models", NAMES, f"Comma-separated, of {', '.join(NAMES)}.")
CASE_NAMES = flags.DEFINE_list("cases", list(CASES), f"Comma-separated, of {', '.join(CASES)}.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Images per pass; 64 by default, 8 on CPU.", lower_bound=1)
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Pixels per side, for all models; by default that of its recipe.", lower_bound=1
)
DTYPE = flags.DEFINE_enum("dtype", "float32", list(models.DTYPES), "Of activations.")
SAMPLES = flags.DEFINE_integer("samples", 5, "Samples of each implementation.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", None, "Passes per sample; 30 by default, 1 on CPU.", lower_bound=1)
IMPLEMENTATIONS = flags.DEFINE_list(
    "implementations", None, f"Comma-separated, of {OURS}, {EAGER}, {COMPILED}; by default all, on CPU the first two."
)


class Work(NamedTuple):
    """A model and its inputs."""

    config: Config  # its sections model, anchoring, optimizer and training are used
    images: np.ndarray  # uint8 [B, H, W, 3]
    labels: np.ndarray  # int32 [B]

    @property
    def num_classes(self) -> int:
        """Return 10 for images of CIFAR's size, else 1,000."""
        return 10 if self.images.shape[1] == 32 else 1_000

    @property
    def x(self) -> jax.Array:
        """Return the normalized images, float32 `[B, H, W, 3]`."""
        return normalize(jnp.asarray(self.images), normalization_of(self.config))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the network's inputs."""
        *shape, channels = self.images.shape
        return (*shape, channels * (1 + self.config.anchoring.enabled))

    def model(self, axis_name: str | None = None) -> Classifier:
        """Create the network; `axis_name` is the mapped axis of training."""
        settings = self.config.model
        return models.create(
            settings.name, self.num_classes, dtype=settings.dtype, axis_name=axis_name, **dict(settings.options)
        )


class Pass(NamedTuple):
    """A compiled forward pass or training step."""

    run: Callable[[int], None]  # runs a number of passes, and returns when the device is done
    peak_memory: Callable[[], int]  # bytes of one pass, beyond what is allocated between passes
    compile_time: float | None  # seconds; None if nothing is compiled


Builders = Mapping[str, Callable[[], Pass]]  # by the name of the implementation


def main() -> None:
    """Measure every model in every case."""
    prepare()
    on_cpu = jax.default_backend() == "cpu"
    implementations = IMPLEMENTATIONS.value or ([OURS, EAGER] if on_cpu else [OURS, EAGER, COMPILED])
    batch_size = BATCH_SIZE.value or (8 if on_cpu else 64)
    num_steps = STEPS.value or (1 if on_cpu else 30)
    for kind, given, allowed in (
        ("model", MODELS.value, NAMES),
        ("case", CASE_NAMES.value, CASES),
        ("implementation", implementations, (OURS, EAGER, COMPILED)),
    ):
        for name in given:
            if name not in allowed:
                raise unknown(kind, name, allowed)
    with_pytorch = bool({EAGER, COMPILED} & set(implementations)) and pytorch.is_installed()

    peaks = peak_flop_rates(DTYPE.value, num_samples=2 * SAMPLES.value)
    results = [Result(f"matrix product, {DTYPE.value}", "jax", "flop_rate", "FLOP/s", peaks)]
    for name in MODELS.value:
        for case in CASE_NAMES.value:
            work = create_work(name, case, batch_size)
            flop = forward_flop(work.model(), work.input_shape)
            for which, num_forward in PASSES.items():
                builders: Builders = {OURS: partial(OUR_PASSES[which], work)}
                if with_pytorch:
                    builders = {**builders, **pytorch_builders(which, work)}
                builders = {key: build for key, build in builders.items() if key in implementations}
                described = f"{name} {work.images.shape[1]}, {case}, {which}, batch {batch_size}, {DTYPE.value}"
                seconds_at_peak = num_forward * flop / max(peaks)
                results += measure(described, builders, num_steps, batch_size, seconds_at_peak)
    report("models", {"passes_per_sample": num_steps}, results, JSON.value)


def create_work(name: str, case: str, batch_size: int) -> Work:
    """Return a model in a case, with random images."""
    config = base()
    config.model.name, config.model.dtype = name, DTYPE.value
    config.model.options.update(OPTIONS.get(name, {}))
    config.training.batch_size = batch_size
    config.optimizer.learning_rate = 1e-3  # keeps the loss finite
    config.anchoring.update(CASES[case])
    rng, size = np.random.default_rng(), IMAGE_SIZE.value or IMAGE_SIZES.get(name, 224)
    images = rng.integers(0, 256, (batch_size, size, size, 3), np.uint8)
    return Work(config, images, rng.integers(0, 10, batch_size, np.int32))


def measure(case: str, builders: Builders, num_steps: int, batch_size: int, seconds_at_peak: float) -> list[Result]:
    """Return all results of one pass; `fraction_of_peak` is as in `benchmarks.speed.train`.

    Args:
      case: as the result file names it.
      builders: of the implementations.
      num_steps: passes per sample.
      batch_size: images per pass.
      seconds_at_peak: of a pass at the rate of a large matrix product.
    """
    passes = build_passes(case, builders)
    runs = {name: partial(each.run, num_steps) for name, each in passes.items()}
    results = []
    for name, samples in time_interleaved(runs, SAMPLES.value).items():
        rates = [num_steps / seconds for seconds in samples]
        numbers: dict[tuple[str, str], list[float]] = {
            ("images_per_second", "images/s"): [batch_size * rate for rate in rates],
            ("fraction_of_peak", "1"): [seconds_at_peak * rate for rate in rates],
            ("peak_memory", "MiB"): [passes[name].peak_memory() / 2**20],
        }
        if (compile_time := passes[name].compile_time) is not None:
            numbers["compile_time", "s"] = [compile_time]
        results += [Result(case, name, metric, unit, samples) for (metric, unit), samples in numbers.items()]
    return results


def build_passes(case: str, builders: Builders) -> dict[str, Pass]:
    """Build each pass and run it once; skip those of PyTorch that fail here."""

    def started(build: Callable[[], Pass]) -> Pass:
        each = build()
        each.run(1)
        return each

    return build_each({name: partial(started, build) for name, build in builders.items()}, (OURS,), case)


def forward_ours(work: Work) -> Pass:
    """Return the forward pass of evaluation, from normalized images to logits, with one reference per image."""
    mesh, model, is_anchored = mesh_lib.mesh(1), work.model(), work.config.anchoring.enabled

    def forward(key, variables, x) -> Any:
        inputs = aj.anchor(x, aj.sample_references(key, x, len(x))) if is_anchored else x
        return model.apply(variables, inputs)

    variables = state.variables(create_state(work, model))
    arguments = mesh_lib.replicate((jax.random.key(0), variables, work.x), mesh)
    compiled, compile_time = timed_compile(
        mesh_lib.pmapped(forward, mesh, in_specs=REPLICATED, out_specs=REPLICATED), *arguments
    )

    def run(num_steps):
        jax.block_until_ready([compiled(*arguments) for _ in range(num_steps)])

    return Pass(run, partial(peak_memory, compiled, run), compile_time)


def train_ours(work: Work) -> Pass:
    """Return the training step of `anchor_jax.training.loop` without augmentation, on a dataset of one batch.

    It gathers and normalizes uint8 images, draws references and a mask, and updates by SGD with momentum.
    """
    mesh, model = mesh_lib.mesh(1), work.model(mesh_lib.AXIS)
    schedule = optimizer.create_schedule(work.config.optimizer, 1, 1)
    sgd = optimizer.create(work.config.optimizer, schedule)
    step = make_train_step(model, sgd, work.config, normalization_of(work.config))
    step = make_in_memory_step(step, len(work.images))
    carry = mesh_lib.replicate((create_state(work, work.model()), Totals.zeros()), mesh)
    order = jnp.arange(len(work.images))
    images, labels, order = mesh_lib.replicate((ImageTable.of(work.images), work.labels, order), mesh)
    data_and_order = TrainData(images, labels, bank_images=images), order
    mapped = mesh_lib.pmapped(step, mesh, in_specs=REPLICATED, out_specs=REPLICATED, donate_argnums=(0,))
    compiled, compile_time = timed_compile(mapped, carry, *data_and_order)

    def run(num_steps):
        nonlocal carry
        for _ in range(num_steps):
            carry = compiled(carry, *data_and_order)
        jax.block_until_ready(carry)

    return Pass(run, partial(peak_memory, compiled, run), compile_time)


OUR_PASSES = {"forward": forward_ours, "training": train_ours}


def pytorch_builders(which: str, work: Work) -> Builders:
    """Return eager and compiled PyTorch, if it has a counterpart of the model."""
    from benchmarks.pytorch import networks

    if work.config.model.name not in networks.NAMES:
        return {}
    return {
        EAGER: partial(pytorch_pass, which, work, is_compiled=False),
        COMPILED: partial(pytorch_pass, which, work, is_compiled=True),
    }


def pytorch_pass(which: str, work: Work, *, is_compiled: bool) -> Pass:
    """Return the same pass in PyTorch, as its users run it.

    The network is that of torchvision or timm (for resnet18, `benchmarks.pytorch.networks.ResNet18`), channels-last,
    with autocast for bfloat16 and its first layer widened for anchored inputs. `torch.compile` is optional.
    """
    from benchmarks.pytorch import device, networks, passes

    *_, size, channels = work.input_shape
    network = networks.create(work.config.model.name, channels, work.num_classes, size)
    if which == "forward":
        run = passes.forward(network, work.config, np.array(work.x), is_compiled=is_compiled)
    else:
        run = passes.training(network, work.config, work.images, work.labels, is_compiled=is_compiled)
    first, second = time_interleaved({"first": partial(run, 1)}, 2)["first"]
    compile_time = max(first - second, 0.0) if is_compiled else None
    return Pass(run, partial(device.peak_memory, partial(run, 1)), compile_time)


def timed_compile(step: Any, *arguments: Any) -> tuple[jax.stages.Compiled, float]:
    """Compile a jitted function for these arguments; return it and the seconds that took."""
    start = time.perf_counter()
    compiled = step.lower(*arguments).compile()
    return compiled, time.perf_counter() - start


def create_state(work: Work, model: Classifier) -> state.TrainState:
    """Return the initial training state."""
    sgd = optimizer.create(work.config.optimizer, lambda _: 0.0)
    key = jax.random.key(0, impl="rbg")  # compiles quickly
    options = backends.compiler_options(jax.default_backend(), runs_once=True)
    shape = (1, *work.input_shape[1:])
    return jax.jit(lambda: state.create_state(model, sgd, key, shape), compiler_options=options)()


def peak_memory(compiled: jax.stages.Compiled, run: Callable[[int], None]) -> int:
    """Return the bytes of one pass beyond parameters, momentum and images.

    On a CPU this is the rise of the process's resident memory, as for PyTorch. On a GPU it is XLA's own plan
    (`memory_analysis`), while for PyTorch it is the peak of its allocator.
    """
    if jax.default_backend() == "cpu":
        return peak_host_memory(partial(run, 1))
    plan: Any = compiled.memory_analysis()
    return plan.temp_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes


if __name__ == "__main__":
    app.run(main)
