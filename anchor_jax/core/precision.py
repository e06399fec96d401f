"""Differences of numbers far from zero: JAX would round both to float32 first, which keeps seven digits."""

# pyright: reportUnknownMemberType=false
from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.core import Tracer

from anchor_jax.core.types import AnyArray


def is_concrete(*values: Any) -> bool:
    """Return whether the values of all arrays can be read here: neither traced nor on devices of other processes."""
    return not any(isinstance(value, Tracer) or not getattr(value, "is_fully_addressable", True) for value in values)


def on_host(values: Any) -> npt.NDArray[np.float64]:
    """Return a concrete array as float64 of NumPy."""
    return np.asarray(jax.device_get(values)).astype(np.float64)


def difference(values: AnyArray, origin: AnyArray) -> jax.Array:
    """Return `values - origin` as float32, subtracted in float64 if they have digits that float32 loses.

    Where they are traced, JAX has float64 only with `jax_enable_x64`.

    Args:
      values: real.
      origin: real, same shape.
    """
    has_more_digits = _has_more_digits(values) or _has_more_digits(origin)
    if is_concrete(values, origin) and has_more_digits:
        return jnp.asarray(on_host(values) - on_host(origin), jnp.float32)
    dtype = jnp.result_type(float) if has_more_digits else jnp.float32
    return (jnp.asarray(values, dtype) - jnp.asarray(origin, dtype)).astype(jnp.float32)


def _has_more_digits(values: AnyArray) -> bool:
    least = 4 if jnp.issubdtype(values.dtype, jnp.integer) else 8
    return values.dtype.itemsize >= least
