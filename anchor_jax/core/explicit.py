"""Arrays whose type holds their sharding: those on a mesh with explicit axes, the default of `jax.make_mesh`.

JAX then computes the sharding of every result from those of the arguments, and raises where it is ambiguous, as for a
sort or a lookup of rows. `automatic` leaves such functions to the compiler; `aligned` and `gather_members` make the
others unambiguous. All of them do nothing for any other arrays. See "Explicit sharding" in the documentation of JAX.
"""

# JAX leaves some parameters unannotated.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Generator, Iterable
from functools import wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

Function = TypeVar("Function", bound=Callable[..., Any])


def automatic(*rows: str) -> Callable[[Function], Function]:
    """Make a function of arrays let the compiler choose how to compute with arrays of explicit sharding.

    Args:
      *rows: arguments whose first axis is that of each result. The results are sharded like the first of them that is
        sharded, or replicated if there is none.

    Returns:
      A decorator. The function must not call functions of the user, which expect explicit sharding.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            leaves: list[Any]
            structure: Any
            leaves, structure = jax.tree.flatten((args, kwargs))
            is_array = [isinstance(leaf, jax.Array) for leaf in leaves]
            arrays = [leaf for leaf, known in zip(leaves, is_array, strict=True) if known]
            if (mesh := _explicit_mesh(arrays)) is None:
                return function(*args, **kwargs)
            bound = signature.bind(*args, **kwargs).arguments
            spec = PartitionSpec(*_first_axis([bound[name] for name in rows if name in bound]))

            def of_arrays(*arrays: jax.Array) -> Any:
                remaining = iter(arrays)
                merged = [next(remaining) if known else leaf for leaf, known in zip(leaves, is_array, strict=True)]
                inputs: Any = jax.tree.unflatten(structure, merged)
                return function(*inputs[0], **inputs[1])

            with entered(*arrays):
                compute: Any = jax.sharding.auto_axes(of_arrays, axes=mesh.explicit_axes, out_sharding=spec)
                return compute(*arrays)

        return wrapped  # pyright: ignore[reportReturnType]

    return decorate


@contextlib.contextmanager
def entered(*arrays: Any) -> Generator[None]:
    """Enter the mesh of arrays with explicit sharding, unless one is entered already: some operations need it."""
    mesh = _explicit_mesh(arrays)
    if mesh is None or not jax.sharding.get_abstract_mesh().empty:
        yield
        return
    with _mesh_context(mesh, arrays):
        yield


def within_mesh(function: Function) -> Function:
    """Make a function enter the mesh of its arguments, see `entered`."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with entered(*jax.tree.leaves((args, kwargs))):
            return function(*args, **kwargs)

    return wrapped  # pyright: ignore[reportReturnType]


def aligned(*arrays: Any) -> tuple[Any, ...]:
    """Return arrays that share their leading axes, all sharded like the first of them that is sharded."""
    sharding = next(filter(_is_sharded, map(_sharding, arrays)), None)
    if sharding is None:
        return arrays
    return tuple(jax.sharding.reshard(array, PartitionSpec(*sharding.spec[: jnp.ndim(array)])) for array in arrays)


def reshape_rows(array: Any, shape: tuple[int, ...]) -> Any:
    """Reshape an array `[B, ...]` to `[B, ...]`; only its first axis remains sharded."""
    if _sharding(array) is None:
        return array.reshape(shape)
    return jnp.reshape(array, shape, out_sharding=PartitionSpec(*_first_axis([array])))


def gather_members(members: Any) -> Any:
    """Return an array `[K, ...]` whose first axis is complete on every device."""
    sharding = _sharding(members)
    if sharding is None or not _first_axis([members]):
        return members
    return jax.sharding.reshard(members, PartitionSpec(None, *sharding.spec[1:]))


def _sharding(array: Any) -> NamedSharding | None:
    """Return the sharding in the type of an array; None without explicit axes."""
    if not isinstance(array, jax.Array):
        return None
    sharding: Any = jax.typeof(array).sharding  # pyright: ignore[reportAttributeAccessIssue]
    return sharding if AxisType.Explicit in sharding.mesh.axis_types else None


def _is_sharded(sharding: NamedSharding | None) -> bool:
    return sharding is not None and any(axes is not None for axes in sharding.spec)


def _explicit_mesh(arrays: Iterable[Any]) -> AbstractMesh | None:
    sharding = next((found for found in map(_sharding, arrays) if found is not None), None)
    return None if sharding is None else sharding.mesh.abstract_mesh


def _first_axis(arrays: Iterable[Any]) -> tuple[Any, ...]:
    """Return the mesh axes of the first axis of the first array that has some; `()` if none has."""
    shardings = (found for found in map(_sharding, arrays) if found is not None)
    return next(((found.spec[0],) for found in shardings if found.spec and found.spec[0] is not None), ())


def _mesh_context(mesh: AbstractMesh, arrays: Iterable[Any]) -> Any:
    for array in arrays:
        if _sharding(array) is not None and not isinstance(array, Tracer):
            with contextlib.suppress(ValueError):  # while tracing
                return jax.set_mesh(array.sharding.mesh)
    return jax.sharding.use_abstract_mesh(mesh)
