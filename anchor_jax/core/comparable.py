"""Functions as static data of a pytree: `jit` compiles again for each that is not equal to the one before."""

from __future__ import annotations

import functools
from typing import Any, cast

from anchor_jax.core.split_model import SplitModel


class _Partial(functools.partial[Any]):
    """A `functools.partial` that equals others of the same function, arguments and keywords; two plain ones differ."""

    def _parts(self) -> tuple[Any, ...]:
        return self.func, self.args, frozenset(self.keywords.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Partial) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())


def comparable(value: Any) -> Any:
    """Return a function, or a `SplitModel` of functions, that equals those made anew in the same way, if it can.

    That is so for a `functools.partial` of hashable arguments; anything else is returned as it is.
    """
    if isinstance(value, SplitModel):
        return SplitModel(comparable(value.first_layer), comparable(value.rest))
    if not isinstance(value, cast(Any, functools.partial)) or isinstance(value, _Partial):
        return value
    found = _Partial(value.func, *value.args, **value.keywords)
    try:
        hash(found)
    except TypeError:  # of an array, for example
        return value
    return found
