"""Images a second and memory of every model of the paper at full size, here and in PyTorch, on the same random images.

    python benchmarks/models.py --json models.json

The forward pass is that of evaluation: normalised images on the device to logits. The training step is the trainer's
own, without augmentation: uint8 images on the device are gathered, normalised, and SGD with momentum makes one step.
In the anchored case each pass draws its references with replacement from the images of the batch, and the training
step masks them by chance; the network sees six channels. All is on one device.

PyTorch runs what its users run: the model of torchvision or of timm, channels-last, with autocast for bfloat16, its
first layer widened for six channels; resnet18 with the stem for CIFAR is written here. It does the same work from the
same point on. "pytorch-compiled" is `torch.compile`, by default on a GPU alone. There is no Wide ResNet beside ours.
One sample is so many passes and a wait for the device; the implementations take theirs in turn, each compiled before.

"peak_memory" is what a pass holds at its peak beyond what was held before it: parameters, momentum and images. On a
GPU, ours is what XLA plans (`memory_analysis`) and PyTorch's what its allocator saw; on a CPU both are by what the
resident memory of the process rises. "compile_time" is that of a pass, with nothing compiled by an earlier run.
"fraction_of_peak" is as in `train.py`.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from cifar import base, normalization_of
from timing import (
    Result,
    forward_flop,
    installed_pytorch,
    interleaved,
    peak_host_memory,
    peak_rates,
    prepare,
    report,
)

import anchor_jax as aj
from anchor_jax import models
from anchor_jax.cli import app
from anchor_jax.config import Config
from anchor_jax.core.errors import unknown
from anchor_jax.data import normalize
from anchor_jax.models.layers import Classifier
from anchor_jax.runs import state
from anchor_jax.runs.state import Totals
from anchor_jax.runtime import backends
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.runtime.mesh import REPLICATED
from anchor_jax.training import optimizer
from anchor_jax.training.model_batch import TrainData
from anchor_jax.training.step import make_in_memory_step, make_train_step

OURS, EAGER, COMPILED = "anchor_jax", "pytorch-eager", "pytorch-compiled"
NAMES = [name for name in models.MODELS if name != "mlp"]

# what of config.anchoring makes the case; 0.2 is the paper's for ImageNet
CASES = {"standard": {"enabled": False}, "anchored": {"mask_prob": 0.2}}
PASSES = {"forward": 1, "training": 3}  # with the forward passes that their floating-point work is taken for

# pixels on a side; 224 for all others
IMAGE_SIZES = {"resnet18": 32, "wrn40_2": 32, "wrn28_10": 32, "swin_v2_t": 256, "swin_v2_s": 256, "swin_v2_b": 256}
OPTIONS = {"resnet34": {"stem": "imagenet"}, "resnet50": {"stem": "imagenet"}}

JSON = flags.DEFINE_string("json", None, "Where the numbers go.")
MODELS = flags.DEFINE_list("models", NAMES, f"Of {', '.join(NAMES)}.")
CASE_NAMES = flags.DEFINE_list("cases", list(CASES), f"Of {', '.join(CASES)}.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Images a pass; 64 by default, on CPU 8.", lower_bound=1)
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Pixels on a side, of all; the paper's by default.", lower_bound=1
)
DTYPE = flags.DEFINE_enum("dtype", "float32", list(models.DTYPES), "Of activations.")
SAMPLES = flags.DEFINE_integer("samples", 5, "Samples of each implementation.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", None, "Passes a sample; 30 by default, on CPU 1.", lower_bound=1)
IMPLEMENTATIONS = flags.DEFINE_list("implementations", None, f"Of {OURS}, {EAGER}, {COMPILED}; on CPU the first two.")


class Work(NamedTuple):
    """A model and what it is shown."""

    config: Config  # of the model, of anchoring and of the batch
    images: np.ndarray  # uint8 [B, H, W, 3]
    labels: np.ndarray  # int32 [B]

    @property
    def num_classes(self) -> int:
        """As of CIFAR-10 at its size, else as of ImageNet."""
        return 10 if self.images.shape[1] == 32 else 1_000

    @property
    def x(self) -> jax.Array:
        """The images normalised, float32."""
        return normalize(jnp.asarray(self.images), normalization_of(self.config))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of what the network sees."""
        *shape, channels = self.images.shape
        return (*shape, channels * (1 + self.config.anchoring.enabled))

    def model(self, axis_name: str | None = None) -> Classifier:
        """The network; `axis_name` is the mapped axis of training."""
        settings = self.config.model
        return models.create(
            settings.name, self.num_classes, dtype=settings.dtype, axis_name=axis_name, **dict(settings.options)
        )


