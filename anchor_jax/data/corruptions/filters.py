"""Linear filters, interpolation and luma, which several corruptions share.

A filter along one axis is a matrix `[n, n]`. It is computed on the host, in float64, by filtering the columns of the
identity matrix with SciPy, so that boundary conditions and truncation are those of the library that the published
generators call. The device only multiplies matrices.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from scipy import ndimage

Array = jax.Array | np.ndarray  # a NumPy array in `Corruption.prepare`, traced in `Corruption.apply`

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in OpenCV and Pillow


def gaussian_filter(size: int, sigma: float, mode: str = "nearest", truncate: float = 4.0) -> np.ndarray:
    """Return `scipy.ndimage.gaussian_filter`, also called by `skimage.filters.gaussian`, along one axis: `[n, n]`."""
    filtered = ndimage.gaussian_filter(np.eye(size), sigma, mode=mode, truncate=truncate, axes=0)
    return np.asarray(filtered, np.float32)


def gaussian_axes(sigma: float, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the Gaussian filters of an image: down its columns `[H, H]` and along its rows `[W, W]`."""
    height, width = shape
    return gaussian_filter(height, sigma), gaussian_filter(width, sigma)


def zoom_filter(size: int, factor: float) -> np.ndarray:
    """Return the generators' `clipped_zoom` along one axis: `scipy.ndimage.zoom` of the center, order 1, `[n, n]`."""
    crop = int(np.ceil(size / factor))
    top = (size - crop) // 2
    zoomed = np.asarray(ndimage.zoom(np.eye(size)[top : top + crop], (factor, 1), order=1), np.float32)
    trim = (len(zoomed) - size) // 2
    return zoomed[trim : trim + size]


def filter_axes(image: jax.Array, down: Array, along: Array) -> jax.Array:
    """Filter `[H, W, ...]` down its columns with `down` `[H, H]` and along its rows with `along` `[W, W]`."""
    image = jnp.einsum("yh,hw...->yw...", down, image, precision=Precision.HIGHEST)
    return jnp.einsum("xw,yw...->yx...", along, image, precision=Precision.HIGHEST)


def luma(image: jax.Array) -> jax.Array:
    """Convert an RGB image `[H, W, 3]` to grayscale `[H, W, 1]`."""
    return jnp.dot(image, jnp.array(LUMA), precision=Precision.HIGHEST)[..., None]


def sample(image: jax.Array, y: jax.Array, x: jax.Array, mode: str) -> jax.Array:
    """Interpolate an image `[H, W, C]` bilinearly at positions `[H, W]`, in pixels; `mode` is that of SciPy."""

    def sample_channel(channel):
        return jax.scipy.ndimage.map_coordinates(channel, [y, x], order=1, mode=mode)

    return jax.vmap(sample_channel, in_axes=-1, out_axes=-1)(image)
