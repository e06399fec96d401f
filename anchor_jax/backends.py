"""What helps one platform alone, chosen by platform."""

import jax

# XLA's YNN fusion makes the training step of a convolutional net on CPU three times slower
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


def compiler_options(platform: str) -> dict[str, str] | None:
    """XLA options for `jax.jit` on a platform ("cpu", "gpu", "tpu"); None where the defaults serve."""
    return _CPU_OPTIONS if platform == "cpu" and _is_known_to_xla(_CPU_OPTIONS) else None


def loops_on_device(platform: str) -> bool:
    """Whether many training steps go into one compiled loop; on CPU, XLA compiles convolution gradients in a
    loop to code that is thirty times slower.
    """
    return platform != "cpu"


def _is_known_to_xla(options: dict[str, str]) -> bool:
    """Whether the installed XLA still has these options: an unknown one is an error at compilation."""
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
