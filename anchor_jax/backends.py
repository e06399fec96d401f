"""What helps one platform alone, chosen by platform."""

from functools import cache

import jax

# without XLA's YNN fusion a training step of ResNet-18 is 1.1 (width 16) to 1.2 times (width 64) as fast on 2 cores
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


def compiler_options(platform: str) -> dict[str, str] | None:
    """XLA options for `jax.jit` on a platform ("cpu", "gpu", "tpu"); None where the defaults serve."""
    return _CPU_OPTIONS if platform == "cpu" and all(map(_is_known_to_xla, _CPU_OPTIONS)) else None


def loops_on_device(platform: str) -> bool:
    """Whether many training steps go into one compiled loop; on CPU, XLA compiles convolution gradients in a
    loop to code that is thirty times slower.
    """
    return platform != "cpu"


@cache
def _is_known_to_xla(option: str) -> bool:
    """Whether the installed XLA still has an option: an unknown one is an error at compilation."""
    try:
        jax.jit(lambda: 0, compiler_options={option: ""}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
