"""Select elements of one example by index: a gather on CPU and GPU, arithmetic on TPU.

Under `vmap`, XLA on TPU compiles a gather to a loop over the examples or over the elements, one after the other. Vector
and matrix units select faster: by shifts, by comparing the index with all positions, or by products with one-hot
matrices. All of these return the selected values themselves, so that results are the same bits on every platform.
"""

from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")

_EXACT = jnp.bfloat16  # represents all of uint8; a product with a one-hot matrix adds one of them to zeros
_BLOCK = 2**22  # values that `pixels_at` holds at once per example, which bounds its memory for large images


def window(image: jax.Array, starts: Sequence[jax.Array], shape: Sequence[int]) -> jax.Array:
    """Return the window of an image `[H, W, C]` that begins at a row and a column: `[h, w, C]`.

    Args:
      image: of any dtype.
      starts: row in 0..H - h and column in 0..W - w, int32 `[]`.
      shape: (h, w).
    """

    def by_slice(image, row, column):
        return jax.lax.dynamic_slice(image, (row, column, jnp.int32(0)), (*shape, image.shape[2]))

    def by_shifts(image, row, column):
        return _shift(_shift(image, row, shape[0], axis=0), column, shape[1], axis=1)

    return jax.lax.platform_dependent(image, *starts, tpu=by_shifts, default=by_slice)


def _shift(array: jax.Array, start: jax.Array, size: int, axis: int) -> jax.Array:
    """Return `size` elements along an axis from `start` on: one select per binary digit of the largest start."""
    digits = (array.shape[axis] - size).bit_length()
    missing = size + 2**digits - 1 - array.shape[axis]
    array = jnp.pad(array, [(0, missing if each == axis else 0) for each in range(array.ndim)])
    for step in (2**digit for digit in reversed(range(digits))):
        length = size + step - 1
        near, far = (jax.lax.slice_in_dim(array, at, at + length, axis=axis) for at in (0, step))
        array = jnp.where(start & step > 0, far, near)
    return array


def take(image: jax.Array, index: jax.Array, axis: int) -> jax.Array:
    """Return the rows or columns of an image at positions, as `jnp.take` with mode "clip" does.

    Args:
      image: uint8 `[H, W, C]`.
      index: int32 `[N]`.
      axis: 0 or 1.
    """
    size = image.shape[axis]

    def by_product(image, index):
        hot = _one_hot(jnp.clip(index, 0, size - 1), size)
        taken = jnp.tensordot(hot, image.astype(_EXACT), (1, axis), preferred_element_type=jnp.float32)
        return jnp.moveaxis(_to_uint8(taken), 0, axis)

    return jax.lax.platform_dependent(
        image, index, tpu=by_product, default=lambda image, index: jnp.take(image, index, axis, mode="clip")
    )


def pixels_at(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """Return the pixels of an image at positions, black outside.

    Args:
      image: uint8 `[H, W, C]`.
      row: int32 `[h, w]`.
      column: int32 `[h, w]`.

    Returns:
      uint8 `[h, w, C]`.
    """
    height, width, channels = image.shape

    def by_gather(image, row, column):
        is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        pixels = jnp.take(image.reshape(-1, channels), row * width + column, axis=0, mode="clip")
        return jnp.where(is_inside[..., None], pixels, jnp.uint8(0))

    def by_product(image, row, column):
        def line(positions):
            row, column = positions  # int32 [P]
            rows = jnp.einsum(  # [W, C, P], the pixels in the row of each position
                "pr,rwc->wcp", _one_hot(row, height), image.astype(_EXACT), preferred_element_type=jnp.float32
            )
            is_column = jnp.arange(width)[:, None, None] == column
            return _to_uint8(jnp.sum(jnp.where(is_column, rows, 0.0), axis=0)).T

        if row.size * width * channels <= _BLOCK:
            return line((row.ravel(), column.ravel())).reshape(*row.shape, channels)
        return jax.lax.map(line, (row, column))

    return jax.lax.platform_dependent(image, row, column, tpu=by_product, default=by_gather)


def levels_of(image: jax.Array, tables: jax.Array) -> jax.Array:
    """Map the levels of an image by one table per channel.

    Args:
      image: uint8 `[H, W, C]`.
      tables: uint8 `[C, 256]`.

    Returns:
      uint8 `[H, W, C]`.
    """
    channels = image.shape[-1]

    def by_gather(image, tables):
        positions = image.astype(jnp.int32) + 256 * jnp.arange(channels)
        return jnp.take(tables.ravel(), positions, mode="clip")

    def by_product(image, tables):
        # the table is a matrix of 16 x 16 levels: a product selects its row, a comparison the column
        values, digits = image.reshape(-1, channels).T[:, None], jnp.arange(16, dtype=jnp.uint8)[:, None]  # [C, 1, P]
        is_row, is_column = values >> 4 == digits, values & 15 == digits  # [C, 16, P]
        rows = jnp.einsum(
            "crl,crp->clp",
            tables.reshape(channels, 16, 16).astype(_EXACT),
            is_row.astype(_EXACT),
            preferred_element_type=jnp.float32,
        )
        return _to_uint8(jnp.sum(jnp.where(is_column, rows, 0.0), axis=1)).T.reshape(image.shape)

    return jax.lax.platform_dependent(image, tables, tpu=by_product, default=by_gather)


def entry(table: Tree, index: Sequence[jax.Array]) -> Tree:
    """Return one entry of a table, which is small.

    Args:
      table: arrays `[N1, N2, ..., *shape]` whose first axes have the same sizes.
      index: one position per first axis, int32 `[]`, in range.

    Returns:
      Arrays `[*shape]`.
    """
    sizes = jax.tree.leaves(table)[0].shape[: len(index)]

    def by_gather(table, *index):
        return jax.tree.map(lambda array: array[tuple(index)], table)

    def by_comparison(table, *index):
        hots = [at == jnp.arange(size) for at, size in zip(index, sizes, strict=True)]
        hot = hots[0]
        for each in hots[1:]:
            hot = hot[..., None] & each

        def select(array):
            is_entry = hot.reshape(hot.shape + (1,) * (array.ndim - hot.ndim))
            axes = tuple(range(hot.ndim))
            if array.dtype == bool:
                return jnp.any(is_entry & array, axes)
            return jnp.sum(jnp.where(is_entry, array, jnp.zeros((), array.dtype)), axes, dtype=array.dtype)

        return jax.tree.map(select, table)

    return jax.lax.platform_dependent(jax.tree.map(jnp.asarray, table), *index, tpu=by_comparison, default=by_gather)


def _one_hot(index: jax.Array, size: int) -> jax.Array:
    """Return `[N, size]`, 1 where a position equals the index; all 0 for an index outside of 0..size - 1."""
    return (index[:, None] == jnp.arange(size)).astype(_EXACT)


def _to_uint8(levels: jax.Array) -> jax.Array:
    return levels.astype(jnp.int32).astype(jnp.uint8)  # TPUs convert no floating-point numbers to 8 bits
