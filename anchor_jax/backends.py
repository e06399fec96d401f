"""What helps one platform alone, chosen by platform."""

from functools import cache
from typing import Literal

import jax
import jax.numpy as jnp

# of XLA's YNN fusions only the sums: its convolutions are slower than those of Eigen, which take their place
_CPU_OPTIONS: dict[str, str | int] = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
# compiling the random numbers of the first parameters takes seconds, running them milliseconds
_CPU_ONCE_OPTIONS: dict[str, str | int] = {"xla_backend_optimization_level": 0}


def compiler_options(platform: str, *, runs_once: bool = False) -> dict[str, str | int] | None:
    """XLA options for `jax.jit` on a platform ("cpu", "gpu", "tpu"); None where the defaults serve."""
    options = _CPU_ONCE_OPTIONS if runs_once else _CPU_OPTIONS
    return options if platform == "cpu" and all(map(_is_known_to_xla, options.items())) else None


def loops_on_device(platform: str) -> bool:
    """Whether many training steps go into one compiled loop; on CPU, XLA compiles convolution gradients in a
    loop to code that is many times slower.
    """
    return platform != "cpu"


def attention_implementation(dtype: jnp.dtype) -> Literal["cudnn", "xla"]:
    """The `implementation` of `jax.nn.dot_product_attention` on the default platform: cuDNN's where it has one."""
    # cuDNN's flash attention is for NVIDIA's GPUs alone and for half precision alone
    is_cuda = jax.default_backend() == "gpu" and "cuda" in jax.devices()[0].client.platform_version.lower()
    return "cudnn" if is_cuda and dtype == jnp.bfloat16 else "xla"


@jax.custom_jvp
def computed_once(x: jax.Array) -> jax.Array:
    """`x` itself; on CPU it is computed once, also where it has several readers.

    XLA on CPU fuses what it takes for cheap, such as BatchNorm and ReLU, into every reader. Where that is the
    transpose before a convolution's gradient, whole blocks of a ResNet are computed again in an order that
    defeats the caches.
    """
    return jax.lax.platform_dependent(x, cpu=_behind_a_branch, default=lambda x: x)


@computed_once.defjvp
def _computed_once_jvp(primals, tangents):
    return computed_once(*primals), *tangents


def _behind_a_branch(x):
    # no fusion crosses a branch; an optimization barrier around `x` would not do, since XLA drops it before it fuses
    taken = jax.lax.optimization_barrier(jnp.bool_(True))
    return jax.lax.cond(taken, lambda x: x, jnp.negative, x)


@cache
def _is_known_to_xla(option: tuple[str, str | int]) -> bool:
    """Whether the installed XLA still has an option and its value: an unknown one is an error at compilation."""
    try:
        jax.jit(lambda: 0, compiler_options=dict([option])).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
