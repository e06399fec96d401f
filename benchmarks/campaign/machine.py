"""Measure the peaks of the first device: matrix products, memory, copies from and to the host, the start of a program.

    python -m benchmarks.campaign.machine --json machine.json

A peak is the rate that a large matrix product or copy reaches; the report of the campaign compares it with the data
sheet.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from anchor_jax.cli import app
from benchmarks.campaign.chips import BANDWIDTH, find_chip, product_case
from benchmarks.campaign.files import write_current
from benchmarks.report import Result, content, report
from benchmarks.timing import peak_flop_rates, prepare, time_interleaved

# (dtype, precision) of matrix products; None is the default: TF32 on a GPU, bfloat16 on a TPU
PRODUCTS = (("bfloat16", None), ("float32", None), ("float32", "highest"))
SAMPLES = 10

JSON = app.define_path("json", None, "Result file.", what="a new file")
IS_TINY = flags.DEFINE_bool("tiny", False, "Use small arrays: the numbers are no peaks.")


def main() -> None:
    """Measure and report; the file is written after each measurement."""
    prepare()
    device, results = jax.devices()[0], []
    facts = {
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": jax.device_count(),
        "memory_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        "chip": find_chip(device.device_kind),
        "is_tiny": IS_TINY.value,
    }
    num_bytes = 2**20 if IS_TINY.value else 2**28 if device.platform == "cpu" else 2**30
    for measured in itertools.chain(product_results(64 if IS_TINY.value else None), memory_results(num_bytes)):
        results.append(measured)
        if JSON.value:
            write_current(JSON.value, content(facts, results))
    report("the machine", facts, results, None)


def product_results(size: int | None) -> Iterator[Result]:
    """Yield the rates of matrix products of this many rows and columns; None: large ones."""
    for dtype, precision in PRODUCTS:
        rates = peak_flop_rates(dtype, size=size, precision=precision)
        yield Result(product_case(dtype, precision), "jax", "flop_rate", "FLOP/s", rates)


def memory_results(num_bytes: int) -> Iterator[Result]:
    """Yield the bandwidths of the device's memory and of copies, and the time of an empty program."""
    host = np.random.default_rng(0).random(num_bytes // 4, np.float32)
    array = jax.block_until_ready(jnp.asarray(host))
    add, total, small = jax.jit(lambda x: x + 1), jax.jit(jnp.sum), jnp.float32(0)
    cases: dict[str, tuple[int, Callable[[], object]]] = {
        BANDWIDTH: (2 * num_bytes, lambda: jax.block_until_ready(add(array))),
        "memory, read": (num_bytes, lambda: jax.block_until_ready(total(array))),
        "host to device": (num_bytes, lambda: jax.block_until_ready(jax.device_put(host))),
    }
    for case, (moved, call) in cases.items():
        yield Result(case, "jax", "bandwidth", "byte/s", [moved / seconds for seconds in samples_of(call)])
    yield Result("device to host", "jax", "bandwidth", "byte/s", fetch_rates(lambda: add(array), num_bytes))
    start = samples_of(lambda: jax.block_until_ready(add(small)))
    yield Result("an empty program", "jax", "seconds", "s", start)


def samples_of(call: Callable[[], object]) -> list[float]:
    """Return the seconds of calls, after one that compiles."""
    call()
    return time_interleaved({"": call}, SAMPLES)[""]


def fetch_rates(create: Callable[[], jax.Array], num_bytes: int) -> list[float]:
    """Return the bytes/s of copies to the host, each of a new array: JAX keeps what it has copied."""
    rates = []
    for _ in range(SAMPLES):
        array = jax.block_until_ready(create())
        (seconds,) = time_interleaved({"": partial(np.array, array)}, 1)[""]
        rates.append(num_bytes / seconds)
    return rates


if __name__ == "__main__":
    app.run(main)
