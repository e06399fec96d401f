"""Inputs a second and peak memory of K-reference predictions, and the price of bilinear transduction (BLT).

    python benchmarks/inference.py --official ../anchoring --num_references 1,10,100 --json inference.json

Ours is the compiled network of a run's predictor: uint8 images go up to the device and are normalised there. The
released code is given tensors that are normalised and on the device already, and evaluates all K references of a batch
at once; where that wants more than --memory_limit it is left out, which is told. "peak_memory" is what one
batch holds beyond what was held before it, in a process of its own that has compiled and run it once; of a GPU, JAX
knows only the peak since its start, which may be that of the search for the fastest convolutions. All is float32 (on
a GPU with TF32 in both).

BLT predicts with the one reference of each input that `aj.transductive_references` finds among --bank references and
--residuals residuals; beside it the same network with one random reference for all of the --inputs inputs at once.
"""

import importlib
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from cifar import IMAGE_SHAPE, NUM_CLASSES, base, normalization_of, random_images
from flax import linen as nn
from timing import Result, installed_pytorch, interleaved, peak_host_memory, report

import anchor_jax as aj
from anchor_jax import models
from anchor_jax.cli import app
from anchor_jax.config import Config
from anchor_jax.core.errors import UserError
from anchor_jax.data import normalize
from anchor_jax.runs import state
from anchor_jax.runs.network import CompiledNetwork
from anchor_jax.runtime import backends
from anchor_jax.runtime import mesh as mesh_lib

OURS, RELEASED = "anchor_jax", ("released-nchw", "released-channels-last")

JSON = flags.DEFINE_string("json", None, "Where the numbers go.")
OFFICIAL = flags.DEFINE_string("official", "", "A clone of LLNL/anchoring, the released code, to be timed too.")
WIDTH = flags.DEFINE_integer("width", 64, "Channels of the first stage of the ResNet-18.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Inputs of a batch.", lower_bound=1)
NUM_REFERENCES = flags.DEFINE_list("num_references", ["1", "5", "10", "100"], "K, several with commas between.")
SAMPLES = flags.DEFINE_integer("samples", 5, "Samples of each implementation.", lower_bound=1)
BATCHES = flags.DEFINE_integer("batches", None, "Batches a sample; 50 by default, on CPU 1.", lower_bound=1)
MEMORY_LIMIT = flags.DEFINE_float("memory_limit", 16, "GiB that the released code may want.", lower_bound=0)
INPUTS = flags.DEFINE_integer("inputs", 1_000, "Inputs that BLT predicts.", lower_bound=1)
BANK = flags.DEFINE_integer("bank", None, "References for BLT; 50,000 by default, on CPU 1,000.", lower_bound=1)
RESIDUALS = flags.DEFINE_integer("residuals", 1_000, "Residuals for BLT.", lower_bound=1)

Steps = Callable[[int], None]  # predicts so many batches, and returns when they are done


class Work(NamedTuple):
    """What is to be predicted."""

    width: int
    batch_size: int
    num_references: int
    official: str


