"""Mean and standard deviation over the members of an ensemble, in bounded memory."""

# JAX leaves some parameters unannotated, such as `device` of `jnp.asarray`
# pyright: reportUnknownMemberType=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array

from anchor_jax.core import checks, explicit
from anchor_jax.core.errors import UserError
from anchor_jax.core.types import Members
from anchor_jax.core.uncertainty import deviation


class _Squares(NamedTuple):
    """A sum of squared deviations, in units whose squares float32 can hold; arrays like an output of one member."""

    unit: Array  # see `_unit`
    total: Array


class _Moments(NamedTuple):
    """Running moments over members; `mean` and `squares` are pytrees like the output of one member."""

    num: Array  # float32 [], number of members
    mean: Any
    squares: Any  # `_Squares` of the deviations from the mean


def mean_and_std(output_of: Callable[[Any], Any], members: Members, chunk_size: int | None) -> tuple[Any, Any]:
    """Return the mean and the unbiased standard deviation of `output_of(member)`.

    Args:
      output_of: function of one member; returns a pytree of floating arrays.
      members: `[K, ...]`, K at least 1, or a tree of such arrays.
      chunk_size: number of members that `vmap` evaluates at once, all by default; a loop runs over the chunks.

    Returns:
      Two pytrees like an output; None as the standard deviation if K is 1.
    """
    members, num = jax.tree.map(explicit.gather_members, members), _number_of(members)
    size = num if chunk_size is None else min(checks.count("chunk_size", chunk_size), num)
    num_first = num % size or size  # a partial chunk comes first, so that all others are full

    def chunk_moments(chunk: Any) -> _Moments:
        return _moments(jax.vmap(output_of)(chunk))

    def add_chunk(index: Any, moments: _Moments) -> _Moments:
        def chunk_of(array: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(array, num_first + index * size, size)

        return _merge(moments, chunk_moments(jax.tree.map(chunk_of, members)))

    def first_of(array: Array) -> Array:
        return array[:num_first]

    # starting from real moments gives the loop its types, under shard_map too, and copies no members
    moments = chunk_moments(jax.tree.map(first_of, members))
    if num > num_first:
        moments = cast(_Moments, jax.lax.fori_loop(0, (num - num_first) // size, add_chunk, moments))
    if num == 1:
        return moments.mean, None

    def std(_: Array, squares: _Squares) -> Array:
        return squares.unit * deviation(squares.total / (num - 1))

    return moments.mean, jax.tree.map(std, moments.mean, moments.squares)


def _number_of(members: Members) -> int:
    """Return K, the length of the first axis of all arrays."""
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(members)}
    if len(lengths) != 1 or () in lengths:
        raise UserError(
            f"members must be an array [K, ...] or a tree of such arrays; got {len(lengths)} lengths: {sorted(lengths)}"
        )
    return checks.count("number of members", *lengths.pop())


def _moments(values: Any) -> _Moments:
    def mean_over_members(value: Array) -> Array:
        return jnp.mean(value, axis=0)

    def sum_of_squares(value: Array, mean: Array) -> _Squares:
        deviations = value - mean[None]
        unit = _unit(jnp.max(jnp.abs(deviations), axis=0))
        return _Squares(unit, jnp.sum((deviations / unit[None]) ** 2, axis=0))

    num = jnp.float32(len(jax.tree.leaves(values)[0]))
    mean = jax.tree.map(mean_over_members, values)
    return _Moments(num, mean, jax.tree.map(sum_of_squares, values, mean))


def _merge(a: _Moments, b: _Moments) -> _Moments:
    """Return the moments of two sets together (Chan, Golub & LeVeque 1983), stable for a mean far from zero."""
    num = a.num + b.num

    def merge_means(p: Array, q: Array) -> Array:
        difference = q - p  # not finite between infinite values, such as logits of excluded classes
        return jnp.where(jnp.isfinite(difference), p + difference * (b.num / num), p + q)

    def merge_squares(p: Array, q: Array, s: _Squares, t: _Squares) -> _Squares:
        unit = jnp.maximum(jnp.maximum(s.unit, t.unit), _unit(jnp.abs(q - p)))
        total = s.total * (s.unit / unit) ** 2 + t.total * (t.unit / unit) ** 2
        return _Squares(unit, total + ((q - p) / unit) ** 2 * (a.num * b.num / num))

    mean = jax.tree.map(merge_means, a.mean, b.mean)
    return _Moments(num, mean, jax.tree.map(merge_squares, a.mean, b.mean, a.squares, b.squares))


def _unit(largest: Array) -> Array:
    """Return what to divide deviations by: 1, or for very large and very small ones a power of two, which is exact."""
    return jnp.where(largest > 2.0**40, 2.0**80, jnp.where(largest < 2.0**-40, 2.0**-80, 1.0)).astype(largest.dtype)
