"""Train, evaluate, export and predict with the default settings of JAX, whatever the caller has set.

A run computes with 32 bits, sends its data from the host, and is on a mesh of its own. `jax_debug_nans` and
`jax_debug_infs` stay as they are: they look for errors in the numbers.
"""

import contextlib
from collections.abc import Callable, Generator
from functools import wraps
from typing import Any, TypeVar

import jax
import numpy as np

from anchor_jax.core import modes
from anchor_jax.core.layout import known_layout

Array = TypeVar("Array")
Function = TypeVar("Function", bound=Callable[..., Any])


def with_own_settings(function: Function) -> Function:
    """Make a function run with the default settings of JAX, outside of any mesh that the caller has set."""

    @outside_mesh()
    @modes.in_32_bits
    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with jax.transfer_guard("allow"), known_layout():
            return function(*args, **kwargs)

    return wrapped  # pyright: ignore[reportReturnType]


@contextlib.contextmanager
def outside_mesh() -> Generator[None]:
    """Leave the mesh that the caller has set; for code that places its arrays on a mesh of its own.

    It serves as a context and, like every such context, as a decorator.
    """
    with contextlib.ExitStack() as stack:
        if not jax.sharding.get_abstract_mesh().empty:
            with contextlib.suppress(ValueError):  # under `jax.jit`, and always with JAX 0.8
                stack.enter_context(jax.set_mesh(None))  # pyright: ignore[reportArgumentType]
        yield


def gather_from_devices(array: Array) -> Array:
    """Return an array that is on more than one device as a NumPy array, and any other array as it is."""
    is_on_many = isinstance(array, jax.Array) and len(array.sharding.device_set) > 1
    return np.asarray(array) if is_on_many else array  # pyright: ignore[reportReturnType]
