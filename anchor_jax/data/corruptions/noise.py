"""Noise: Gaussian, shot, impulse and speckle."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import pdtr

from anchor_jax.data.corruptions.corruption import Corruption


def gaussian_noise(key: jax.Array, image: jax.Array, scale: jax.Array) -> jax.Array:
    """Add Gaussian noise with the standard deviation `scale`."""
    return image + scale * jax.random.normal(key, image.shape)


def speckle_noise(key: jax.Array, image: jax.Array, scale: jax.Array) -> jax.Array:
    """Add Gaussian noise with a standard deviation of `scale` times the pixel."""
    return image + image * scale * jax.random.normal(key, image.shape)


def impulse_noise(key: jax.Array, image: jax.Array, amount: jax.Array) -> jax.Array:
    """Set a fraction of the values to 0 or 1, with equal probability ("salt and pepper")."""
    uniform = jax.random.uniform(key, image.shape)
    return jnp.where(uniform < amount, uniform < amount / 2, image)


def shot_noise(key: jax.Array, image: jax.Array, law: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Count photons, Poisson distributed; a white pixel sends `photons` of them on average.

    Counts are drawn by inverting the CDF: bisection in the table of `poisson_law`. This is many times faster than
    `jax.random.poisson`, and as exact as a uniform float32 number allows.
    """
    cdf, photons = law
    size = cdf.shape[1]  # a power of two
    uniform = jax.random.uniform(key, image.shape)
    row_start = size * jnp.round(255 * image).astype(jnp.int32)

    def bisect(step, count):
        half = size >> (step + 1)
        return count + jnp.where(cdf.ravel()[row_start + count + half - 1] <= uniform, half, 0)

    return jax.lax.fori_loop(0, size.bit_length() - 1, bisect, jnp.zeros_like(row_start)) / photons


def poisson_law(photons: int, shape: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Return the CDF of each of 256 levels at 0, 1, ... photons, float32 `[256, n]`, and `photons`.

    The number of columns n is a power of two beyond the count at which a pixel is white anyway.
    """
    del shape
    counts = np.arange(64 if photons < 64 else 512)  # only two lengths, so that few programs are compiled
    return pdtr(counts, photons * np.arange(256)[:, None] / 255).astype(np.float32), float(photons)


CORRUPTIONS = {
    "gaussian_noise": Corruption(gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": Corruption(shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3), poisson_law),
    "impulse_noise": Corruption(impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "speckle_noise": Corruption(speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2), (0.15, 0.2, 0.35, 0.45, 0.6)),
}
