"""Place arrays on the devices of a mesh, and move them from one sharding to another."""

from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding

Tree = TypeVar("Tree")


def place_each(tree: Tree, shardings: Any) -> Tree:
    """Place every array of a tree as the sharding at its position says."""
    leaves, structure = jax.tree.flatten(tree)
    targets = structure.flatten_up_to(shardings)
    moving = {
        index: target
        for index, (leaf, target) in enumerate(zip(leaves, targets, strict=True))
        if getattr(getattr(leaf, "sharding", None), "mesh", None) == target.mesh and leaf.sharding != target
    }
    return structure.unflatten(map(place, reshard(leaves, moving), targets))


def reshard(arrays: list[Any], targets: dict[int, NamedSharding]) -> list[Any]:
    """Shard some arrays, of one mesh, in another way, by one program for all of them, see `mesh.one_at_a_time`.

    Args:
      arrays: arrays of any shape.
      targets: the new sharding of those that move, by position.

    Returns:
      All arrays, in their order.
    """
    if not targets:
        return arrays
    program = jax.jit(_identity, out_shardings=list(targets.values()))
    moved = jax.block_until_ready(program([arrays[index] for index in targets]))
    by_index = dict(zip(targets, moved, strict=True))
    return [by_index.get(index, array) for index, array in enumerate(arrays)]


def place(array: Any, sharding: NamedSharding) -> jax.Array:
    """Place an array; with multiple processes, each passes the complete array."""
    if sharding.is_fully_addressable or not is_addressable(array):
        return jax.device_put(array, sharding)
    # `device_put` would send the array to all processes to check that it is the same on each
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _identity(arrays: list[Any]) -> list[Any]:  # at module level, so that `jax.jit` caches its programs
    return arrays


def is_addressable(array: Any) -> bool:
    """Return whether this process can access the complete array."""
    return not isinstance(array, jax.Array) or array.is_fully_addressable
