"""Warp an image by an affine map with nearest neighbors."""

from typing import Any

import jax
import jax.numpy as jnp

from anchor_jax.runtime import selection

_BITS = 16  # binary places of a matrix


def warp(image: jax.Array, matrix: Any) -> jax.Array:
    """Warp an image `[H, W, C]`, C is at most 3, by a matrix int32 `[6]`: nearest neighbors, black outside.

    The matrix a, b, c, d, e, f maps the output pixel (x, y) to the input's column `a x + b y + c` and row
    `d x + e y + f`, in 1 / 65536 pixel. Either b or e is at least 1/2 pixel in magnitude, as for every rotation.
    """
    return jax.lax.platform_dependent(image, jnp.asarray(matrix), tpu=_warp_in_two_passes, default=_warp_by_gather)


def _warp_by_gather(image: jax.Array, matrix: jax.Array) -> jax.Array:
    y, x = jnp.mgrid[: image.shape[0], : image.shape[1]]
    column = (matrix[0] * x + matrix[1] * y + matrix[2]) >> _BITS
    row = (matrix[3] * x + matrix[4] * y + matrix[5]) >> _BITS
    return selection.pixels_at(image, row, column)


def _warp_in_two_passes(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """Warp along the rows of the image, then along its columns; each pass selects from one row or column only.

    The first pass fetches what the second one reads, at its place (row, x) of the input: the pixel of the output (x, y)
    that has this row. At most two neighboring y have the same row, since it moves by at least half a row per y; so
    there is one such image for even and one for odd y. If the row moves by less, the image is transposed.
    """
    height, width, channels = image.shape
    side = max(height, width)
    image = jnp.pad(image, ((0, side - height), (0, side - width), (0, 0)))
    packed = jnp.sum(image.astype(jnp.int32) << 8 * jnp.arange(channels), axis=-1, dtype=jnp.int32)
    of_column, of_row = matrix[:3], matrix[3:]
    is_transposed = jnp.abs(of_row[1]) < jnp.abs(of_column[1])
    packed = jnp.where(is_transposed, packed.T, packed)
    of_column, of_row = (
        jnp.where(is_transposed, of_row, of_column),
        jnp.where(is_transposed, of_column, of_row),
    )

    def position(coefficients, x, y):
        return (coefficients[0] * x + coefficients[1] * y + coefficients[2]) >> _BITS

    each = jnp.arange(side)
    row, x = each[:, None], each[None, :]
    # the first y with `row <= position(of_row, x, y)`, or with >= for rows that fall with y, which ~ makes rise
    falls = of_row[1] < 0
    at_zero, edge = of_row[0] * x + of_row[2], row << _BITS
    at_zero, edge = jnp.where(falls, ~at_zero, at_zero), jnp.where(falls, ~row << _BITS, edge)
    first = -((at_zero - edge) // jnp.abs(of_row[1]))
    output = []
    for parity in range(2):
        y = first + ((first ^ parity) & 1)
        of_rows = _select(position(of_column, x, y)[:, None, :], packed[:, :, None], axis=1)  # [row, column, x]
        y = each[parity::2, None]
        output.append(_select(position(of_row, x, y)[:, None, :], of_rows[None], axis=1))  # [y, row, x]
    odd = jnp.pad(output[1], ((0, len(output[0]) - len(output[1])), (0, 0)))
    packed = jnp.stack([output[0], odd], axis=1).reshape(-1, side)[:height, :width]
    return jnp.stack([packed >> (8 * channel) for channel in range(channels)], axis=-1).astype(jnp.uint8)


def _select(index: jax.Array, values: jax.Array, axis: int) -> jax.Array:
    """Return the values at positions along an axis, where the index has length 1; 0 outside of it."""
    size = values.shape[axis]
    positions = jnp.arange(size).reshape([-1 if each == axis else 1 for each in range(values.ndim)])
    return jnp.sum(jnp.where(index == positions, values, 0), axis=axis, dtype=values.dtype)
