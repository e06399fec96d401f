"""Digital: contrast, elastic deformation, pixelation, JPEG compression and saturation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from anchor_jax.data.corruptions import jpeg
from anchor_jax.data.corruptions.corruption import Corruption
from anchor_jax.data.corruptions.filters import Array, filter_axes, gaussian_filter, sample


def contrast(key: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    """Scale the difference of each channel from its mean."""
    del key
    mean = image.mean((0, 1))
    return factor * (image - mean) + mean


def saturate(key: jax.Array, image: jax.Array, constants: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Change the saturation S of HSV to `factor * S + offset`, up to 1.

    V and H are kept, so that the distance of each channel from V grows by the factor of S. The hue of gray is red.
    """
    del key
    factor, offset = constants
    value = image.max(-1, keepdims=True)
    chroma = value - image.min(-1, keepdims=True)
    below = jnp.where(chroma > 0, (value - image) / chroma, jnp.array([0.0, 1.0, 1.0]))  # 1 for the minimum channel
    saturation = jnp.clip(factor * chroma / jnp.where(value > 0, value, 1) + offset, 0, 1)
    return value * (1 - below * saturation)


# elastic deformation


class ElasticConstants(NamedTuple):
    """Constants of `elastic_transform` for one image size."""

    jitter: float  # maximum shift of the corners of the affine map, in pixels
    amplitude: float  # of the displacements before they are smoothed, in pixels
    down: Array  # [H, H], smooths the displacements down the columns
    along: Array  # [W, W], along the rows


def elastic_constants(constants: tuple[float, float, float], shape: tuple[int, int]) -> ElasticConstants:
    """Prepare the published lengths (amplitude, smoothing, jitter), which are fractions of the image's side."""
    amplitude, sigma, jitter = (min(shape) * fraction for fraction in constants)
    down, along = (gaussian_filter(size, sigma, mode="reflect", truncate=3) for size in shape)
    return ElasticConstants(jitter, amplitude, down, along)


def elastic_transform(key: jax.Array, image: jax.Array, constants: ElasticConstants) -> jax.Array:
    """Apply a random affine map, then a smooth random displacement of every pixel."""
    affine_key, pixels_key = jax.random.split(key)
    shifts = constants.jitter * jax.random.uniform(affine_key, (3, 2), minval=-1, maxval=1)
    noise = constants.amplitude * jax.random.uniform(pixels_key, (*image.shape[:2], 2), minval=-1, maxval=1)
    displacements = filter_axes(noise, constants.down, constants.along)
    return displace(warp_affine(image, shifts), displacements[..., 0], displacements[..., 1])


def warp_affine(image: jax.Array, shifts: jax.Array) -> jax.Array:
    """Apply the affine map that shifts three corners of a centered square.

    Args:
      image: `[H, W, C]`.
      shifts: of the lower right, upper right and upper left corner, `[3, 2]`, (x, y) in pixels.
    """
    height, width, _ = image.shape
    half_side = min(height, width) // 3
    corner = jnp.array([width // 2 + half_side, height // 2 + half_side], jnp.float32)
    along_x = jnp.array([1.0, 0.0]) + (shifts[1] - shifts[2]) / (2 * half_side)
    along_y = jnp.array([0.0, 1.0]) + (shifts[0] - shifts[1]) / (2 * half_side)
    y, x = pixel_positions(image)
    dx, dy = x - corner[0] - shifts[0, 0], y - corner[1] - shifts[0, 1]
    determinant = along_x[0] * along_y[1] - along_x[1] * along_y[0]
    source_x = corner[0] + (along_y[1] * dx - along_y[0] * dy) / determinant
    source_y = corner[1] + (along_x[0] * dy - along_x[1] * dx) / determinant
    return sample(image, source_y, source_x, mode="mirror")


def displace(image: jax.Array, dy: jax.Array, dx: jax.Array) -> jax.Array:
    """Sample an image `[H, W, C]` at each pixel plus a displacement `[H, W]`, in pixels."""
    y, x = pixel_positions(image)
    return sample(image, y + dy, x + dx, mode="reflect")


def pixel_positions(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the coordinates y and x of every pixel, float32 `[H, W]`."""
    height, width, _ = image.shape
    y, x = jnp.mgrid[:height, :width]
    return y.astype(jnp.float32), x.astype(jnp.float32)


# pixelation


class Windows(NamedTuple):
    """The pixels along one axis whose mean each pixel becomes."""

    members: Array  # [n, n], 1 where pixel j is in the window of pixel i
    weights: Array  # int32 [n], 2^22 / size of the window


def pixelate_windows(fraction: float, shape: tuple[int, int]) -> tuple[Windows, Windows]:
    """Return the windows of shrinking to `fraction` and enlarging again: down the columns and along the rows."""
    return _windows(fraction, shape[0]), _windows(fraction, shape[1])


def _windows(fraction: float, size: int) -> Windows:
    identity = Image.fromarray(np.eye(size, dtype=np.float32))
    shrunk = identity.resize((size, max(1, int(size * fraction))), Image.Resampling.BOX)
    members = np.asarray(shrunk.resize((size, size), Image.Resampling.BOX)) > 0
    weights = np.floor(2**22 / members.sum(1) + 0.5).astype(np.int32)
    return Windows(members.astype(np.float32), weights)


def pixelate(key: jax.Array, image: jax.Array, axes: tuple[Windows, Windows]) -> jax.Array:
    """Shrink and enlarge the image by Pillow's box filter: first along x, then along y, rounding after each."""
    del key
    down, along = axes
    levels = jnp.round(255 * image)
    levels = _window_means(jnp.einsum("xw,hwc->hxc", along.members, levels), along.weights[:, None])
    levels = _window_means(jnp.einsum("yh,hxc->yxc", down.members, levels), down.weights[:, None, None])
    return levels / 255


def _window_means(sums: jax.Array, weights: Array) -> jax.Array:
    """Return rounded means of integers, in fixed point with 22 binary places, as in Pillow."""
    return ((sums.astype(jnp.int32) * weights + (1 << 21)) >> 22).astype(jnp.float32)


CORRUPTIONS = {
    "contrast": Corruption(contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": Corruption(
        elastic_transform,
        ((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        # published as fractions of 244 pixels, for images of 224
        tuple(
            (244 / 224 * amplitude, 244 / 224 * sigma, 244 / 224 * jitter)
            for amplitude, sigma, jitter in (
                (2.0, 0.7, 0.1),
                (2.0, 0.08, 0.2),
                (0.05, 0.01, 0.02),
                (0.07, 0.01, 0.02),
                (0.12, 0.01, 0.02),
            )
        ),
        elastic_constants,
    ),
    "pixelate": Corruption(pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25), pixelate_windows),
    "jpeg_compression": Corruption(
        jpeg.jpeg_compression, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7), jpeg.quantization_tables
    ),
    "saturate": Corruption(
        saturate,
        ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),
        ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)),
    ),
}
