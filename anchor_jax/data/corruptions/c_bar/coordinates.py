"""Pixel coordinates, which all corruptions of C-bar share. Positions are (y, x) in pixels."""

import jax
import jax.numpy as jnp

from anchor_jax.data.corruptions.filters import sample


def axes(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the positions y `[H, 1]` and x `[1, W]` of the pixels."""
    height, width = image.shape[:2]
    return jnp.arange(height, dtype=jnp.float32)[:, None], jnp.arange(width, dtype=jnp.float32)[None, :]


def offsets(image: jax.Array, center: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the positions y `[H, 1]` and x `[1, W]` relative to a center (y, x)."""
    y, x = axes(image)
    return y - center[0], x - center[1]


def shorter_side(image: jax.Array) -> int:
    """Return the shorter side of the image, in pixels."""
    return min(image.shape[:2])


def displace(image: jax.Array, dy: jax.Array, dx: jax.Array) -> jax.Array:
    """Sample the image at displaced pixels: bilinear, black outside."""
    y, x = axes(image)
    return sample(image, *jnp.broadcast_arrays(y + dy, x + dx), mode="constant")
