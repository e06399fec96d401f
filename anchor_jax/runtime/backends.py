"""Platform-specific code: compiler options, attention kernels and workarounds for slow XLA programs."""

import ctypes
import sys
from collections.abc import Callable, Sequence
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


def scan(body: Callable[..., Any], init: Any, xs: Any, length: int) -> Any:
    """Call `jax.lax.scan`; unrolled in programs for CPUs, see `has_fast_device_loops`."""

    def run(init: Any, xs: Any, unroll: int) -> Any:
        return jax.lax.scan(body, init, xs, length, unroll=unroll)

    return jax.lax.platform_dependent(init, xs, cpu=partial(run, unroll=length), default=partial(run, unroll=1))


def attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Compute scaled dot-product attention; in programs for NVIDIA GPUs by cuDNN, if it is installed here.

    A program with a symbolic batch size is exported and may run on another platform, so it never uses cuDNN.

    Args:
      query: `[B, T, heads, D]`.
      key: `[B, T, heads, D]`.
      value: `[B, T, heads, D]`.

    Returns:
      `[B, T, heads, D]`, in the dtype of the inputs.
    """
    by_xla = partial(jax.nn.dot_product_attention, implementation="xla")
    on_nvidia = _attention_by_cudnn if _has_cudnn_attention(query.shape, query.dtype) else by_xla
    return jax.lax.platform_dependent(query, key, value, cuda=on_nvidia, tpu=_attention_by_einsum, default=by_xla)


@jax.custom_jvp
def _attention_by_einsum(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Same as `jax.nn.dot_product_attention` up to rounding, without its `vmap` over heads, which copies all inputs.

    The gradient keeps the weights in the dtype of the inputs, not in float32, and never sums over `[T, T]` what it can
    sum over `[T, D]`, as in FlashAttention (Dao et al. 2022, arXiv 2205.14135, appendix B.2).
    """
    return _weights_and_attended(query, key, value)[1]


@_attention_by_einsum.defjvp
def _attention_by_einsum_jvp(primals, tangents):
    (query, key, value), (query_dot, key_dot, value_dot) = primals, tangents
    weights, attended = _weights_and_attended(query, key, value)
    logits_dot = _logits(query_dot, key) + _logits(query, key_dot)
    unnormalized_dot = weights * logits_dot.astype(_at_least_float32(query))
    sums_dot = jnp.sum(unnormalized_dot, axis=-1)  # by which all weights of a query would grow
    attended_dot = (
        _weighted_sum(unnormalized_dot.astype(value.dtype), value)
        - (jnp.swapaxes(sums_dot, 1, 2)[..., None] * attended).astype(value.dtype)
        + _weighted_sum(weights, value_dot)
    )
    return attended, attended_dot


def _weights_and_attended(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = _logits(query, key, preferred_element_type=_at_least_float32(query))
    weights = jax.nn.softmax(logits).astype(value.dtype)
    return weights, _weighted_sum(weights, value)


def _logits(query: jax.Array, key: jax.Array, preferred_element_type: Any = None) -> jax.Array:
    scale = query.shape[-1] ** -0.5
    return jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=preferred_element_type) * scale


def _weighted_sum(weights: jax.Array, value: jax.Array) -> jax.Array:
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def _at_least_float32(x: jax.Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


def _attention_by_cudnn(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
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


@cache
def _has_cudnn_attention(shape: tuple[Any, ...], dtype: jnp.dtype) -> bool:
    """Return whether a call of cuDNN's attention can be traced here; the machine needs no GPU for that."""
    if dtype != jnp.bfloat16 or is_symbolic_dim(shape[0]):
        return False
    try:
        jax.eval_shape(_attention_by_cudnn, *[jax.ShapeDtypeStruct(shape, dtype)] * 3)
    except (NotImplementedError, RuntimeError, ValueError):  # not these heads, not installed, or too old
        return False
    return True


def histogram(values: jax.Array) -> jax.Array:
    """Count each level of uint8 `[N]`, N below 2^24: int32 `[256]`.

    A scatter-add is fastest on CPU and slowest on accelerators. GPUs compare with all levels instead, TPUs with the 16
    values of either half of a level's bits, whose pairs a matrix product counts.
    """

    def by_scatter(values: jax.Array) -> jax.Array:
        return jnp.zeros(256, jnp.int32).at[values].add(1)

    def by_comparison(values: jax.Array) -> jax.Array:
        return jnp.sum(values == jnp.arange(256, dtype=jnp.uint8)[:, None], axis=1, dtype=jnp.int32)

    def by_product(values: jax.Array) -> jax.Array:
        digits = jnp.arange(16, dtype=jnp.uint8)[:, None]
        high, low = ((digit == digits).astype(jnp.bfloat16) for digit in (values >> 4, values & 15))
        return jnp.einsum("hn,ln->hl", high, low, preferred_element_type=jnp.float32).astype(jnp.int32).ravel()

    return jax.lax.platform_dependent(values, cpu=by_scatter, tpu=by_product, default=by_comparison)


def gelu(x: jax.Array) -> jax.Array:
    """Compute `x Φ(x)`, the exact GELU; in bfloat16 on TPUs by a faster Φ.

    The error of the faster Φ is far below the rounding of bfloat16. TPUs have a unit for tanh but compute the error
    function by divisions and branches on their vector unit, which takes longer than the matrix product before it.
    """
    exact = partial(jax.nn.gelu, approximate=False)
    if x.dtype != jnp.bfloat16:
        return exact(x)
    return jax.lax.platform_dependent(x, tpu=_gelu_by_tanh, default=exact)


# Φ(x) = (1 + tanh(x p(x²))) / 2 with the polynomial p of least maximum error of x Φ(x): 7e-8 in exact arithmetic
# and 6e-7 in float32. Where x² exceeds the limit, p stays what it is there.
_PHI = (
    *(0.7978842854499817, 0.03633414953947067, -3.302682307548821e-05, -5.527332177734934e-05),
    *(3.974056653532898e-06, -1.3378200947045116e-07, 1.8138941459966418e-09),
)
_PHI_LIMIT = 30.0


@jax.custom_jvp
def _gelu_by_tanh(x: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    # where Φ is below the rounding of float32, x must not magnify that rounding
    return (jnp.maximum(wide, -(_PHI_LIMIT**0.5)) * _phi(wide)).astype(x.dtype)


@_gelu_by_tanh.defjvp
def _gelu_by_tanh_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * jnp.square(wide)) * (2 * jnp.pi) ** -0.5
    return _gelu_by_tanh(x), (_phi(wide) + wide * density).astype(x.dtype) * tangent


def _phi(x: jax.Array) -> jax.Array:
    """Return the standard normal distribution function of float32."""
    square = jnp.minimum(x * x, _PHI_LIMIT)
    polynomial = jnp.full_like(x, _PHI[-1])
    for coefficient in _PHI[-2::-1]:
        polynomial = polynomial * square + coefficient
    return 0.5 + 0.5 * jnp.tanh(x * polynomial)


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
