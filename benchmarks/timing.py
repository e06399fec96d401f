"""Measure time, memory and floating-point rates, fairly for JAX and PyTorch in one process."""

import ctypes
import gc
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

PAUSE = 0.5  # seconds between samples, in which threads of the previous implementation stop spinning


def prepare() -> None:
    """Configure JAX and PyTorch: no memory preallocation, no compilation caches.

    Call this before JAX initializes its devices and before PyTorch is imported.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory on the same GPU
    os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
    jax.config.update("jax_enable_compilation_cache", False)


def time_interleaved(functions: Mapping[str, Callable[[], object]], num_samples: int) -> dict[str, list[float]]:
    """Time each function in turn, so that other load on the machine affects all of them alike.

    Args:
      functions: each must block until its work is done, and must have been called before, so that it is compiled.
      num_samples: calls of each function.

    Returns:
      The seconds of each call, by the name of the function.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(num_samples):
        for name, function in functions.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_host_memory(function: Callable[[], object]) -> int:
    """Return the bytes by which a call raises the peak resident memory of this process (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status_bytes("VmRSS")
    function()
    return max(_status_bytes("VmHWM") - before, 0)


def peak_flop_rates(dtype: str) -> list[float]:
    """Return samples of the FLOP/s of large matrix products of random numbers."""
    size = 2048 if jax.default_backend() == "cpu" else 16_384
    a, b = (jax.random.normal(key, (size, size), dtype) for key in jax.random.split(jax.random.key(0)))
    matmul = jax.jit(jnp.matmul)

    def product():
        jax.block_until_ready(matmul(a, b))

    product()
    return [2 * size**3 / seconds for seconds in time_interleaved({"product": product}, num_samples=10)["product"]]


def forward_flop(model: nn.Module, input_shape: tuple[int, ...]) -> float:
    """Return the floating-point operations of a forward pass, counted by XLA before compilation for the CPU."""
    # float32, because XLA cannot count library kernels that bfloat16 selects on a GPU, such as attention
    model = model.clone(dtype=jnp.float32)
    inputs = jax.ShapeDtypeStruct(input_shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), inputs)
    with jax.default_device(jax.devices("cpu")[0]):
        forward: Any = jax.jit(model.apply).lower(variables, inputs).cost_analysis()
    return forward["flops"]


def _status_bytes(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")
