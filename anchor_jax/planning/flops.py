"""Count the floating-point operations of the products in a traced program: matrix products and convolutions."""

import math
from typing import Any

import numpy as np

_ATTENTION = "dot_product_attention"  # cuDNN's


def count_flops(jaxpr: Any, platform: str) -> int:
    """Return the operations of all products; a multiplication and an addition are two.

    Loops count as often as they run, those of unknown length once. Of several branches the most costly counts, and of
    branches by platform that of `platform`. Products with the padding of a convolution do not count.

    Args:
      jaxpr: a `Jaxpr` or `ClosedJaxpr`.
      platform: that the program is lowered for, such as "tpu" or "cuda".
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "cond":
            counts = [count_flops(branch, platform) for branch in equation.params["branches"]]
            chosen = _platform_branch(equation.params.get("branches_platforms"), platform)
            total += max(counts) if chosen is None else counts[chosen]
        elif count := _PRODUCTS.get(name):
            total += count(equation)
        elif name.startswith(_ATTENTION):
            total += _attention_flops(equation)
        else:
            times = equation.params["length"] if name == "scan" else 1
            total += times * sum(count_flops(inner, platform) for inner in _inner(equation.params))
    return total


def _platform_branch(platforms: Any, platform: str) -> int | None:
    """Return the branch for a platform; the last one that names no platforms is the default."""
    if platforms is None:
        return None
    names = {platform, "gpu"} if platform in ("cuda", "rocm") else {platform}
    for index, group in enumerate(platforms):
        if group is None or names & set(group):
            return index
    return None


def _inner(params: dict[str, Any]) -> list[Any]:
    """Return the programs among the parameters of an equation, except how it is differentiated."""
    found = []
    for value in params.values():
        values = value if isinstance(value, (tuple, list)) else (value,)
        found += [one for one in values if hasattr(one, "eqns") or hasattr(getattr(one, "jaxpr", None), "eqns")]
    return found


def _dot_flops(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _convolution_flops(equation: Any) -> int:
    left, right, out = (one.aval.shape for one in (*equation.invars[:2], equation.outvars[0]))
    params, numbers = equation.params, equation.params["dimension_numbers"]
    output, channels, *kernel_axes = (out, right[numbers.rhs_spec[1]], *numbers.rhs_spec[2:])
    positions = 1
    for axis, kernel_axis in enumerate(kernel_axes):
        positions *= valid_positions(
            left[numbers.lhs_spec[2 + axis]],
            right[kernel_axis],
            output[numbers.out_spec[2 + axis]],
            stride=params["window_strides"][axis],
            padding=params["padding"][axis][0],
            lhs_dilation=params["lhs_dilation"][axis],
            rhs_dilation=params["rhs_dilation"][axis],
        )
    examples, features = output[numbers.out_spec[0]], output[numbers.out_spec[1]]
    return 2 * examples * features * channels * positions  # the output's batch is that of one group


def valid_positions(
    length: int, kernel: int, output: int, *, stride: int, padding: int, lhs_dilation: int, rhs_dilation: int
) -> int:
    """Return how many pairs of output and kernel position meet an element of the input along one axis.

    >>> valid_positions(4, 3, 4, stride=1, padding=1, lhs_dilation=1, rhs_dilation=1)
    10
    """
    start = np.arange(output)[:, None] * stride - padding
    index = start + np.arange(kernel)[None] * rhs_dilation
    return int(np.sum((index >= 0) & (index <= (length - 1) * lhs_dilation) & (index % lhs_dilation == 0)))


def _attention_flops(equation: Any) -> int:
    """Return the operations of cuDNN's attention: two products forward, and four for the gradient."""
    query, key = (one.aval.shape for one in equation.invars[:2])  # [B, T, heads, D], [B, S, heads, D]
    return 2 * (4 if "bwd" in equation.primitive.name else 2) * math.prod(query) * key[1]


_PRODUCTS = {"dot_general": _dot_flops, "conv_general_dilated": _convolution_flops}
