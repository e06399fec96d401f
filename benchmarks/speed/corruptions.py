"""Time corruptions on the device, compared with the published generator on one core.

    python -m benchmarks.speed.corruptions --official ../robustness --json corruptions.json

Measures images of 32 x 32 at severity 3. Ours corrupts --num_images images in batches; the published generator corrupts
--host_images images, one at a time, as it is written. The throughput of a suite is for all of its corruptions in turn.
"""

import time
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from absl import flags

from anchor_jax.cli import app
from anchor_jax.data.corruptions import CORRUPTIONS_15, CORRUPTIONS_19, corrupt
from benchmarks.fidelity import published_corruptions as published
from benchmarks.report import Result, report
from benchmarks.timing import time_interleaved

OURS = "anchor_jax"
SEVERITIES = (1, 2, 3, 4, 5)

JSON = app.define_path("json", None, "Result file.", what="a new file")
OFFICIAL = app.define_path("official", None, "A clone of hendrycks/robustness; tensorflow-datasets by default.")
NAMES = flags.DEFINE_list("corruptions", list(CORRUPTIONS_19), "Comma-separated names.")
NUM_IMAGES = flags.DEFINE_integer("num_images", 10_000, "Images for ours.", lower_bound=1)
HOST_IMAGES = flags.DEFINE_integer("host_images", 100, "Images for the published generator.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 500, "Images per batch of ours.", lower_bound=1)
SAMPLES = flags.DEFINE_integer("samples", 3, "Samples of each implementation.", lower_bound=1)


def main() -> None:
    """Time every corruption and the suites."""
    jax.config.update("jax_enable_compilation_cache", False)  # so that compile_time is measured
    facts = {"images": NUM_IMAGES.value, "host_images": HOST_IMAGES.value, "batch_size": BATCH_SIZE.value}
    report("corruptions", published.versions() | facts, measure(), JSON.value)


def measure() -> list[Result]:
    """Return the throughput and the compile time of every corruption, and the throughput of the suites."""
    images = published.small_images(NUM_IMAGES.value)
    functions, generator = published.published_functions(OFFICIAL.value, 32)
    results = []
    seconds: dict[str, dict[str, list[float]]] = {}  # corruption -> implementation -> seconds per image
    for name in NAMES.value:
        compile_time = measure_compile_time(images, name)
        runs: dict[str, Callable[[], object]] = {OURS: partial(corrupt_all, images, name)}
        if name in functions:
            runs[generator] = partial(published.apply, functions[name], images[: HOST_IMAGES.value])
        nums = {OURS: len(images), generator: len(images[: HOST_IMAGES.value])}
        seconds[name] = {
            implementation: [s / nums[implementation] for s in samples]
            for implementation, samples in time_interleaved(runs, SAMPLES.value).items()
        }
        results += [throughput(f"{name}, 32x32", each, samples) for each, samples in seconds[name].items()]
        results.append(Result(f"{name}, 32x32", OURS, "compile_time", "s", [compile_time]))
    for suite in (CORRUPTIONS_15, CORRUPTIONS_19):
        for implementation in (OURS, generator):
            if all(implementation in seconds.get(name, {}) for name in suite):
                samples = zip(*(seconds[name][implementation] for name in suite), strict=True)
                means = [sum(sample) / len(suite) for sample in samples]
                results.append(throughput(f"{len(suite)} corruptions, 32x32", implementation, means))
    return results


def throughput(case: str, implementation: str, seconds: list[float]) -> Result:
    """Return the throughput, from samples of the seconds per image."""
    return Result(case, implementation, "images_per_second", "images/s", [1 / s for s in seconds])


def corrupt_all(images: np.ndarray, name: str, severity: int = 3) -> None:
    """Corrupt all images in batches of one size; the last batch overlaps with the one before."""
    size = min(BATCH_SIZE.value, len(images))
    starts = [min(start, len(images) - size) for start in range(0, len(images), size)]
    jax.block_until_ready([corrupt(jax.random.key(n), images[n : n + size], name, severity) for n in starts])


def measure_compile_time(images: np.ndarray, name: str) -> float:
    """Return the seconds of the first batches of all severities minus those of second batches."""
    total = 0.0
    for sign in (1, -1):
        for severity in SEVERITIES:
            start = time.perf_counter()
            corrupt_all(images[: BATCH_SIZE.value], name, severity)
            total += sign * (time.perf_counter() - start)
    return max(total, 0.0)


if __name__ == "__main__":
    app.run(main)