def main() -> None:
    """Measure, print a table, write the file."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the GPU is other processes' too
    works = [
        Work(WIDTH.value, BATCH_SIZE.value, positive("num_references", num), OFFICIAL.value)
        for num in NUM_REFERENCES.value
    ]
    pytorch = installed_pytorch() if OFFICIAL.value else None
    if pytorch:
        pytorch.Released.load(Path(OFFICIAL.value), WIDTH.value)
    num_batches = BATCHES.value or (1 if jax.default_backend() == "cpu" else 50)
    results = [r for work in works for r in prediction_results(work, num_batches, with_released=bool(pytorch))]
    results += transduction_results()
    report("inference", {"dtype": "float32", "batches_per_sample": num_batches}, results, JSON.value)


def positive(flag: str, value: str) -> int:
    """The whole number of a flag, at least 1."""
    number = app.integer(flag, value)
    if number < 1:
        raise UserError(f"--{flag} must be at least 1; got {number}")
    return number


def prediction_results(work: Work, num_batches: int, *, with_released: bool) -> list[Result]:
    """Speed and memory of every implementation at one K."""
    case = f"K={work.num_references}, resnet18 width {work.width}, batch {work.batch_size}"
    names = [OURS]
    if with_released and wanted_by_released(work) <= MEMORY_LIMIT.value * 2**30:
        names += RELEASED
    elif with_released:
        wanted = wanted_by_released(work) / 2**30
        print(f"{case}: released code is left out: it wants {wanted:.3g} GiB, more than --memory_limit")
    memory = {name: in_fresh_process(peak_memory, name, work) for name in names}
    runs = {name: partial(prediction(name, work), num_batches) for name in names}
    for run in runs.values():
        run()
    inputs, results = num_batches * work.batch_size, []
    for name, samples in interleaved(runs, SAMPLES.value).items():
        speeds = [inputs / seconds for seconds in samples]
        results.append(Result(case, name, "inputs_per_second", "inputs/s", speeds))
        results.append(Result(case, name, "peak_memory", "MiB", [memory[name] / 2**20]))
    return results


def wanted_by_released(work: Work) -> int:
    """Bytes of five activations of the first stage for all K·B inputs, which is near the peak measured on a CPU."""
    height, width, _ = IMAGE_SHAPE
    return 5 * 4 * work.num_references * work.batch_size * height * width * work.width


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_memory(name: str, work: Work) -> int:
    """Bytes that the prediction of one batch holds at its peak, see above."""
    predict = partial(prediction(name, work), 1)
    predict()
    if name in RELEASED:
        return importlib.import_module("pytorch").peak_memory(predict)
    if jax.default_backend() == "cpu":
        return peak_host_memory(predict)
    held = jax.devices()[0].memory_stats()["bytes_in_use"]
    predict()
    return jax.devices()[0].memory_stats()["peak_bytes_in_use"] - held


def prediction(name: str, work: Work) -> Steps:
    """The prediction of batches of random images with K random references."""
    config = base()
    images, references = random_images(work.batch_size), random_images(work.num_references)
    if name == OURS:
        return own_prediction(config, work.width, images, references)
    pytorch = importlib.import_module("pytorch")
    released = pytorch.Released.load(Path(work.official), work.width)
    return pytorch.released_prediction(released, name, config, images, references)


def own_prediction(config: Config, width: int, images: np.ndarray, references: np.ndarray) -> Steps:
    """Prediction as `anchor_jax.Predictor` does it with full batches, on one device."""
    model, variables = network(width)
    compiled = CompiledNetwork(
        model, normalization_of(config), mesh_lib.mesh(1), anchored=True, inputs_at_once=len(images)
    )

    def predict(num_batches):
        encoded = compiled.encode(variables, references)
        answers = [compiled.classify(variables, encoded, images) for _ in range(num_batches)]
        jax.block_until_ready(answers)

    return predict


def transduction_results() -> list[Result]:
    """Seconds of one random reference and of BLT, and their ratio."""
    bank_size = BANK.value or (1_000 if jax.default_backend() == "cpu" else 50_000)
    model, variables = network(WIDTH.value)
    normalization = normalization_of(base())
    x, bank, others = (
        normalize(jnp.asarray(random_images(num)), normalization) for num in (INPUTS.value, bank_size, RESIDUALS.value)
    )
    residuals = others - bank[jnp.arange(RESIDUALS.value) % bank_size]

    def apply(variables, inputs) -> Any:
        return model.apply(variables, inputs)

    def with_one_reference(variables, x, references):
        return aj.classify(apply, variables, x, references).probs

    def transductive(variables, x, bank, residuals):
        return jax.nn.softmax(aj.anchored(apply)(variables, x, aj.transductive_references(x, bank, residuals)))

    compiled = partial(jax.jit, compiler_options=backends.compiler_options(jax.default_backend()))
    predictions = {
        "random reference": partial(compiled(with_one_reference), variables, x, bank[:1]),
        "BLT": partial(compiled(transductive), variables, x, bank, residuals),
    }
    runs = {name: partial(finished, predict) for name, predict in predictions.items()}
    for run in runs.values():
        run()
    seconds = interleaved(runs, SAMPLES.value)
    case = f"{INPUTS.value:,} inputs, resnet18 width {WIDTH.value}"
    blt_case = f"{case}, BLT of {bank_size:,} references, {RESIDUALS.value:,} residuals"
    ratios = [blt / random for random, blt in zip(seconds["random reference"], seconds["BLT"], strict=True)]
    return [
        Result(f"{case}, random reference", OURS, "seconds", "s", seconds["random reference"]),
        Result(blt_case, OURS, "seconds", "s", seconds["BLT"]),
        Result(blt_case, OURS, "ratio_to_random", "1", ratios),
    ]


def finished(predict: Callable[[], Any]) -> None:
    """Call, and wait for the device."""
    jax.block_until_ready(predict())


@cache
def network(width: int) -> tuple[nn.Module, Any]:
    """An anchored ResNet-18 and its first variables."""
    model = models.create("resnet18", NUM_CLASSES, width=width)
    *sides, channels = IMAGE_SHAPE
    shape = (1, *sides, 2 * channels)
    key = jax.random.key(0, impl="rbg")  # quick to compile
    return model, jax.jit(lambda: state.init_variables(model, key, shape))()


if __name__ == "__main__":
    app.run(main)
