"""Checks of the arguments of public functions, made before anything is computed.

Shapes and dtypes are always checked, also under `jit`. Values are checked where that is free: Python numbers and NumPy
arrays. Values of a JAX array would have to be copied from its device, and tracers have none.

A wrong type or dtype raises `UserTypeError`, anything else `UserError`.
"""

# JAX leaves some parameters unannotated, such as `device` of `jnp.asarray`
# pyright: reportUnknownMemberType=false
from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Any, TypeGuard, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from anchor_jax.core.errors import UserError, UserTypeError, unknown
from anchor_jax.core.layout import MAX_CHANNELS, TO_CHANNELS_LAST, check_layout
from anchor_jax.core.types import AnyArray

AS_STORED = "pass images as stored, not normalized; of values in [0, 1], (255 * images).round().astype('uint8')"
TOLERANCE = 1e-3  # a probability rounded to half precision may exceed 1 by less than this
_REAL = (jnp.floating, jnp.integer, jnp.bool_)
_KINDS = {"floating": (jnp.floating,), "bool": (jnp.bool_,), "uint8": (jnp.uint8,), "real": _REAL}


def array(name: str, value: Any, kind: str, shape: str, hint: str = "") -> None:
    """Raise unless a value is a non-empty array of this dtype and shape.

    Args:
      name: name of the argument.
      value: the argument.
      kind: "floating", "bool", "uint8", or "real" for bool, integer and floating dtypes.
      shape: one letter per axis, and dots for any number of axes, such as "[B, ..., C]".
      hint: how to fix a wrong dtype.
    """
    if isinstance(value, bool | int | float | complex):
        value = np.asarray(value)
    if not _is_array(value):
        raise UserTypeError(f"{name} must be a JAX or NumPy array {shape}; got {described(value)}")
    if not _is_any(value.dtype, _KINDS[kind]):
        raise UserTypeError(f"{name} must have a {kind} dtype; got {value.dtype}" + (f"; {hint}" if hint else ""))
    _check_plain(name, value)
    axes = shape.strip("[]").split(", ")
    min_rank = len(axes) - axes.count("...")
    if value.ndim < min_rank or (value.ndim > min_rank and "..." not in axes):
        raise UserError(f"{name} must have shape {shape}; got {value.shape}")
    if 0 in value.shape:
        raise UserError(f"{name} must not be empty; got shape {value.shape}")


def model_inputs(name: str, value: Any, shape: str) -> None:
    """Raise unless a value is a floating array of this shape: integer images would wrap around in `x - r`."""
    if name == "references" and (hint := _as_references(value)):
        raise UserTypeError(f"references must be an array {shape}, not their number or rows; got {hint}")
    if name == "bank" and _is_integer(value):
        raise UserTypeError(f"bank must be an array {shape}, the references themselves; got {described(value)}")
    array(name, value, "floating", shape, hint="normalize images before anchoring")
    if shape.endswith("C]"):
        check_layout(name, value.shape)


def _as_references(value: Any) -> str:
    """Return what was given in place of references and how to fix it; "" if these may be references."""
    if _is_integer(value):
        return f"{value}; pass bank[:{value}]" if _is_concrete_scalar(value) else described(value)
    if _is_array(value) and value.ndim == 1 and jnp.issubdtype(value.dtype, jnp.integer):
        return f"{described(value)}; if these are rows of a bank, pass bank[references]"
    return ""


def images(name: str, value: Any, kind: str, channels: int | None = 0) -> None:
    """Raise unless a value is a batch of images `[B, H, W, C]` of this dtype, with their channels last.

    Args:
      name: name of the argument.
      value: the argument.
      kind: see `array`.
      channels: see `channels_last`; None allows any number.
    """
    array(name, value, kind, "[...]", AS_STORED if kind == "uint8" else "")
    if getattr(value, "ndim", 0) == 3:
        raise UserError(f"{name} must have shape [B, H, W, C]; got {value.shape}; {_missing_axis(value.shape)}")
    array(name, value, kind, "[B, H, W, C]")
    if channels is not None:
        channels_last(name, value.shape, count("channels", channels, least=0))


def channels_last(name: str, shape: Sequence[int], channels: int = 0, key: str = "channels") -> None:
    """Raise if images seem to have their channels first: if they have more than `MAX_CHANNELS`.

    Args:
      name: what the message calls the images.
      shape: of a batch, `[N, H, W, C]`.
      channels: a number of channels that is allowed nevertheless, such as 13 of multispectral images; 0: none.
      key: name of the argument or config key that sets this number.
    """
    last, array = shape[-1], name if name.isidentifier() else "images"
    if last > MAX_CHANNELS and last != channels:
        expected = f" with {channels} channels" if channels else f" with up to {MAX_CHANNELS} channels"
        raise UserError(
            f"{name} must be [N, H, W, C]{expected}; got {list(shape)}; if these are [N, C, H, W], pass "
            f"{array}{TO_CHANNELS_LAST}; if they do have {last} channels, set {key}={last}"
        )


