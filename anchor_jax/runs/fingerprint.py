"""Fingerprints of arrays, by which one that was damaged on disk is told from what was saved.

They are sums modulo 2^32, so that they do not depend on how an array is divided over devices, nor on their number.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from anchor_jax.runtime import mesh as mesh_lib


def fingerprints(tree: Any) -> dict[str, int]:
    """The fingerprint of each array of a tree, in [0, 2^32), by its path such as "params/Dense_0/kernel".

    Any one wrong number in an array changes it; of arrays with more of them about 1 in 4 billion keeps it.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    numbers = mesh_lib.device_get_global([_fingerprint(leaf) for _, leaf in leaves])
    return {name: int(number) for name, number in zip(names, numbers, strict=True)}


def all_finite(tree: Any) -> bool:
    """Whether no number of a tree of arrays is NaN or infinite."""
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return all(mesh_lib.device_get_global([_is_finite(leaf) for leaf in floats]))


@jax.jit
def _fingerprint(array: jax.Array) -> jax.Array:
    """The sum over a hash of each number's bits and place, of which each number has another one."""
    bits = lax.bitcast_convert_type(array, jnp.dtype(f"uint{8 * array.dtype.itemsize}")).astype(jnp.uint32)
    place = jnp.uint32(0)
    for axis, length in enumerate(array.shape):
        place = place * jnp.uint32(length) + lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    return jnp.sum(_mixed(bits ^ _mixed(place)), dtype=jnp.uint32)


def _mixed(bits: jax.Array) -> jax.Array:
    """The last steps of MurmurHash3, by which each bit comes to bear on all; no two numbers become the same."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


@jax.jit
def _is_finite(array: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(array))
