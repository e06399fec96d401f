"""Time K-reference prediction and bilinear transduction (BLT), and measure the peak memory of prediction.

    python -m benchmarks.speed.inference --official ../anchoring --num_references 1,10,100 --json inference.json

Ours is the compiled network of a run's predictor, which receives uint8 images from the host and normalizes them on the
device. So does PyTorch as a user could write it, one reference at a time: eager, compiled, on a GPU as a CUDA graph.
The released code receives normalized tensors on the device, and evaluates all K references of a batch at once; if that
needs more than --memory_limit, it is skipped with a note. Everything is float32 (TF32 on a GPU, in all).
"""

import importlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import linen as nn

import anchor_jax as aj
from anchor_jax import models
from anchor_jax.cli import app
from anchor_jax.config import Config
from anchor_jax.core.errors import UserError, unknown
from anchor_jax.data import normalize
from anchor_jax.runs import state
from anchor_jax.runs.network import CompiledNetwork
from anchor_jax.runtime import backends
from anchor_jax.runtime import mesh as mesh_lib
from benchmarks import pytorch
from benchmarks.report import Result, report
from benchmarks.speed.cifar import IMAGE_SHAPE, NUM_CLASSES, base, normalization_of, random_images
from benchmarks.timing import build_each, peak_host_memory, time_interleaved

OURS, RELEASED = "anchor_jax", ("released-nchw", "released-channels-last")
MEASURED = ("speed", "memory", "transduction")

JSON = app.define_path("json", None, "Result file.", what="a new file")
OFFICIAL = app.define_path("official", None, "A clone of LLNL/anchoring, the released code, to time as well.")
WIDTH = flags.DEFINE_integer("width", 64, "Channels of the first stage of the ResNet-18.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Inputs per batch.", lower_bound=1)
NUM_REFERENCES = flags.DEFINE_list("num_references", ["1", "5", "10", "100"], "Comma-separated values of K.")
SAMPLES = flags.DEFINE_integer("samples", 5, "Samples of each implementation.", lower_bound=1)
BATCHES = flags.DEFINE_integer("batches", None, "Batches per sample; 50 by default, 1 on CPU.", lower_bound=1)
MEMORY_LIMIT = flags.DEFINE_float("memory_limit", 16, "GiB that the released code may need.", lower_bound=0)
INPUTS = flags.DEFINE_integer("inputs", 1_000, "Inputs that BLT predicts.", lower_bound=1)
BANK = flags.DEFINE_integer("bank", None, "References for BLT; 50,000 by default, 1,000 on CPU.", lower_bound=1)
RESIDUALS = flags.DEFINE_integer("residuals", 1_000, "Residuals for BLT.", lower_bound=1)
IMPLEMENTATIONS = flags.DEFINE_list("implementations", None, "Comma-separated names; all by default.")
MEASURE = flags.DEFINE_list("measure", list(MEASURED), f"Comma-separated, of {', '.join(MEASURED)}.")

Steps = Callable[[int], None]  # predicts a number of batches, and returns when the device is done


class Work(NamedTuple):
    """The prediction to time."""

    width: int
    batch_size: int
    num_references: int
    official: Path | None


def main() -> None:
    """Time predictions for every K, then BLT."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # other processes need memory on the same GPU
    works = [
        Work(WIDTH.value, BATCH_SIZE.value, positive("num_references", num), OFFICIAL.value)
        for num in NUM_REFERENCES.value
    ]
    for name in MEASURE.value:
        if name not in MEASURED:
            raise unknown("measurement", name, MEASURED)
    names = implementations()
    num_batches = BATCHES.value or (1 if jax.default_backend() == "cpu" else 50)
    results = [r for work in works for r in prediction_results(work, names, num_batches)]
    if "transduction" in MEASURE.value:
        results += transduction_results()
    report("inference", {"dtype": "float32", "batches_per_sample": num_batches}, results, JSON.value)


def implementations() -> list[str]:
    """Return the names of the implementations to time: ours, PyTorch, and the released code, if it is given."""
    wanted, found = IMPLEMENTATIONS.value, [OURS]
    if set(wanted or ["all"]) != {OURS} and pytorch.is_installed():
        found += importlib.import_module("benchmarks.pytorch.prediction").names()
        if OFFICIAL.value:
            load_official(OFFICIAL.value, WIDTH.value)  # fails early
            found += RELEASED
    for name in wanted or ():
        if name not in found:
            print(f"no implementation '{name}'; available: {', '.join(found)}")
    return [name for name in found if name in (wanted or found)]


def positive(flag: str, value: str) -> int:
    """Parse a flag's value as an integer of at least 1."""
    number = app.integer(flag, value)
    if number < 1:
        raise UserError(f"--{flag} must be at least 1; got {number}")
    return number


def prediction_results(work: Work, names: Sequence[str], num_batches: int) -> list[Result]:
    """Return the throughput and memory of every implementation at one K."""
    case = f"K={work.num_references}, resnet18 width {work.width}, batch {work.batch_size}"
    if released_memory(work) > MEMORY_LIMIT.value * 2**30 and set(RELEASED) & set(names):
        needed = released_memory(work) / 2**30
        print(f"{case}: the released code is skipped; it needs {needed:.3g} GiB, more than --memory_limit")
        names = [name for name in names if name not in RELEASED]
    built = build_each({name: partial(built_prediction, name, work, num_batches) for name in names}, (OURS,), case)
    runs = {name: run for name, (run, _) in built.items()} if "speed" in MEASURE.value else {}
    inputs, results = num_batches * work.batch_size, []
    for name, samples in time_interleaved(runs, SAMPLES.value).items():
        speeds = [inputs / seconds for seconds in samples]
        results.append(Result(case, name, "inputs_per_second", "inputs/s", speeds))
    for name, (_, memory) in built.items():
        if memory is not None:
            results.append(Result(case, name, "peak_memory", "MiB", [memory / 2**20]))
    return results


