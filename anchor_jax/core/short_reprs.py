"""Short representations of objects that hold arrays: dtypes and shapes instead of numbers."""

# JAX leaves some parameters unannotated.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import math
from collections.abc import Collection, Mapping
from typing import Any, TypeVar, cast

import jax
import numpy as np

MAX_LENGTH = 480  # characters of a representation
_MAX_FIELD = 100  # characters of one field
_MAX_ITEMS = 4  # of a sequence

Class = TypeVar("Class", bound=type[Any])


def short_repr(cls: Class) -> Class:
    """Give a dataclass or a named tuple a short `repr`, a class decorator.

    Example:
      >>> from typing import Any, NamedTuple
      >>> import jax.numpy as jnp
      >>> @short_repr
      ... class Trained(NamedTuple):
      ...     bank: Any
      ...     labels: tuple[str, ...]
      >>> Trained(jnp.zeros((50, 8, 8, 3)), ("ant", "bee", "cat", "dog", "elk"))
      Trained(bank=float32[50,8,8,3], labels=('ant', 'bee', 'cat', 'dog', ... 5 in all))
    """

    def representation(self: Any) -> str:
        return of_fields(type(self).__name__, {name: getattr(self, name) for name in _field_names(self)})

    cls.__repr__ = representation  # pyright: ignore[reportAttributeAccessIssue]
    cls.has_short_repr = True  # pyright: ignore[reportAttributeAccessIssue]
    return cls


def of_fields(name: str, fields: Mapping[str, Any]) -> str:
    """Return `name(field=value, ...)` with a short description of each value."""
    parts = (f"{field}={described(value)}" for field, value in fields.items())
    return _shortened(f"{name}({', '.join(parts)})", MAX_LENGTH)


def described(value: Any) -> str:
    """Return a short description of any value: numbers and short strings as they are, arrays by dtype and shape."""
    if _is_array(value):
        return _array(value)
    if isinstance(value, functools.partial):
        return f"partial({described(cast(Any, value).func)})"
    if isinstance(value, Mapping):
        return _mapping(cast(Any, value))
    if _is_sequence(value):
        return _sequence(value)
    if _has_short_repr(value):
        return _shortened(repr(value), 4 * _MAX_FIELD)
    if inspect.ismethod(value):  # such as `model.apply`
        return f"{type(value.__self__).__name__}.{value.__name__}"
    if hasattr(value, "__qualname__"):
        return str(value.__qualname__).replace("<locals>.", "")
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if arrays := _arrays(value):
        return f"{type(value).__name__} of {_summed(arrays)}"
    text = repr(value)
    return type(value).__name__ if "\n" in text or " object at 0x" in text else _shortened(text, _MAX_FIELD)


def _field_names(value: Any) -> tuple[str, ...]:
    if hasattr(value, "_fields"):
        return value._fields
    return tuple(field.name for field in dataclasses.fields(value) if field.repr)


def _has_short_repr(value: Any) -> bool:
    return getattr(value.__class__, "has_short_repr", False)


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _is_sequence(value: Any) -> bool:
    return isinstance(value, tuple | list | set | frozenset) and not hasattr(cast(Any, value), "_fields")


def _arrays(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if _is_array(leaf)]


def _array(value: Any) -> str:
    """Return dtype and shape, such as `float32[8,3]`; the value of a single number of NumPy."""
    if not value.shape and isinstance(value, np.ndarray | np.generic):
        return str(cast(Any, value))
    return f"{value.dtype}[{','.join(map(str, value.shape))}]"


def _mapping(values: Mapping[Any, Any]) -> str:
    """Return the first items of a mapping; of a tree of arrays, its first keys and how many arrays they are."""
    keys = list(values)[:_MAX_ITEMS]
    if arrays := _arrays(values):
        return _shortened(f"{{{', '.join(map(str, keys))}}} of {_summed(arrays)}", _MAX_FIELD)
    return _listed([f"{key!r}: {described(values[key])}" for key in keys], len(values), "{}")


def _sequence(values: Collection[Any]) -> str:
    """Return the first items of a tuple, list or set; of many arrays, how many they are."""
    if len(arrays := _arrays(values)) > _MAX_ITEMS:
        return f"{type(values).__name__} of {_summed(arrays)}"
    brackets = "()" if isinstance(values, tuple) else "[]" if isinstance(values, list) else "{}"
    return _listed([described(value) for value in itertools.islice(values, _MAX_ITEMS)], len(values), brackets)


def _listed(items: list[str], num: int, brackets: str) -> str:
    """Return the items in brackets, as many of them as are short enough, and the number of all."""
    while items and len(", ".join(items)) > _MAX_FIELD:
        items = items[:-1]
    shown = [*items, f"... {num} in all"] if num > len(items) else items
    comma = "," if num == 1 and brackets == "()" else ""
    return f"{brackets[0]}{', '.join(shown)}{comma}{brackets[1]}"


def _summed(arrays: list[Any]) -> str:
    num = sum(math.prod(array.shape) for array in arrays)
    return f"{len(arrays)} array{'s' * (len(arrays) != 1)} with {num:,} numbers"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 4]}...{text[-1]}"
