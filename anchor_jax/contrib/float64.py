"""Numbers of float64 on the host and, as sums of float32, in JAX.

JAX rounds NumPy's float64 to float32, which keeps seven digits: of times in UNIX seconds, not even minutes. What lies
far from zero is therefore subtracted on the host, in float64, before JAX sees it. Where it has to pass through `jit` or
`vmap`, it is kept as parts: three float32 arrays whose sum is the number.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Self, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.core.precision import is_concrete, on_host
from anchor_jax.core.short_reprs import of_fields

Parts: TypeAlias = tuple[Any, Any, Any]
_NUM_PARTS = 3  # 24 bits each, for the 53 of float64


def split(values: Any) -> Parts:
    """Return three float32 arrays whose sum is the real numbers given, exactly within the range of float32."""
    if is_concrete(values):
        return _split_wide(on_host(values), np)
    dtype = values.dtype
    if jnp.issubdtype(dtype, jnp.integer) and dtype.itemsize == 4:  # 16 bits each
        high, low = (values >> 16).astype(jnp.float32) * 65536, (values & 0xFFFF).astype(jnp.float32)
        return high, low, jnp.zeros_like(high)
    if dtype.itemsize == 8:
        return _split_wide(values.astype(jnp.float64), jnp)
    high = values.astype(jnp.float32)
    return high, jnp.zeros_like(high), jnp.zeros_like(high)


def join(parts: Parts) -> Any:
    """Return the sum of the parts: float64 of NumPy, or float32 of JAX where they are traced."""
    if is_concrete(*parts):
        high, middle, low = map(on_host, parts)
        return low + middle + high
    high, middle, low = parts
    return low + middle + high


def subtract(values: Any, origin: Parts) -> Any:
    """Return the difference of numbers from an origin: float64 of NumPy, or float32 of JAX where one is traced.

    Args:
      values: real `[N, ...]`, or its parts.
      origin: parts `[...]`, the same for all rows.
    """
    parts = values if isinstance(values, tuple) else split(values)
    if is_concrete(*parts, *origin):
        return join(parts) - join(origin)
    differences = [part - start[None] for part, start in zip(parts, origin, strict=True)]
    return differences[0] + differences[1] + differences[2]  # the largest first: they may cancel


def add(origin: Parts, offset: Any) -> Parts:
    """Return the parts of the sum of an origin and an offset `[...]`, which is small if the origin is traced."""
    if is_concrete(*origin, offset):
        return split(join(origin) + on_host(offset))
    high, middle, low = origin
    return high, middle, low + offset


def _split_wide(rest: Any, numpy: Any) -> Parts:
    parts = []
    for _ in range(_NUM_PARTS):
        with np.errstate(over="ignore", invalid="ignore"):
            part = rest.astype(np.float32)
            rest = numpy.where(numpy.isfinite(part), rest - part.astype(np.float64), 0.0)
        parts.append(part)
    return tuple(parts)


class Float64Fields:
    """Base of records of real arrays that keep float64 under `jit` and `vmap`: like a `NamedTuple` in use.

    A field is float64 of NumPy, or float32 of JAX where it is traced. As a pytree, each field that is not None has
    three leaves, its `Parts`.
    """

    fields: ClassVar[tuple[str, ...]]
    has_short_repr: ClassVar[bool] = True
    _parts: tuple[Parts | None, ...]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        jax.tree_util.register_pytree_node_class(cls)

    @classmethod
    def of_parts(cls, *parts: Parts | None) -> Self:
        """Return a record of fields that are split already."""
        record = object.__new__(cls)
        record._parts = parts
        return record

    def parts_of(self, field: str) -> Any:
        """Return the parts of a field; None if it is None."""
        return self._parts[self.fields.index(field)]

    def tree_flatten(self) -> tuple[tuple[Parts | None, ...], None]:
        """Return the fields in parts."""
        return self._parts, None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Parts | None, ...]) -> Self:
        """Return the record of these parts."""
        return cls.of_parts(*children)

    def _field(self, name: str) -> Any:
        parts = self.parts_of(name)
        return None if parts is None else join(parts)

    def _asdict(self) -> dict[str, Any]:
        return {field: getattr(self, field) for field in self.fields}

    def _replace(self, **values: Any) -> Self:
        return type(self)(**self._asdict() | values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._asdict().values())

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, index: int) -> Any:
        return getattr(self, self.fields[index])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(self)

    def __repr__(self) -> str:
        return of_fields(type(self).__name__, self._asdict())
