"""Fingerprints of arrays, to detect corruption between saving and restoring.

A fingerprint is a sum modulo 2^32, so it does not depend on how an array is sharded, nor on the number of devices.
"""

# jax.numpy and jax.tree_util have partly unknown types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from anchor_jax.runtime import mesh as mesh_lib


def fingerprints(tree: Any) -> dict[str, int]:
    """Return the fingerprint of each array of a tree, in [0, 2^32), by path, such as "params/Dense_0/kernel".

    A single wrong number always changes the fingerprint of an array; several wrong numbers leave it unchanged with a
    probability of about 1 in 4 billion.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    numbers = mesh_lib.device_get_global(_fingerprint_each([leaf for _, leaf in leaves]))
    return {name: int(number) for name, number in zip(names, numbers, strict=True)}


def all_finite(tree: Any) -> bool:
    """Return whether all numbers in a tree of arrays are finite."""
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return bool(mesh_lib.device_get_global(_are_finite(floats)))


# These are one program for all arrays, see `mesh_lib.one_at_a_time`.


@jax.jit
def _fingerprint_each(arrays: list[jax.Array]) -> list[jax.Array]:
    return [_fingerprint(array) for array in arrays]


@jax.jit
def _are_finite(arrays: list[jax.Array]) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(array)) for array in arrays]))


def _fingerprint(array: jax.Array) -> jax.Array:
    """Sum a hash of the bits and the position of each number; each hash is one-to-one in the bits."""
    bits = lax.bitcast_convert_type(array, jnp.dtype(f"uint{8 * array.dtype.itemsize}")).astype(jnp.uint32)
    position = jnp.uint32(0)
    for axis, length in enumerate(array.shape):
        position = position * jnp.uint32(length) + lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    return jnp.sum(_mix(bits ^ _mix(position)), dtype=jnp.uint32)


def _mix(bits: jax.Array) -> jax.Array:
    """Apply the finalizer of MurmurHash3, a bijection in which each input bit affects all output bits."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)
