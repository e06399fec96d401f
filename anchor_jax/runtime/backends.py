"""What helps one platform alone, chosen by platform."""

import ctypes
import sys
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

# of XLA's YNN fusions only the sums: its convolutions are slower than those of Eigen, which take their place
_CPU_OPTIONS: dict[str, str | int] = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
# compiling the random numbers of the first parameters takes seconds, running them milliseconds
_CPU_ONCE_OPTIONS: dict[str, str | int] = {"xla_backend_optimization_level": 0}

# of glibc's mallopt: M_TOP_PAD, and M_MMAP_THRESHOLD at its most, which glibc raises no more where one is given
_MALLOC = {-2: 2**27, -3: 2**25}


def keep_freed_host_memory() -> None:
    """Let glibc keep what the CPU's computations free; it would give it back, and ask for it again in each step."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # musl has none
        for parameter, value in _MALLOC.items():
            libc.mallopt(parameter, value)


def compiler_options(platform: str, *, runs_once: bool = False) -> dict[str, str | int] | None:
    """XLA options for `jax.jit` on a platform ("cpu", "gpu", "tpu"); None where the defaults serve."""
    options = _CPU_ONCE_OPTIONS if runs_once else _CPU_OPTIONS
    return options if platform == "cpu" and all(map(_is_known_to_xla, options.items())) else None


def has_fast_device_loops(platform: str) -> bool:
    """Whether many training steps go into one compiled loop; on CPU, XLA compiles convolution gradients in a
    loop to code that is many times slower.
    """
    return platform != "cpu"


def attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Scaled dot-product attention, `[B, T, heads, D]` each; cuDNN's where the default platform has one.

    Where B is symbolic, what is traced is to be exported, and may run on another platform than the default one.
    """
    if is_symbolic_dim(query.shape[0]) or not _has_cudnn_attention(query.dtype):
        return jax.nn.dot_product_attention(query, key, value, implementation="xla")
    tokens = query.shape[1]
    if tokens % 2 == 0:
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    # its gradient takes even numbers of tokens alone: one more is put at the end, at which nobody looks
    padded = [jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (query, key, value)]
    lengths = jnp.where(query[:, 0, 0, 0] > 0, tokens, tokens)  # mapped by `vmap` whenever the queries are, as it must
    attended = jax.nn.dot_product_attention(
        *padded, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation="cudnn"
    )
    return attended[:, :tokens]


def _has_cudnn_attention(dtype: jnp.dtype) -> bool:
    """Whether there is flash attention of cuDNN: on NVIDIA's GPUs, for half precision."""
    if jax.default_backend() != "gpu" or dtype != jnp.bfloat16:
        return False
    return "cuda" in jax.devices()[0].client.platform_version.lower()


def histogram(values: jax.Array) -> jax.Array:
    """How often each level is in uint8 `[N]`, int32 `[256]`.

    Adding one by one is the fastest on a CPU, and the slowest where thousands do it at once.
    """

    def added(values):
        return jnp.zeros(256, jnp.int32).at[values].add(1)

    def compared(values):
        return jnp.sum(values == jnp.arange(256, dtype=jnp.uint8)[:, None], axis=1, dtype=jnp.int32)

    return jax.lax.platform_dependent(values, cpu=added, default=compared)


@jax.custom_jvp
def materialize(x: jax.Array) -> jax.Array:
    """`x` itself; on CPU it is computed once, also where it has several readers.

    XLA on CPU fuses what it takes for cheap, such as BatchNorm and ReLU, into every reader. Where that is the
    transpose before a convolution's gradient, whole blocks of a ResNet are computed again in an order that
    defeats the caches.
    """
    return jax.lax.platform_dependent(x, cpu=_behind_a_branch, default=lambda x: x)


@materialize.defjvp
def _computed_once_jvp(primals, tangents):
    return materialize(*primals), *tangents


def grouped_convolution(
    inputs: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, **options: Any
) -> jax.Array:
    """`jax.lax.conv_general_dilated` of NHWC inputs, not dilated; on CPU with another gradient of the kernel.

    XLA on CPU takes a hundred times as long for that of a convolution in groups as for the convolution itself; here
    it is one product for each group and place in the kernel.
    """
    convolve = partial(jax.lax.conv_general_dilated, window_strides=strides, padding=padding, **options)
    by_place = partial(_convolution_by_place, strides=strides, padding=padding)

    @jax.custom_jvp
    def convolution(inputs, kernel):
        return convolve(inputs, kernel)

    @convolution.defjvp
    def _convolution_jvp(primals, tangents):
        (inputs, kernel), (inputs_dot, kernel_dot) = primals, tangents
        from_kernel = jax.lax.platform_dependent(inputs, kernel_dot, cpu=by_place, default=convolve)
        return convolution(inputs, kernel), convolve(inputs_dot, kernel) + from_kernel

    return convolution(inputs, kernel)


def _convolution_by_place(inputs, kernel, *, strides, padding):
    """A convolution in groups as a sum over the places in the kernel, each a product for each group."""
    height, width, in_group, features = kernel.shape
    inputs = jnp.pad(inputs, ((0, 0), *padding, (0, 0)))
    batch, rows, columns, channels = inputs.shape
    inputs = inputs.reshape(batch, rows, columns, channels // in_group, in_group)
    kernel = kernel.reshape(height, width, in_group, channels // in_group, -1)

    def product(row: int, column: int) -> jax.Array:
        seen = inputs[:, row : rows - height + row + 1 : strides[0], column : columns - width + column + 1 : strides[1]]
        return jnp.einsum("bhwgi,igo->bhwgo", seen, kernel[row, column])

    total: Any = sum(product(row, column) for row in range(height) for column in range(width))
    return total.reshape(*total.shape[:3], features)


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