def stored_images(name: str, value: Any, image_shape: tuple[int, ...]) -> None:
    """Raise unless a value is a batch of raw images, uint8 `[B, H, W, C]`, of the shape a network was trained on."""
    array(name, value, "uint8", "[...]", AS_STORED)
    if getattr(value, "ndim", 4) != 4:
        hint = _as_batch(value.shape, image_shape)
        raise UserError(f"{name} must have shape [B, H, W, C]; got {value.shape}" + (f"; {hint}" if hint else ""))
    array(name, value, "uint8", "[B, H, W, C]")
    if value.shape[1:] != image_shape:
        hint = _as_trained(value.shape, image_shape)
        raise UserError(
            f"{name} must have shape [B, {', '.join(map(str, image_shape))}], as in training; got {list(value.shape)}"
            + (f"; {hint}" if hint else "")
        )


def _missing_axis(shape: tuple[int, ...]) -> str:
    """Return how to make a batch of images from an array of three axes."""
    without_channels = "for images without an axis of channels pass images[..., None]"
    if shape[0] <= MAX_CHANNELS < min(shape[1:]):
        return f"for one image [C, H, W] pass images.transpose(1, 2, 0)[None]; {without_channels}"
    return "for one image pass images[None]" if shape[-1] <= MAX_CHANNELS else without_channels


def _as_batch(shape: tuple[int, ...], image_shape: tuple[int, ...]) -> str:
    """Return how to make a batch of images like those of training from an array that does not have four axes; or ""."""
    *sides, channels = image_shape
    if shape == image_shape:
        return "for one image pass images[None]"
    if channels == 1 and shape[-2:] == tuple(sides):
        return "pass images[..., None]" if len(shape) == 3 else "for one image pass images[None, ..., None]"
    return "for one image [C, H, W] pass images.transpose(1, 2, 0)[None]" if shape == (channels, *sides) else ""


def _as_trained(shape: tuple[int, ...], image_shape: tuple[int, ...]) -> str:
    """Return how to make images like those of training from a batch of another shape; "" if that is unknown."""
    *sides, channels = image_shape
    if shape[1:] == (channels, *sides):
        return f"these are [B, C, H, W]: pass images{TO_CHANNELS_LAST}"
    if channels == 3 and shape[1:] == (*sides, 1):
        return "these are grayscale: pass images.repeat(3, axis=-1)"
    return ""


def numbers(name: str, value: Any) -> AnyArray:
    """Return an array of real numbers; a list becomes a NumPy array, so that its values can be checked on the host."""
    _check_plain(name, value)
    try:
        array: AnyArray = value if isinstance(value, jax.Array) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # lists of unequal length, or of values that are traced
        raise UserTypeError(f"{name} must be an array of numbers; got {described(value)}") from error
    if not _is_any(array.dtype, _REAL):
        raise UserTypeError(f"{name} must be an array of real numbers; got {array.dtype}")
    return array


def within(name: str, values: AnyArray, low: float, high: float) -> None:
    """Raise if a non-empty, concrete array contains NaN or values outside [low, high]."""
    smallest, largest = float(values.min()), float(values.max())
    if np.isnan(smallest):
        raise UserError(f"{name} must not contain NaN; got {np.isnan(values).sum()} NaN in {values.size} values")
    tolerance = 0.0 if np.isinf(high) else TOLERANCE  # only fractions are rounded beyond their bounds
    if smallest < low - tolerance or largest > high + tolerance:
        raise UserError(f"{name} must be in [{low}, {high}]; got values from {smallest:g} to {largest:g}")


def number(name: str, value: Any, low: float = 0, high: float = 1) -> None:
    """Raise unless a value is a real number in [low, high], in Python or an array `[]`; JAX arrays may be outside."""
    scalar = np.asarray(value) if isinstance(value, int | float) else value
    is_scalar = isinstance(scalar, jax.Array | np.ndarray | np.generic) and not scalar.shape
    if not is_scalar or not _is_any(scalar.dtype, (jnp.floating, jnp.integer)):
        raise UserTypeError(f"{name} must be a number in [{low}, {high}]; got {described(value)}")
    if not isinstance(value, jax.Array) and not low <= value <= high:
        raise UserError(f"{name} must be in [{low}, {high}]; got {value}")


