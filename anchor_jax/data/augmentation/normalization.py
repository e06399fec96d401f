"""From stored pixels to what a network sees, and what that is measured from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Normalization(NamedTuple):
    """Mean and standard deviation of each channel, for pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def measure_normalization(images: np.ndarray) -> Normalization:
    """Mean and standard deviation of each channel over uint8 images `[N, H, W, C]`."""
    values = np.arange(256) / 255
    counts = [np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])]
    mean = [np.average(values, weights=count) for count in counts]
    std = [np.average((values - m) ** 2, weights=count) ** 0.5 for count, m in zip(counts, mean, strict=True)]
    # a constant channel is left at its own scale
    return Normalization(tuple(round(m, 6) for m in mean), tuple(round(s, 6) or 1.0 for s in std))


def normalize(images: jax.Array, normalization: Normalization) -> jax.Array:
    """uint8 `[..., C]` -> float32 `[..., C]`: `(pixel / 255 - mean) / std`."""
    mean = jnp.array(normalization.mean, jnp.float32)
    std = jnp.array(normalization.std, jnp.float32)
    return (images.astype(jnp.float32) / 255 - mean) / std
