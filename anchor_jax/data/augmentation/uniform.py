"""Transform uniform random numbers.

An example draws all its random numbers at once, as uniform ones, because a draw takes the longest to compile.
"""

import jax
import jax.numpy as jnp


def to_integer(uniform: jax.Array, num: jax.Array | int) -> jax.Array:
    """Map numbers uniform in [0, 1) to integers uniform in 0..num - 1, int32."""
    return jnp.floor(uniform * num).astype(jnp.int32)


def to_range(uniform: jax.Array, low: float, high: float) -> jax.Array:
    """Map numbers uniform in [0, 1) to numbers uniform in [`low`, `high`)."""
    return low + (high - low) * uniform
