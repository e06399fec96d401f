"""What every benchmark shares: fair timing, peak memory, the table and the result file."""

import ctypes
import gc
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from rich.console import Console
from rich.table import Table

from anchor_jax.runtime.atomic_files import atomic_write

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "pillow", "torch", "torchvision", "timm", "transformers")

PAUSE = 0.5  # seconds, for threads that another implementation may have left spinning


class Result(NamedTuple):
    """Samples of one quantity, in the form of the result file."""

    case: str  # what is done, such as "resnet18 width 64, batch 128"
    implementation: str  # by whom, such as "anchor_jax" or "pytorch"
    metric: str  # such as "images_per_second", "peak_memory", "compile_time"
    unit: str
    samples: Sequence[float]

    @property
    def median(self) -> float:
        """Of the samples."""
        return statistics.median(self.samples)


def prepare() -> None:
    """Set up both sides, before JAX looks for devices and PyTorch is imported; nothing compiled is kept."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the GPU is PyTorch's too
    os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
    jax.config.update("jax_enable_compilation_cache", False)


def interleaved(runs: Mapping[str, Callable[[], object]], num_samples: int) -> dict[str, list[float]]:
    """Seconds of each run, in turn, so that what else the machine does falls on all of them alike.

    Every run must return only when its work is done; each has been called before, so that nothing is compiled.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(num_samples):
        for name, run in runs.items():
            time.sleep(PAUSE)
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def peak_host_memory(run: Callable[[], object]) -> int:
    """Bytes by which a call raises the resident memory of this process at its peak (Linux), beyond what was held."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    held = _status("VmRSS")
    run()
    return max(_status("VmHWM") - held, 0)


def peak_rates(dtype: str) -> list[float]:
    """Floating-point operations a second in products of large random matrices."""
    size = 2048 if jax.default_backend() == "cpu" else 16_384
    a, b = (jax.random.normal(key, (size, size), dtype) for key in jax.random.split(jax.random.key(0)))
    multiply = jax.jit(jnp.matmul)

    def product():
        jax.block_until_ready(multiply(a, b))

    product()
    return [2 * size**3 / seconds for seconds in interleaved({"product": product}, num_samples=10)["product"]]


def forward_flop(model: nn.Module, input_shape: tuple[int, ...]) -> float:
    """Floating-point operations of a forward pass, as XLA counts them before it compiles it for the CPU."""
    # in float32, since what a library computes in bfloat16 on a GPU, such as attention, XLA cannot count
    model = model.clone(dtype=jnp.float32)
    inputs = jax.ShapeDtypeStruct(input_shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), inputs)
    with jax.default_device(jax.devices("cpu")[0]):
        forward: Any = jax.jit(model.apply).lower(variables, inputs).cost_analysis()
    return forward["flops"]


def installed_pytorch(module: str = "pytorch") -> ModuleType | None:
    """A file of `benchmarks/` that needs PyTorch; None, and a line that says so, where that is not installed."""
    if importlib.util.find_spec("torch"):
        return importlib.import_module(module)
    print("PyTorch is not installed: its implementations are left out")
    return None


def environment() -> dict[str, Any]:
    """What the numbers depend on: hardware, versions, the command."""
    device = jax.devices()[0]
    return {
        "command": " ".join(["python", *sys.argv]),
        "cpu": _cpu_name(),
        "cpu_cores": os.cpu_count(),
        "accelerator": None if device.platform == "cpu" else f"{jax.device_count()} x {device.device_kind}",
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def report(title: str, facts: Mapping[str, Any], results: Sequence[Result], file: str | None) -> None:
    """Print a table, and write the result file where one is asked for."""
    table = Table("case", "implementation", "metric", "median", "least", "most", "unit", title=title)
    for result in results:
        numbers = (result.median, min(result.samples), max(result.samples))
        table.add_row(
            result.case, result.implementation, result.metric, *(f"{number:,.4g}" for number in numbers), result.unit
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    if file:
        content = {
            "environment": {**environment(), **facts},
            "results": [{**r._asdict(), "samples": list(r.samples), "median": r.median} for r in results],
        }
        with atomic_write(Path(file)) as new:
            new.write_text(json.dumps(content, indent=1) + "\n")


def _cpu_name():
    cpuinfo = Path("/proc/cpuinfo")  # of Linux
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _status(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")