def built_prediction(name: str, work: Work, num_batches: int) -> tuple[Callable[[], None], int | None]:
    """Return a prediction and its peak memory in bytes, None without --measure=memory; compiled for --measure=speed."""
    memory = run_in_new_process(peak_memory, name, work) if "memory" in MEASURE.value else None
    if "speed" not in MEASURE.value:
        return lambda: None, memory
    run = partial(prediction(name, work), num_batches)
    run()
    return run, memory


def released_memory(work: Work) -> int:
    """Return the bytes of five first-stage activations for all K·B inputs, close to the peak measured on a CPU."""
    height, width, _ = IMAGE_SHAPE
    return 5 * 4 * work.num_references * work.batch_size * height * width * work.width


def run_in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a function called in a new process."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_memory(name: str, work: Work) -> int:
    """Return the bytes that a batch needs beyond what was allocated before it, after a first batch that compiles.

    On a GPU, JAX reports only the peak since the process started, which may be that of autotuning convolutions.
    """
    predict = partial(prediction(name, work), 1)
    predict()
    if name != OURS:
        return importlib.import_module("benchmarks.pytorch.device").peak_memory(predict)
    if jax.default_backend() == "cpu":
        return peak_host_memory(predict)
    before = jax.devices()[0].memory_stats()["bytes_in_use"]
    predict()
    return jax.devices()[0].memory_stats()["peak_bytes_in_use"] - before


def prediction(name: str, work: Work) -> Steps:
    """Return the prediction of batches of random images with K random references."""
    config = base()
    images, references = random_images(work.batch_size), random_images(work.num_references)
    if name == OURS:
        return predict_ours(config, work.width, images, references)
    if name not in RELEASED:
        module = importlib.import_module("benchmarks.pytorch.prediction")
        return module.prediction(name, work.width, config, images, references)
    released = importlib.import_module("benchmarks.pytorch.released")
    return released.prediction(load_official(work.official, work.width), name, config, images, references)


def load_official(folder: Path | None, width: int) -> Any:
    """Import the released code from its clone."""
    return importlib.import_module("benchmarks.pytorch.released").Released.load(folder, width)


def predict_ours(config: Config, width: int, images: np.ndarray, references: np.ndarray) -> Steps:
    """Return prediction as in `anchor_jax.Predictor` with full batches, on one device."""
    model, variables = network(width)
    compiled = CompiledNetwork(
        model, normalization_of(config), mesh_lib.mesh(1), anchored=True, inputs_at_once=len(images)
    )

    def predict(num_batches):
        encoded = compiled.encode(variables, references)
        predictions = [compiled.classify(variables, encoded, images) for _ in range(num_batches)]
        jax.block_until_ready(predictions)

    return predict


def transduction_results() -> list[Result]:
    """Return the seconds with one random reference and with BLT, and their ratio.

    BLT predicts each input with the reference that `aj.transductive_references` selects among --bank references, given
    --residuals residuals. The same network with one random reference predicts all --inputs inputs at once, too.
    """
    bank_size = BANK.value or (1_000 if jax.default_backend() == "cpu" else 50_000)
    model, variables = network(WIDTH.value)
    normalization = normalization_of(base())
    x, bank, others = (
        normalize(jnp.asarray(random_images(num)), normalization) for num in (INPUTS.value, bank_size, RESIDUALS.value)
    )
    residuals = others - bank[jnp.arange(RESIDUALS.value) % bank_size]

    def apply(variables, inputs) -> Any:
        return model.apply(variables, inputs)

    def predict_random(variables, x, references):
        return aj.classify(apply, variables, x, references).probs

    def predict_transductive(variables, x, bank, residuals):
        return jax.nn.softmax(aj.anchored(apply)(variables, x, aj.transductive_references(x, bank, residuals)))

    jit = partial(jax.jit, compiler_options=backends.compiler_options(jax.default_backend()))
    predictions = {
        "random reference": partial(jit(predict_random), variables, x, bank[:1]),
        "BLT": partial(jit(predict_transductive), variables, x, bank, residuals),
    }
    runs = {name: partial(call_and_wait, predict) for name, predict in predictions.items()}
    for run in runs.values():
        run()
    seconds = time_interleaved(runs, SAMPLES.value)
    case = f"{INPUTS.value:,} inputs, resnet18 width {WIDTH.value}"
    blt_case = f"{case}, BLT of {bank_size:,} references, {RESIDUALS.value:,} residuals"
    ratios = [blt / random for random, blt in zip(seconds["random reference"], seconds["BLT"], strict=True)]
    return [
        Result(f"{case}, random reference", OURS, "seconds", "s", seconds["random reference"]),
        Result(blt_case, OURS, "seconds", "s", seconds["BLT"]),
        Result(blt_case, OURS, "ratio_to_random", "1", ratios),
    ]


def call_and_wait(predict: Callable[[], Any]) -> None:
    """Call a function and wait for the device."""
    jax.block_until_ready(predict())


@cache
def network(width: int) -> tuple[nn.Module, Any]:
    """Return an anchored ResNet-18 and its initial variables."""
    model = models.create("resnet18", NUM_CLASSES, width=width)
    *sides, channels = IMAGE_SHAPE
    shape = (1, *sides, 2 * channels)
    key = jax.random.key(0, impl="rbg")  # compiles quickly
    return model, jax.jit(lambda: state.init_variables(model, key, shape))()


if __name__ == "__main__":
    app.run(main)
