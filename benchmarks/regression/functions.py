"""Functions with many maxima from Δ-UQ and PAGER, as in Δ-UQ's released code (`lib/functions.py`)."""

import jax
import jax.numpy as jnp


def multi_optima(x: jax.Array) -> jax.Array:
    """Return sin x · cos 5x · cos 22x: `[B, 1]` -> `[B]`."""
    return (jnp.sin(x) * jnp.cos(5 * x) * jnp.cos(22 * x))[:, 0]


def ackley(x: jax.Array) -> jax.Array:
    """Return Ackley's function with the opposite sign, whose maximum is 0 at the origin: `[B, C]` -> `[B]`."""
    distance, waves = jnp.sqrt(jnp.mean(x**2, axis=1)), jnp.mean(jnp.cos(2 * jnp.pi * x), axis=1)
    return 20 * jnp.exp(-0.2 * distance) + jnp.exp(waves) - 20 - jnp.e