def static_number(name: str, value: Any, low: float = 0, high: float = 1) -> float:
    """Return a real number in [low, high] as a `float`; it must be static under `jit`."""
    number(name, value, low, high)
    if isinstance(value, Tracer):
        raise UserTypeError(f"{name} must be a number, static under jit; got {described(value)}")
    plain = float(value)
    number(name, plain, low, high)  # of JAX, whose values `number` does not check
    return plain


def flag(name: str, value: Any) -> bool:
    """Return True or False, of Python or NumPy or as 1 and 0, as a `bool`; it must be static under `jit`."""
    if _is_concrete_scalar(value) and value in (0, 1):
        return bool(value)
    raise UserTypeError(f"{name} must be True or False; got {described(value)}")


def integer(name: str, value: Any) -> int:
    """Return an integer of Python, NumPy or JAX as an `int`; it must be static under `jit`."""
    if not _is_integer(value):
        raise UserTypeError(f"{name} must be an integer, static under jit; got {described(value)}")
    return int(value)


def count(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Return an integer that is at least `least` and at most `most`, as `integer` does."""
    value = integer(name, value)
    if most is not None and not least <= value <= most:
        raise UserError(f"{name} must be in {least}..{most}; got {value}")
    if value < least:
        raise UserError(f"{name} must be at least {least}; got {value}")
    return value


def counts(name: str, values: Any) -> tuple[int, ...]:
    """Return a sequence of integers, each at least 1, as a tuple of `int`; see `several`."""
    return tuple(count(name, value) for value in several(name, values))


def key(name: str, value: Any) -> None:
    """Raise unless a value is a single key of `jax.random`, new-style or raw."""
    if (shape := _shape_of_keys(value)) is None:
        raise UserTypeError(f"{name} must be a PRNG key, such as jax.random.key(0); got {described(value)}")
    if shape:
        raise UserError(f"{name} must be a single key; got keys of shape {shape}; select one or use jax.vmap")


def keys(name: str, value: Any, num: int) -> None:
    """Raise unless a value is an array of `num` keys of `jax.random`, new-style or raw."""
    if (shape := _shape_of_keys(value)) is None:
        raise UserTypeError(f"{name} must be PRNG keys, such as jax.random.split(key, {num}); got {described(value)}")
    if shape != (num,):
        raise UserError(f"{name} must be {num} keys, one per image; got shape {shape}")


def function(name: str, value: Any) -> None:
    """Raise unless a value is a function without parameters of its own; the hints cover models of each framework."""
    if hasattr(value, "init") and hasattr(value, "apply"):
        raise UserTypeError(
            f"{name} must be a function; got {type(value).__name__}; pass its apply method, or a function of "
            "parameters and inputs that calls it"
        )
    if not callable(value):
        raise UserTypeError(f"{name} must be a function; got {described(value)}")
    if not isinstance(value, jax.tree_util.Partial) and any(map(_is_array, jax.tree.leaves(value))):
        raise UserTypeError(
            f"{name} must be a function; got {type(value).__name__}, which holds its own parameters; pass "
            "lambda model, inputs: model(inputs), and the model as params"
        )


def instance(name: str, value: Any, kind: type, maker: str) -> None:
    """Raise unless a value is an instance of a class; `maker` names what returns one."""
    if not isinstance(value, kind):
        raise UserTypeError(f"{name} must have type {kind.__name__}, as returned by {maker}; got {described(value)}")


def several(name: str, value: Any) -> tuple[Any, ...]:
    """Return an ordered collection as a tuple; raise for a single element of one. Elements of arrays become Python's.

    Tuples, lists, arrays of one axis, generators and other iterables are accepted.
    """
    if not is_several(value):
        hint = f"; pass ({value!r},)" if isinstance(value, int | str) else ""
        raise UserTypeError(f"{name} must be a tuple; got {described(value)}{hint}")
    if _is_array(value):
        return tuple(cast(list[Any], np.asarray(jax.device_get(value)).tolist()))
    return tuple(cast(Any, item.item()) if isinstance(item, np.generic) else item for item in value)


def is_several(value: Any) -> TypeGuard[Iterable[Any]]:
    """Return whether a value is an ordered collection that `several` accepts."""
    if _is_array(value):  # one that is traced has no elements yet
        return np.ndim(value) == 1 and not isinstance(value, Tracer)
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | Set)


def is_array_of_numbers(value: Any) -> TypeGuard[AnyArray]:
    """Return whether a value is an array of NumPy or JAX, and not one of strings or Python objects."""
    return _is_numpy_or_jax(value) and value.dtype.kind not in "OSU"


def choice(name: str, value: Any, allowed: tuple[str | None, ...]) -> None:
    """Raise unless a value is one of a few strings, or None where that is allowed."""
    if not isinstance(value, str | None) or value not in allowed:
        raise UserError(f"{name} must be {' or '.join(map(repr, allowed))}; got {described(value)}")


def grouping(name: str, per: str, group_size: Any) -> None:
    """Raise unless `group_size` is a count where `name`, what shares a draw, is "group", and None elsewhere."""
    if per != "group" and group_size is not None:
        raise UserError(f"group_size applies to {name}='group' only; got {group_size} with {name}={per!r}")
    if per == "group":
        if group_size is None:
            raise UserError(f"{name}='group' needs group_size, a divisor of batch_size; got None")
        count("group_size", group_size)


def known(kind: str, name: Any, allowed: Collection[str]) -> None:
    """Raise unless a name of this kind of object is among those allowed; see `errors.unknown`."""
    if not isinstance(name, str):
        raise UserTypeError(f"{kind} must be one of {', '.join(sorted(allowed))}; got {described(name)}")
    if name not in allowed:
        raise unknown(kind, name, allowed)


def text(name: str, value: Any) -> None:
    """Raise unless a value is a string."""
    if not isinstance(value, str):
        raise UserTypeError(f"{name} must be a string; got {described(value)}")


def path(name: str, value: Any) -> None:
    """Raise unless a value is a string or a path."""
    if not isinstance(value, str | os.PathLike):
        raise UserTypeError(f"{name} must be a path; got {described(value)}")


def image_shape(name: str, value: Any, channels: int | None = None) -> tuple[int, ...]:
    """Return the shape of an image, H, W and C, as a tuple of `int`; see `several`.

    Args:
      name: name of the argument.
      value: the argument.
      channels: a C that is allowed although H, W and C look like C, H and W; None allows any.
    """
    sides = several(name, value)
    if len(sides) != 3 or not all(_is_integer(side) and side > 0 for side in sides):
        raise UserError(f"{name} must be (H, W, C), integers above 0; got {sides}")
    height, width, last = sides = tuple(map(int, sides))
    if channels is None or count("channels", channels, least=0) == last:
        return sides
    if last > MAX_CHANNELS and height < min(width, last):
        raise UserError(
            f"{name} must be (H, W, C); got {sides}; if this is (C, H, W), pass ({width}, {last}, {height}); "
            f"if the images have {last} channels, pass channels={last}"
        )
    return sides


def described(value: Any) -> str:
    """Return a short description of an argument: its value, or else its type or its dtype and shape."""
    if _is_numpy_or_jax(value):
        return f"{value.dtype} of shape {value.shape}"
    return repr(value) if isinstance(value, bool | int | float | str | None) else type(value).__name__


def _is_numpy_or_jax(value: Any) -> TypeGuard[AnyArray]:
    return isinstance(value, jax.Array | np.ndarray)


def _is_integer(value: Any) -> TypeGuard[int]:
    if isinstance(value, int | np.integer):
        return not isinstance(value, bool)
    has_dtype = hasattr(value, "dtype")  # unlike a symbolic dimension
    return _is_array(value) and has_dtype and _is_concrete_scalar(value) and jnp.issubdtype(value.dtype, jnp.integer)


def _is_concrete_scalar(value: Any) -> Any:
    """Return whether a value is a single number or string of Python, NumPy or JAX, and not traced."""
    if isinstance(value, Tracer):
        return False
    return isinstance(value, bool | int | float) or (_is_array(value) and np.shape(value) == ())


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic) or hasattr(value, "__jax_array__")


def _check_plain(name: str, array: Any) -> None:
    """Raise for NumPy arrays that JAX does not accept."""
    if isinstance(array, np.ma.MaskedArray):
        raise UserTypeError(f"{name} must be a plain array; got MaskedArray; use filled()")
    if isinstance(array, np.ndarray) and not array.dtype.isnative:
        raise UserTypeError(
            f"{name} must be in the byte order of this machine; got {array.dtype}; use "
            f"astype({array.dtype.type.__name__})"
        )
    if isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.dtype.itemsize > 8:
        raise UserTypeError(f"{name} must have at most 64 bits per number; got {array.dtype}; use astype(float64)")


def _shape_of_keys(value: Any) -> tuple[int, ...] | None:
    """Return the shape of an array of keys, new-style or raw; None for anything else."""
    if not _is_numpy_or_jax(value):
        return None
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value.shape
    raw_shape = jax.eval_shape(jax.random.PRNGKey, 0).shape
    return value.shape[:-1] if value.dtype == np.uint32 and value.shape[-1:] == raw_shape else None


def _is_any(dtype: Any, kinds: tuple[Any, ...]) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)
