"""What a corruption is, and the linear filters that several of them are made of.

A filter along one axis is a matrix `[n, n]`, found by filtering the columns of the identity with SciPy on the host, in
float64: boundary and truncation are those of the library that the published generators call, and the device only
multiplies matrices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from scipy import ndimage

Array = jax.Array | np.ndarray  # made on the host in `Corruption.prepare`, traced in `Corruption.apply`

LUMA = (0.299, 0.587, 0.114)  # of ITU-R BT.601, as in OpenCV and Pillow


def _as_they_are(constants: Any, shape: tuple[int, int]) -> Any:
    return constants


class Corruption(NamedTuple):
    """A corruption of one image, and its published constants."""

    # (key, image float32 [H, W, 3] in [0, 1], what `prepare` returned) -> float32 [H, W, 3], later clipped to [0, 1]
    apply: Callable[[jax.Array, jax.Array, Any], jax.Array]
    small: tuple[Any, ...]  # constants of severity 1..5 for the 32 x 32 of CIFAR
    large: tuple[Any, ...]  # and for the 224 x 224 of ImageNet
    # (constants of a severity, (H, W)) -> numbers and arrays, on the host; they are arguments of the compiled program
    prepare: Callable[[Any, tuple[int, int]], Any] = _as_they_are


def gaussian_filter(size: int, sigma: float, mode: str = "nearest", truncate: float = 4.0) -> np.ndarray:
    """The matrix `[size, size]` of `scipy.ndimage.gaussian_filter` along one axis; `skimage.filters.gaussian` too."""
    filtered = ndimage.gaussian_filter(np.eye(size), sigma, mode=mode, truncate=truncate, axes=0)
    return np.asarray(filtered, np.float32)


def gaussian_axes(sigma: float, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The Gaussian's matrices for the rows `[H, H]` and for the columns `[W, W]` of an image."""
    height, width = shape
    return gaussian_filter(height, sigma), gaussian_filter(width, sigma)


def zoom_filter(size: int, factor: float) -> np.ndarray:
    """The matrix `[size, size]` of the generators' `clipped_zoom`: `scipy.ndimage.zoom` of the middle, order 1."""
    crop = int(np.ceil(size / factor))
    top = (size - crop) // 2
    zoomed = np.asarray(ndimage.zoom(np.eye(size)[top : top + crop], (factor, 1), order=1), np.float32)
    trim = (len(zoomed) - size) // 2
    return zoomed[trim : trim + size]


def filter_axes(image: jax.Array, rows: Array, columns: Array) -> jax.Array:
    """Filters `[H, W, ...]` down its columns with `rows [H, H]` and along its rows with `columns [W, W]`."""
    image = jnp.einsum("yh,hw...->yw...", rows, image, precision=Precision.HIGHEST)
    return jnp.einsum("xw,yw...->yx...", columns, image, precision=Precision.HIGHEST)


def luma(image: jax.Array) -> jax.Array:
    """Grey `[H, W, 1]` of an image `[H, W, 3]`."""
    return jnp.dot(image, jnp.array(LUMA), precision=Precision.HIGHEST)[..., None]


def sample(image: jax.Array, y: jax.Array, x: jax.Array, mode: str) -> jax.Array:
    """Bilinear samples `[H, W, C]` of an image `[H, W, C]` at positions `[H, W]` in pixels; modes as in SciPy."""

    def of(channel):
        return jax.scipy.ndimage.map_coordinates(channel, [y, x], order=1, mode=mode)

    return jax.vmap(of, in_axes=-1, out_axes=-1)(image)
