"""Make functions independent of the global settings of JAX.

`jax_enable_x64` makes random draws and intermediate results 64 bits wide. `jax_numpy_rank_promotion="raise"` and
`jax_numpy_dtype_promotion="strict"` are for the caller's own formulas, and would reject correct ones here.
"""

# JAX leaves some parameters unannotated.
# pyright: reportUnknownMemberType=false
from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from functools import wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Function = TypeVar("Function", bound=Callable[..., Any])

_NARROW = {jnp.dtype(wide): narrow for wide, narrow in (("f8", "f4"), ("i8", "i4"), ("u8", "u4"))}


def any_promotion(function: Function) -> Function:
    """Make a function broadcast and promote dtypes by the default rules of NumPy, whatever the settings of JAX."""
    return _default_promotion()(function)


def in_32_bits(function: Function) -> Function:
    """Make a function compute and draw with 32 bits, also under `jax_enable_x64`, and promote as in `any_promotion`.

    JAX arrays of 64 bits among its arguments are converted first; integers out of range become the closest in range.
    """

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with jax.enable_x64(True):
            args, kwargs = jax.tree.map(_narrow, (args, kwargs))
        with _default_promotion(), jax.enable_x64(False):
            return function(*args, **kwargs)

    return wrapped  # pyright: ignore[reportReturnType]


@contextlib.contextmanager
def _default_promotion() -> Generator[None]:
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def _narrow(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.dtype not in _NARROW:
        return leaf
    narrow = jnp.dtype(_NARROW[leaf.dtype])
    if jnp.issubdtype(narrow, jnp.integer):
        leaf = jnp.clip(leaf, jnp.iinfo(narrow).min, jnp.iinfo(narrow).max)  # a cast would wrap around
    return leaf.astype(narrow)
