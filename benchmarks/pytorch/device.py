"""The device, and what every PyTorch implementation needs: an optimizer, repeated steps and the peak memory.

Both sides may use TF32 for float32 on a GPU: XLA does so by default, and `device` enables it in PyTorch.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import torch

from anchor_jax.config import Config
from anchor_jax.core.errors import UserError
from benchmarks.timing import peak_host_memory

Steps = Callable[[int], None]  # runs a number of steps, and returns when the device is done
Builders = Mapping[str, Callable[[], Steps]]  # by the name of the implementation


@cache
def device() -> torch.device:
    """Return the device that JAX uses, with PyTorch configured to be fast on it.

    Raises:
      UserError: this build of PyTorch does not support it.
    """
    platform = jax.default_backend()
    if platform == "cpu":
        return torch.device("cpu")
    if platform != "gpu" or not torch.cuda.is_available():
        raise UserError(
            f"JAX runs on {platform}, which PyTorch {torch.__version__} does not support here; install a build for "
            "it, or compare on the CPU with JAX_PLATFORMS=cpu"
        )
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda", 0)


def peak_memory(function: Callable[[], object]) -> int:
    """Return the bytes that a call needs at its peak beyond what was allocated before: on the GPU, else on the host."""
    if device().type == "cpu":
        return peak_host_memory(function)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    return torch.cuda.max_memory_allocated() - before


def sgd(module: torch.nn.Module, config: Config, **options: Any) -> torch.optim.SGD:
    """Return SGD with momentum and weight decay as in the config."""
    settings = config.optimizer
    return torch.optim.SGD(
        module.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay, **options
    )


def repeat(step: Callable[[], object]) -> Steps:
    """Return a function that runs a step `num_steps` times and waits for the device."""

    def run(num_steps):
        for _ in range(num_steps):
            step()
        if device().type == "cuda":
            torch.cuda.synchronize()

    return run
