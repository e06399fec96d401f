"""Rewriting of a traced function to plain operations, which converters to other formats know."""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

_WITH_OWN_SCOPE = ("cond", "scan", "while")  # control flow, which is kept; other calls are inlined


def plain(function: Callable[..., Any], *shapes: jax.ShapeDtypeStruct) -> Callable[..., list[jax.Array]]:
    """Return a function that computes the same by plain operations only.

    Calls are inlined, of the variants for platforms the default one is taken, and what no output needs is left out.
    Padding is written as concatenation, because converters know the shape of a padded array only if its batch is no
    symbol.

    Args:
      function: function of arrays; returns a tree of arrays.
      *shapes: shapes and dtypes of its arguments, which may be symbolic.

    Returns:
      A function of arrays of these shapes; returns the leaves of the tree.
    """
    closed = jax.make_jaxpr(function)(*shapes)

    def inlined(*args: Any) -> list[Any]:
        return _evaluate(closed.jaxpr, closed.consts, args)

    flat = jax.make_jaxpr(inlined)(*shapes)

    def run(*args: Any) -> list[Any]:
        return _evaluate(flat.jaxpr, flat.consts, args)

    return run


def _evaluate(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    values: dict[Var, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in _needed(jaxpr):
        values |= zip(equation.outvars, _apply(equation, [read(atom) for atom in equation.invars]), strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _needed(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """Return the equations, in order, that the outputs depend on."""
    needed, kept = {atom for atom in jaxpr.outvars if isinstance(atom, Var)}, []
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            kept.append(equation)
            needed.update(atom for atom in equation.invars if isinstance(atom, Var))
    return reversed(kept)


def _apply(equation: JaxprEqn, values: list[Any]) -> list[Any]:
    name, params = equation.primitive.name, equation.params
    if name == "platform_index":
        return [params["platforms"].index(None)]  # the default
    if name == "cond" and isinstance(values[0], int):
        branch = params["branches"][values[0]]
        return _evaluate(branch.jaxpr, branch.consts, values[1:])
    if name == "pad":
        return [_padded(values[0], values[1], params["padding_config"])]
    if name == "unstack":
        parts = range(values[0].shape[params["axis"]])
        return [jax.lax.index_in_dim(values[0], part, params["axis"], keepdims=False) for part in parts]
    if name == "reduce_window_max":
        return [_pooled(values[0], **params)]
    bodies = [body for body in params.values() if hasattr(body, "eqns")]  # of a jaxpr, closed or not
    if bodies and name not in _WITH_OWN_SCOPE:
        return _evaluate(getattr(bodies[0], "jaxpr", bodies[0]), getattr(bodies[0], "consts", ()), values)
    outputs = equation.primitive.bind(*values, **params)
    return outputs if equation.primitive.multiple_results else [outputs]


def _padded(x: Any, value: Any, padding: Sequence[tuple[int, int, int]]) -> Any:
    """Compute `jax.lax.pad` by concatenation, if nothing is cropped or placed between."""
    if any(low < 0 or high < 0 or interior for low, high, interior in padding):
        return jax.lax.pad(x, value, padding)
    for axis, (low, high, _) in enumerate(padding):
        fills = [jnp.full((*x.shape[:axis], size, *x.shape[axis + 1 :]), value, x.dtype) for size in (low, high)]
        if low or high:
            x = jax.lax.concatenate([fills[0], x, fills[1]], axis)
    return x


def _pooled(
    x: Any,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **dilations: Any,
) -> Any:
    """Compute the maximum of each window as the maximum of shifted arrays, because a converter pools all axes."""
    if any(value != 1 for dilation in dilations.values() for value in dilation):
        raise NotImplementedError("a max-pool with dilation")
    x = _padded(x, -jnp.inf, [(low, high, 0) for low, high in padding])
    steps = [range(size) for size in window_dimensions]

    def shifted(start: tuple[int, ...]) -> Any:
        ends = (
            length - size + first + 1 for length, size, first in zip(x.shape, window_dimensions, start, strict=True)
        )
        return jax.lax.slice(x, start, tuple(ends), window_strides)

    return reduce(jnp.maximum, map(shifted, product(*steps)))