class Pass(NamedTuple):
    """One pass over a batch, compiled."""

    run: Callable[[int], None]  # so many times, and returns when the device is done
    peak_memory: Callable[[], int]  # bytes of one, beyond what is held between them
    compile_time: float | None  # seconds; None where nothing is compiled


Builders = Mapping[str, Callable[[], Pass]]


def main() -> None:
    """Measure every model in every case, print a table, write the file."""
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
    pytorch = installed_pytorch("pytorch_models") if {EAGER, COMPILED} & set(implementations) else None

    peaks = peak_rates(DTYPE.value)
    results = [Result(f"matrix product, {DTYPE.value}", "jax", "flop_rate", "FLOP/s", peaks)]
    for name in MODELS.value:
        for case in CASE_NAMES.value:
            work = work_of(name, case, batch_size)
            flop = forward_flop(work.model(), work.input_shape)
            for which, num_forward in PASSES.items():
                builders = {OURS: partial(OWN[which], work)}
                if pytorch and name in pytorch.NAMES:
                    builders[EAGER] = partial(pytorch_pass, pytorch, which, work, is_compiled=False)
                    builders[COMPILED] = partial(pytorch_pass, pytorch, which, work, is_compiled=True)
                builders = {key: build for key, build in builders.items() if key in implementations}
                described = f"{name} {work.images.shape[1]}, {case}, {which}, batch {batch_size}, {DTYPE.value}"
                peak_seconds = num_forward * flop / max(peaks)
                results += measured(described, builders, num_steps, batch_size, peak_seconds)
    report("models", {"passes_per_sample": num_steps}, results, JSON.value)


def work_of(name: str, case: str, batch_size: int) -> Work:
    """A model in one of the cases, with random images."""
    config = base()
    config.model.name, config.model.dtype = name, DTYPE.value
    config.model.options.update(OPTIONS.get(name, {}))
    config.training.batch_size = batch_size
    config.optimizer.learning_rate = 1e-3  # so that no number becomes infinite
    config.anchoring.update(CASES[case])
    rng, size = np.random.default_rng(), IMAGE_SIZE.value or IMAGE_SIZES.get(name, 224)
    images = rng.integers(0, 256, (batch_size, size, size, 3), np.uint8)
    return Work(config, images, rng.integers(0, 10, batch_size, np.int32))


def measured(case: str, builders: Builders, num_steps: int, batch_size: int, peak_seconds: float) -> list[Result]:
    """All numbers of one pass; at the peak rate of the device it takes `peak_seconds`."""
    passes = built(case, builders)
    runs = {name: partial(each.run, num_steps) for name, each in passes.items()}
    results = []
    for name, samples in interleaved(runs, SAMPLES.value).items():
        rates = [num_steps / seconds for seconds in samples]
        numbers: dict[tuple[str, str], list[float]] = {
            ("images_per_second", "images/s"): [batch_size * rate for rate in rates],
            ("fraction_of_peak", "1"): [peak_seconds * rate for rate in rates],
            ("peak_memory", "MiB"): [passes[name].peak_memory() / 2**20],
        }
        if (compile_time := passes[name].compile_time) is not None:
            numbers["compile_time", "s"] = [compile_time]
        results += [Result(case, name, metric, unit, samples) for (metric, unit), samples in numbers.items()]
    return results


