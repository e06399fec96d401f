"""Random numbers. An example draws all that it needs at once, since a draw takes the longest to compile."""

import jax
import jax.numpy as jnp


def whole(uniform: jax.Array, num: jax.Array | int) -> jax.Array:
    """A number that is uniform in [0, 1) as one of 0..num - 1, int32, each as likely."""
    return jnp.floor(uniform * num).astype(jnp.int32)


def between(uniform: jax.Array, least: float, greatest: float) -> jax.Array:
    """A number that is uniform in [0, 1) as one that is uniform between two others."""
    return least + (greatest - least) * uniform
