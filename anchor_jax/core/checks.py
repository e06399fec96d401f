"""What public functions ask of their arguments, told before anything is computed.

Shapes and dtypes are known always, under `jit` too. Values are looked at where that is free, in numbers of Python and
arrays of NumPy: those of a JAX array would have to be fetched from its device, and under `jit` there are none.

What is of the wrong type or dtype is a `UserTypeError`, everything else a `UserError`.
"""

import os
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.core.errors import UserError, UserTypeError, unknown

_TOLERANCE = 1e-3  # a probability rounded to half precision may pass 1 by less than this
_REAL = (jnp.floating, jnp.integer, jnp.bool_)
_KINDS = {"floating": (jnp.floating,), "bool": (jnp.bool_,), "uint8": (jnp.uint8,), "real": _REAL}


def array(name: str, value: Any, kind: str, shape: str, mend: str = "") -> None:
    """Refuses what is no array of a kind and a shape, and what is empty.

    Args:
      name: of the argument.
      value: the argument.
      kind: "floating", "bool", "uint8", or "real" for all real numbers.
      shape: an axis for each letter, any number of them for the dots: such as "[B, ..., C]".
      mend: what to do about another dtype, if there is more to say.
    """
    if isinstance(value, bool | int | float | complex):
        value = np.asarray(value)
    if not _is_array(value):
        raise UserTypeError(f"{name} must be an array of JAX or NumPy, {shape}; got {described(value)}")
    if not _is(value.dtype, _KINDS[kind]):
        raise UserTypeError(f"{name} must be {kind}, got {value.dtype}{mend}")
    _check_plain(name, value)
    axes = shape.strip("[]").split(", ")
    least = len(axes) - axes.count("...")
    if value.ndim < least or (value.ndim > least and "..." not in axes):
        raise UserError(f"{name} must be {shape}, got shape {value.shape}")
    if 0 in value.shape:
        raise UserError(f"{name} must not be empty, {shape}; got shape {value.shape}")


def stored_images(name: str, value: Any, image_shape: tuple[int, ...]) -> None:
    """Refuses what is no batch of raw images, uint8 `[B, H, W, C]`, of the shape that a network was trained on."""
    array(name, value, "uint8", "[B, H, W, C]", mend=": give them as they are stored, not normalised")
    if value.shape[1:] != image_shape:
        raise UserError(
            f"{name} must be [B, {', '.join(map(str, image_shape))}], as the run was trained on; "
            f"got {list(value.shape)}"
        )


def numbers(name: str, value: Any) -> jax.Array | np.ndarray:
    """An array of real numbers: what is none of JAX, such as a list, as one of NumPy, still on the host."""
    _check_plain(name, value)
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError as error:  # lists of unequal length
        raise UserTypeError(f"{name} must be an array of numbers, got {described(value)}") from error
    if not _is(array.dtype, _REAL):
        raise UserTypeError(f"{name} must be an array of real numbers, got {array.dtype}")
    return array


def within(name: str, values: Any, low: float, high: float) -> None:
    """Refuses NaN and values outside [low, high] in a concrete array, which is not empty."""
    smallest, largest = float(values.min()), float(values.max())
    if np.isnan(smallest):
        raise UserError(f"{name} must not hold NaN, got {np.isnan(values).sum()} of it in {values.size} values")
    if smallest < low - _TOLERANCE or largest > high + _TOLERANCE:
        raise UserError(f"{name} must lie in [{low}, {high}], got values from {smallest:g} to {largest:g}")


def number(name: str, value: Any, low: float = 0, high: float = 1) -> None:
    """Refuses what is no real number, of Python or an array `[]`, in [low, high]; one of JAX may have any value."""
    given = np.asarray(value) if isinstance(value, int | float) else value
    is_one = isinstance(given, jax.Array | np.ndarray | np.generic) and not given.shape
    if not is_one or not _is(given.dtype, (jnp.floating, jnp.integer)):
        raise UserTypeError(f"{name} must be a number in [{low}, {high}], got {described(value)}")
    if not isinstance(value, jax.Array) and not low <= value <= high:
        raise UserError(f"{name} must lie in [{low}, {high}], got {value}")


