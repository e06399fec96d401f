"""Numbers of users in the form of arrays: lists, tables with named columns, and arrays of other libraries."""

from collections.abc import Hashable
from typing import Any, TypeAlias

import jax
import numpy as np

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError, UserTypeError

Numbers: TypeAlias = Any
"""An array of JAX or NumPy, nested lists, a DataFrame or a Series, or what NumPy converts; see `numbers`."""

Names: TypeAlias = tuple[Hashable, ...]
_TIMES = "convert times to numbers, such as seconds since the first"
_HINTS = dict.fromkeys("Mm", _TIMES) | dict.fromkeys("OUS", "convert it to numbers")  # by kind of dtype


def numbers(name: str, values: Any, shape: str) -> tuple[Any, Names | None]:
    """Return real numbers as an array, checked, and the names of its columns; None if they have none.

    Args:
      name: name of the argument.
      values: array of JAX or NumPy, nested lists, a DataFrame or a Series of pandas or polars, or what NumPy converts.
      shape: see `checks.array`.

    Raises:
      UserTypeError: a column is not of real numbers.
      UserError: the shape is another, two columns have the same name, or an array of NumPy contains NaN or infinity.
    """
    names = None
    if isinstance(values, jax.Array | np.ndarray | np.generic):
        array = values
    elif hasattr(values, "columns") and hasattr(values, "to_numpy"):
        array, names = _of_frame(name, values)
    else:
        array = _converted(name, values)
    kind = getattr(getattr(array, "dtype", None), "kind", "")
    checks.array(name, array, "real", shape, hint=_HINTS.get(kind, ""))
    if isinstance(array, np.ndarray):
        limit = float(np.finfo(np.float32).max)
        checks.within(name, array, -limit, limit)
    return array, names


def order_columns(name: str, array: Any, names: Names | None, trained: Names | None) -> Any:
    """Return an array with its columns in the order of training, if both are named.

    Raises:
      UserError: the names differ from those of training.
    """
    if names is None or trained is None or names == trained or _are_positions(names) or _are_positions(trained):
        return array
    if set(names) != set(trained):
        missing = [str(column) for column in trained if column not in names]
        unknown = [str(column) for column in names if column not in trained]
        facts = [
            f"{what} {', '.join(columns)}" for what, columns in (("without", missing), ("with", unknown)) if columns
        ]
        raise UserError(
            f"{name} must have the columns of training, {', '.join(map(str, trained))}; got columns "
            f"{' and '.join(facts)}; select them by name, or pass an array in that order"
        )
    return array[:, np.array([names.index(column) for column in trained])]


def _are_positions(names: Names) -> bool:
    """Return whether columns are only numbered, as those of a DataFrame made from an array."""
    return names == tuple(range(len(names)))


def _of_frame(name: str, frame: Any) -> tuple[np.ndarray, Names]:
    names = tuple(frame.columns)
    if len(set(names)) < len(names):
        twice = next(column for column in names if names.count(column) > 1)
        raise UserError(f"{name} must have columns of different names; got '{twice}' more than once")
    columns = [_converted(f"column '{column}' of {name}", frame[column]) for column in names]
    for column, values in zip(names, columns, strict=True):
        checks.array(f"column '{column}' of {name}", values, "real", "[N]", hint=_HINTS.get(values.dtype.kind, ""))
    if not columns:
        raise UserError(f"{name} must have at least one column; got none")
    return np.stack(columns, axis=1), names


def _converted(name: str, values: Any) -> np.ndarray:
    """Return values of another library as an array of NumPy; nullable numbers become float64, with NaN where null."""
    try:
        if hasattr(values, "to_numpy"):
            dtype = getattr(values, "dtype", None)
            nullable = getattr(dtype, "kind", "O") in "biuf" and not isinstance(dtype, np.dtype)
            return values.to_numpy(dtype=np.float64, na_value=np.nan) if nullable else np.asarray(values.to_numpy())
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # lists of unequal length, tensors that require gradients
        raise UserTypeError(f"{name} must be an array of numbers; got {checks.described(values)}") from error