def built(case: str, builders: Builders) -> dict[str, Pass]:
    """The passes that run here, each of which has been run."""
    passes = {}
    for name, build in builders.items():
        try:
            each = build()
            each.run(1)
        except Exception as error:  # PyTorch's compilers fail in many ways, and the others are worth their numbers
            if name == OURS:
                raise
            print(f"{case}: {name} is left out: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        else:
            passes[name] = each
    return passes


def own_forward(work: Work) -> Pass:
    """The forward pass as a predictor makes it, with one reference an image."""
    mesh, model, is_anchored = mesh_lib.mesh(1), work.model(), work.config.anchoring.enabled

    def forward(key, variables, x) -> Any:
        inputs = aj.anchor(x, aj.sample_references(key, x, len(x))) if is_anchored else x
        return model.apply(variables, inputs)

    variables = state.variables(first_state(work, model))
    arguments = mesh_lib.replicate((jax.random.key(0), variables, work.x), mesh)
    compiled, compile_time = timed_compilation(
        mesh_lib.pmapped(forward, mesh, in_specs=REPLICATED, out_specs=REPLICATED), *arguments
    )

    def run(num_steps):
        jax.block_until_ready([compiled(*arguments) for _ in range(num_steps)])

    return Pass(run, partial(peak_memory, compiled, run), compile_time)


def own_training(work: Work) -> Pass:
    """The training step as `anchor_jax.training.loop` makes it, on a data set of one batch."""
    mesh, model = mesh_lib.mesh(1), work.model(mesh_lib.AXIS)
    schedule = optimizer.create_schedule(work.config.optimizer, 1, 1)
    sgd = optimizer.create(work.config.optimizer, schedule)
    step = make_in_memory_step(
        make_train_step(model, sgd, work.config, normalization_of(work.config)), len(work.images)
    )
    carry = mesh_lib.replicate((first_state(work, work.model()), Totals.zeros()), mesh)
    order = jnp.arange(len(work.images))
    images, labels, order = mesh_lib.replicate((work.images, work.labels, order), mesh)
    data_and_order = TrainData(images, labels, bank_images=images), order
    mapped = mesh_lib.pmapped(step, mesh, in_specs=REPLICATED, out_specs=REPLICATED, donate_argnums=(0,))
    compiled, compile_time = timed_compilation(mapped, carry, *data_and_order)

    def run(num_steps):
        nonlocal carry
        for _ in range(num_steps):
            carry = compiled(carry, *data_and_order)
        jax.block_until_ready(carry)

    return Pass(run, partial(peak_memory, compiled, run), compile_time)


OWN = {"forward": own_forward, "training": own_training}


def pytorch_pass(pytorch: ModuleType, which: str, work: Work, *, is_compiled: bool) -> Pass:
    """The same pass in PyTorch, of the counterpart of the model."""
    *_, size, channels = work.input_shape
    network = pytorch.network(work.config.model.name, channels, work.num_classes, size)
    if which == "forward":
        run = pytorch.forward(network, work.config, np.array(work.x), is_compiled=is_compiled)
    else:
        run = pytorch.training(network, work.config, work.images, work.labels, is_compiled=is_compiled)
    first, second = interleaved({"first": partial(run, 1)}, 2)["first"]
    compile_time = max(first - second, 0.0) if is_compiled else None
    return Pass(run, partial(pytorch.peak_memory, partial(run, 1)), compile_time)


def timed_compilation(step: Any, *arguments: Any) -> tuple[jax.stages.Compiled, float]:
    """What `jax.jit` made, compiled for these arguments, and the seconds of that."""
    started = time.perf_counter()
    compiled = step.lower(*arguments).compile()
    return compiled, time.perf_counter() - started


def first_state(work: Work, model: Classifier) -> state.TrainState:
    """The state before the first step."""
    sgd = optimizer.create(work.config.optimizer, lambda _: 0.0)
    key = jax.random.key(0, impl="rbg")  # quick to compile
    options = backends.compiler_options(jax.default_backend(), runs_once=True)
    shape = (1, *work.input_shape[1:])
    return jax.jit(lambda: state.create_state(model, sgd, key, shape), compiler_options=options)()


def peak_memory(compiled: jax.stages.Compiled, run: Callable[[int], None]) -> int:
    """Bytes that one of our passes holds at its peak, see above."""
    if jax.default_backend() == "cpu":
        return peak_host_memory(partial(run, 1))
    plan: Any = compiled.memory_analysis()
    return plan.temp_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes


if __name__ == "__main__":
    app.run(main)
