"""Platform-specific code: compiler options, attention kernels and workarounds for slow XLA programs."""

import ctypes
import sys
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

# Of XLA's YNN fusions, only reductions: its convolutions are slower than Eigen's, which they would replace.
_CPU_OPTIONS: dict[str, str | int] = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
# Compiling the random initialization takes seconds, running it milliseconds.
_CPU_ONCE_OPTIONS: dict[str, str | int] = {"xla_backend_optimization_level": 0}

# Parameters of glibc's mallopt: M_TOP_PAD, and M_MMAP_THRESHOLD at its maximum. Setting it turns off glibc's own
# adjustment.
_MALLOC = {-2: 2**27, -3: 2**25}


def keep_freed_host_memory() -> None:
    """Make glibc keep freed memory for reuse; by default it returns it and requests it again in every step."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # musl has none
        for parameter, value in _MALLOC.items():
            libc.mallopt(parameter, value)


def compiler_options(platform: str, *, runs_once: bool = False) -> dict[str, str | int] | None:
    """Return the XLA options for `jax.jit` on a platform ("cpu", "gpu", "tpu"), or None for the defaults.

    Args:
      platform: the platform to compile for.
      runs_once: whether the program runs only once, so that a fast compilation matters more than a fast program.
    """
    options = _CPU_ONCE_OPTIONS if runs_once else _CPU_OPTIONS
    return options if platform == "cpu" and all(map(_is_known_to_xla, options.items())) else None


def has_fast_device_loops(platform: str) -> bool:
    """Return whether to compile multiple training steps as one device-side loop.

    On CPU, XLA compiles convolution gradients inside a loop to code that is many times slower.
    """
    return platform != "cpu"


def attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Compute scaled dot-product attention, with cuDNN if the default platform has it.

    A program with a symbolic batch size is exported and may run on another platform, so it never uses cuDNN.

    Args:
      query: `[B, T, heads, D]`.
      key: `[B, T, heads, D]`.
      value: `[B, T, heads, D]`.

    Returns:
      `[B, T, heads, D]`, in the dtype of the inputs.
    """
    if is_symbolic_dim(query.shape[0]) or not _has_cudnn_attention(query.dtype):
        return jax.nn.dot_product_attention(query, key, value, implementation="xla")
    tokens = query.shape[1]
    if tokens % 2 == 0:
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    # cuDNN's gradient needs an even number of tokens: pad by one, which the sequence lengths exclude
    padded = [jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (query, key, value)]
    lengths = jnp.where(query[:, 0, 0, 0] > 0, tokens, tokens)  # depends on `query`, so that `vmap` maps it too
    attended = jax.nn.dot_product_attention(
        *padded, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation="cudnn"
    )
    return attended[:, :tokens]


def _has_cudnn_attention(dtype: jnp.dtype) -> bool:
    """Return whether cuDNN's flash attention is available: on NVIDIA GPUs, in bfloat16."""
    if jax.default_backend() != "gpu" or dtype != jnp.bfloat16:
        return False
    return "cuda" in jax.devices()[0].client.platform_version.lower()


def histogram(values: jax.Array) -> jax.Array:
    """Count each level of uint8 `[N]`: int32 `[256]`.

    A scatter-add is fastest on CPU and slowest on accelerators, which compare with all levels instead.
    """

    def by_scatter(values: jax.Array) -> jax.Array:
        return jnp.zeros(256, jnp.int32).at[values].add(1)

    def by_comparison(values: jax.Array) -> jax.Array:
        return jnp.sum(values == jnp.arange(256, dtype=jnp.uint8)[:, None], axis=1, dtype=jnp.int32)

    return jax.lax.platform_dependent(values, cpu=by_scatter, default=by_comparison)


@jax.custom_jvp
def materialize(x: jax.Array) -> jax.Array:
    """Return `x`; on CPU, make XLA compute it once even if it has several consumers.

    XLA on CPU fuses cheap operations, such as BatchNorm and ReLU, into every consumer. If one of them is the transpose
    before a convolution's gradient, complete ResNet blocks are recomputed, in an order with poor cache locality.
    """
    return jax.lax.platform_dependent(x, cpu=_behind_a_branch, default=lambda x: x)


@materialize.defjvp
def _materialize_jvp(primals, tangents):
    return materialize(*primals), *tangents


def _behind_a_branch(x):
    # No fusion crosses a branch. An optimization barrier around `x` does not help: XLA drops it before it fuses.
    taken = jax.lax.optimization_barrier(jnp.bool_(True))
    return jax.lax.cond(taken, lambda x: x, jnp.negative, x)


def grouped_convolution(
    inputs: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, **options: Any
) -> jax.Array:
    """Compute `jax.lax.conv_general_dilated` of NHWC inputs, without dilation; on CPU with a faster kernel gradient.

    For grouped convolutions, XLA on CPU takes a hundred times as long for the kernel gradient as for the convolution.
    Here the gradient is one matrix product per group and kernel position.

    Args:
      inputs: `[B, H, W, C]`.
      kernel: `[height, width, C / groups, features]`.
      strides: one per spatial axis.
      padding: (low, high) per spatial axis.
      **options: other arguments of `conv_general_dilated`, such as `dimension_numbers` and `feature_group_count`.

    Returns:
      `[B, H', W', features]`.
    """
    convolve = partial(jax.lax.conv_general_dilated, window_strides=strides, padding=padding, **options)
    by_position = partial(_convolution_by_position, strides=strides, padding=padding)

    @jax.custom_jvp
    def convolution(inputs, kernel):
        return convolve(inputs, kernel)

    @convolution.defjvp
    def _convolution_jvp(primals, tangents):
        (inputs, kernel), (inputs_dot, kernel_dot) = primals, tangents
        from_kernel = jax.lax.platform_dependent(inputs, kernel_dot, cpu=by_position, default=convolve)
        return convolution(inputs, kernel), convolve(inputs_dot, kernel) + from_kernel

    return convolution(inputs, kernel)


def _convolution_by_position(inputs, kernel, *, strides, padding):
    """Compute a grouped convolution as a sum over kernel positions, with one product per group each."""
    height, width, in_group, features = kernel.shape
    inputs = jnp.pad(inputs, ((0, 0), *padding, (0, 0)))
    batch, rows, columns, channels = inputs.shape
    inputs = inputs.reshape(batch, rows, columns, channels // in_group, in_group)
    kernel = kernel.reshape(height, width, in_group, channels // in_group, -1)

    def product(row: int, column: int) -> jax.Array:
        window = inputs[
            :, row : rows - height + row + 1 : strides[0], column : columns - width + column + 1 : strides[1]
        ]
        return jnp.einsum("bhwgi,igo->bhwgo", window, kernel[row, column])

    total: Any = sum(product(row, column) for row in range(height) for column in range(width))
    return total.reshape(*total.shape[:3], features)


@cache
def _is_known_to_xla(option: tuple[str, str | int]) -> bool:
    """Return whether the installed XLA accepts an option and its value; an unknown one is an error at compilation."""
    try:
        jax.jit(lambda: 0, compiler_options=dict([option])).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
