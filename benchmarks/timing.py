"""Measure time, memory and floating-point rates, fairly for JAX and PyTorch in one process."""

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn

T = TypeVar("T")
PAUSE = 0.5  # seconds before a sample of another implementation, in which threads of the previous one stop spinning


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
      The seconds of each call, by the name of the function; fewer calls if SIGTERM arrives.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    with ended_by_sigterm("the samples so far are reported"):
        for _ in range(num_samples):
            for name, function in functions.items():
                if len(functions) > 1:
                    time.sleep(PAUSE)
                start = time.perf_counter()
                function()
                seconds[name].append(time.perf_counter() - start)
    fewest = min(map(len, seconds.values()), default=0)
    if functions and not fewest:
        sys.exit(128 + signal.SIGTERM)
    return {name: samples[:fewest] for name, samples in seconds.items()}


def build_each(builders: Mapping[str, Callable[[], T]], required: Iterable[str], case: str) -> dict[str, T]:
    """Build implementations, and skip those of PyTorch that fail here: its compilers can fail in many ways.

    Args:
      builders: by the name of the implementation; each compiles what it returns.
      required: names of those that must not fail.
      case: for messages.

    Returns:
      What was built, by name; only the first ones if SIGTERM arrives.
    """
    found: dict[str, T] = {}
    with ended_by_sigterm("the implementations so far are timed"):
        for name, build in builders.items():
            try:
                found[name] = build()
            except Exception as error:
                if name in required:
                    raise
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                print(f"{case}: {name} is skipped: {reason}", flush=True)
    if not set(required) & builders.keys() <= found.keys():
        sys.exit(128 + signal.SIGTERM)  # before there was anything to compare with
    return found


class _Stopped(BaseException):
    pass


@contextlib.contextmanager
def ended_by_sigterm(consequence: str) -> Iterator[None]:
    """Leave the block when SIGTERM arrives, with a message; a later one ends the process, as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise _Stopped

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except _Stopped:
        print(f"SIGTERM: {consequence}", flush=True)
    finally:
        signal.signal(signal.SIGTERM, previous)


def peak_host_memory(function: Callable[[], object]) -> int:
    """Return the bytes by which a call raises the peak resident memory of this process (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status_bytes("VmRSS")
    function()
    return max(_status_bytes("VmHWM") - before, 0)


def peak_flop_rates(
    dtype: str, *, size: int | None = None, precision: str | None = None, num_samples: int = 10
) -> list[float]:
    """Return samples of the FLOP/s of large matrix products of random numbers.

    Args:
      dtype: of the operands.
      size: rows and columns; 16,384 by default, 2,048 on CPU.
      precision: of `jnp.matmul`; the platform's default if None.
      num_samples: number of samples.
    """
    size = size or (2048 if jax.default_backend() == "cpu" else 16_384)
    a, b = (jax.random.normal(key, (size, size), dtype) for key in jax.random.split(jax.random.key(0)))
    matmul = jax.jit(partial(jnp.matmul, precision=precision))

    def product():
        jax.block_until_ready(matmul(a, b))

    product()
    return [2 * size**3 / seconds for seconds in time_interleaved({"product": product}, num_samples)["product"]]


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