def integer(name: str, value: Any) -> int:
    """A whole number of Python or NumPy, as an `int`; under `jit` it is static."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise UserTypeError(f"{name} must be an integer, static under jit; got {described(value)}")
    return int(value)


def count(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """An `integer` in a range."""
    value = integer(name, value)
    if most is not None and not least <= value <= most:
        raise UserError(f"{name} must lie in {least}..{most}, got {value}")
    if value < least:
        raise UserError(f"{name} must be at least {least}, got {value}")
    return value


def key(name: str, value: Any) -> None:
    """Refuses what is no key of `jax.random`, typed or raw, and more than one."""
    if (shape := _shape_of_keys(value)) is None:
        raise UserTypeError(f"{name} must be a key, such as jax.random.key(0); got {described(value)}")
    if shape:
        raise UserError(f"{name} must be one key, got keys of shape {shape}: take one of them, or use jax.vmap")


def keys(name: str, value: Any, num: int) -> None:
    """Refuses what is no array of that many keys of `jax.random`, typed or raw."""
    if (shape := _shape_of_keys(value)) is None:
        raise UserTypeError(f"{name} must be keys, such as jax.random.split(key, {num}); got {described(value)}")
    if shape != (num,):
        raise UserError(f"{name} must be {num} keys, one for each image; got shape {shape}")


def function(name: str, value: Any) -> None:
    """Refuses what cannot be called, and modules: some only have a method to call, others hold their parameters."""
    if hasattr(value, "init") and hasattr(value, "apply"):
        raise UserTypeError(
            f"{name} must be a function, got a {type(value).__name__}: give its method apply, or a function of "
            "parameters and inputs that calls it"
        )
    if not callable(value):
        raise UserTypeError(f"{name} must be a function, got {described(value)}")
    if not isinstance(value, jax.tree_util.Partial) and any(map(_is_array, jax.tree.leaves(value))):
        raise UserTypeError(
            f"{name} must be a function, got a {type(value).__name__} that holds its own parameters: give "
            "lambda model, inputs: model(inputs), and the model as params"
        )


def instance(name: str, value: Any, kind: type, maker: str) -> None:
    """Refuses what is not of a class; `maker` says what makes one."""
    if not isinstance(value, kind):
        raise UserTypeError(f"{name} must be {kind.__name__}, as {maker} gives it; got {described(value)}")


def several(name: str, value: Any) -> None:
    """Refuses what is no tuple or list, such as a name that stands alone."""
    if not isinstance(value, tuple | list):
        mend = f": give ({value!r},)" if isinstance(value, int | str) else ""
        raise UserTypeError(f"{name} must be a tuple, got {described(value)}{mend}")


def choice(name: str, value: Any, allowed: tuple[str | None, ...]) -> None:
    """Refuses what is none of a few words."""
    if not isinstance(value, str | None) or value not in allowed:
        raise UserError(f"{name} must be {' or '.join(map(repr, allowed))}, got {described(value)}")


def known(kind: str, name: Any, allowed: Collection[str]) -> None:
    """Refuses a name of this kind of thing that is not among those allowed; see `unknown`."""
    if not isinstance(name, str):
        raise UserTypeError(f"{kind} must be a name, one of {', '.join(sorted(allowed))}; got {described(name)}")
    if name not in allowed:
        raise unknown(kind, name, allowed)


def text(name: str, value: Any) -> None:
    """Refuses what is no string."""
    if not isinstance(value, str):
        raise UserTypeError(f"{name} must be a string, got {described(value)}")


def path(name: str, value: Any) -> None:
    """Refuses what names no place, as a string and a path do."""
    if not isinstance(value, str | os.PathLike):
        raise UserTypeError(f"{name} must be a path, got {described(value)}")


def image_shape(name: str, value: Any) -> None:
    """Refuses what is not H, W and C of an image."""
    several(name, value)
    if len(value) != 3 or not all(isinstance(side, int | np.integer) and side > 0 for side in value):
        raise UserError(f"{name} must be H, W and C, whole numbers above 0; got {value}")


def described(value: Any) -> str:
    """An argument in a few words."""
    if isinstance(value, jax.Array | np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return repr(value) if isinstance(value, bool | int | float | str | None) else type(value).__name__


def _is_array(value):
    return isinstance(value, jax.Array | np.ndarray | np.generic) or hasattr(value, "__jax_array__")


def _check_plain(name, array):
    """Refuses arrays of NumPy that JAX does not take."""
    if isinstance(array, np.ma.MaskedArray):
        raise UserTypeError(f"{name} must be an array without a mask of its own, got MaskedArray: use filled()")
    if isinstance(array, np.ndarray) and not array.dtype.isnative:
        raise UserTypeError(
            f"{name} must be in the byte order of this machine, got {array.dtype}: use "
            f"astype({array.dtype.type.__name__})"
        )


def _shape_of_keys(value):
    """The shape of an array of keys, typed or raw; None for anything else."""
    if not isinstance(value, jax.Array | np.ndarray):
        return None
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value.shape
    raw = jax.eval_shape(jax.random.PRNGKey, 0).shape
    return value.shape[:-1] if value.dtype == np.uint32 and value.shape[-1:] == raw else None


def _is(dtype, kinds):
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)
