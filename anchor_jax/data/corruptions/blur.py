"""Blur: Gaussian, defocus, frosted glass, motion and zoom."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft, ndimage

from anchor_jax.data.corruptions.corruption import Corruption
from anchor_jax.data.corruptions.filters import Array, filter_axes, gaussian_axes, zoom_filter


def gaussian_blur(key: jax.Array, image: jax.Array, axes: tuple[Array, Array]) -> jax.Array:
    """Convolve with a Gaussian."""
    del key
    return filter_axes(image, *axes)


# defocus


def disk_spectrum(constants: tuple[float, float], shape: tuple[int, int]) -> np.ndarray:
    """Return the real Fourier transform, complex64, of a smoothed disk centered at pixel (0, 0).

    The smoothing Gaussian has 3 x 3 pixels (5 x 5 for a radius above 8), and mirrors the disk at the border of a square
    of 17 x 17 pixels or more. The spectrum has at least the size of the image plus a border of the disk's reach.

    Args:
      constants: radius of the disk, and sigma of the smoothing.
      shape: H and W of the image.
    """
    radius, sigma = constants
    side, cut = max(8, int(radius)), 1 if radius <= 8 else 2
    y, x = np.mgrid[-side : side + 1, -side : side + 1]
    disk = (y**2 + x**2 <= radius**2).astype(float)
    disk = ndimage.gaussian_filter(disk / disk.sum(), sigma, mode="mirror", radius=cut)
    reach = min(side, int(radius) + cut)
    half = [fft.next_fast_len((n + 2 * reach + 1) // 2) for n in shape]
    size = [2 * n for n in half]  # pyright: ignore[reportOperatorIssue]
    around, inside = np.arange(-reach, reach + 1), slice(side - reach, side + reach + 1)
    centered = np.zeros(size)
    centered[np.ix_(around, around)] = disk[inside, inside]
    return np.fft.rfft2(centered).astype(np.complex64)


def defocus_blur(key: jax.Array, image: jax.Array, spectrum: jax.Array) -> jax.Array:
    """Convolve with a disk; the image is mirrored at its border."""
    del key
    size = (spectrum.shape[0], 2 * spectrum.shape[1] - 2)
    border = [((n - m) // 2, (n - m + 1) // 2) for n, m in zip(size, image.shape[:2], strict=True)]
    image = jnp.pad(image, (*border, (0, 0)), mode="reflect")
    blurred = jnp.fft.irfft2(jnp.fft.rfft2(image, axes=(0, 1)) * spectrum[..., None], size, axes=(0, 1))
    (top, bottom), (left, right) = border
    return blurred[top : size[0] - bottom, left : size[1] - right]


# frosted glass


class GlassConstants(NamedTuple):
    """Constants of `glass_blur` for one image size."""

    down: Array  # [H, H], Gaussian blur down the columns, before and after the shuffle
    along: Array  # [W, W], along the rows
    reach: int  # maximum distance of a shuffled pixel, in pixels
    rounds: int


def glass_constants(constants: tuple[float, int, int], shape: tuple[int, int]) -> GlassConstants:
    """Prepare the published sigma, maximum distance and number of rounds."""
    sigma, reach, rounds = constants
    return GlassConstants(*gaussian_axes(sigma, shape), reach, rounds)


def glass_blur(key: jax.Array, image: jax.Array, constants: GlassConstants) -> jax.Array:
    """Blur, replace pixels by nearby ones, and blur again.

    The published generator intends to swap pixels. But it assigns views of one array, so that one pixel takes the value
    of the other, which keeps its own; this function does the same. The generator visits pixels one by one, the last one
    first, so that a value can travel far. Here all pixels find the origin of their values in parallel, see
    `trace_sources`.
    """
    # truncated to integer levels, as in the generator
    blurred = jnp.floor(255 * filter_axes(image, constants.down, constants.along) + 2e-4)

    def shuffle(step, pixels):
        return pixels[trace_sources(draw_nearby(jax.random.fold_in(key, step), image.shape[:2], constants.reach))]

    shuffled = jax.lax.fori_loop(0, constants.rounds, shuffle, blurred.reshape(-1, image.shape[2]))
    return filter_axes(shuffled.reshape(image.shape) / 255, constants.down, constants.along)


def draw_nearby(key: jax.Array, shape: tuple[int, ...], reach: int) -> jax.Array:
    """Draw the index of a pixel near each pixel, in row-major order, int32 `[H * W]`.

    Offsets are in -reach..reach - 1 along y and x. The first `reach` + 1 and the last `reach` - 1 pixels of each axis
    get their own index.
    """
    height, width = shape
    offsets = jnp.floor(2 * reach * jax.random.uniform(key, (2, height, width))).astype(jnp.int32) - reach
    y, x = jnp.mgrid[:height, :width]
    inside = (y > reach) & (y <= height - reach) & (x > reach) & (x <= width - reach)
    dy, dx = jnp.where(inside, offsets, 0)
    return (width * (y + dy) + x + dx).ravel()


def trace_sources(taken: jax.Array) -> jax.Array:
    """Return the origin of each pixel's value, `[H * W]`, if pixel i takes the value of pixel `taken[i]`, last i first.

    A pixel that takes from an earlier index gets its original value. A pixel that takes from a later index gets what
    that one took before. The resulting chains are halved in length until all end.
    """
    is_final = taken <= jnp.arange(len(taken))

    def jump(state):
        source, is_final = state
        return jnp.where(is_final, source, source[source]), is_final | is_final[source]

    return jax.lax.while_loop(lambda state: ~state[1].all(), jump, (taken, is_final))[0]


# motion


def motion_kernel(constants: tuple[int, float], shape: tuple[int, int]) -> np.ndarray:
    """Return the weights of half a Gaussian, float32: `2 * radius + 1` of them as in ImageMagick, then zeros.

    The zeros reduce the number of distinct lengths, and thereby of compiled programs.

    Args:
      constants: radius and sigma, in pixels.
      shape: ignored.
    """
    del shape
    radius, sigma = constants
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    return np.pad(weights / weights.sum(), (0, -2 * radius % 20)).astype(np.float32)


def motion_blur(key: jax.Array, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Blur along a random direction within 45 degrees of the rows."""
    angle = jax.random.uniform(key, minval=-jnp.pi / 4, maxval=jnp.pi / 4)
    return blur_along(image, kernel, angle)


def blur_along(image: jax.Array, kernel: Array, angle: jax.Array) -> jax.Array:
    """Apply ImageMagick's `-motion-blur` to an image `[H, W, C]`.

    The result is the weighted sum of copies of the image, shifted by 0, 1, ... pixels along the direction, rounded to
    whole pixels along x and y; border pixels are repeated. It has the integer levels of an 8-bit PNG, to which
    ImageMagick 6 truncates its 16 bits.

    Args:
      image: in [0, 1].
      kernel: weights of the shifts, see `motion_kernel`.
      angle: in radians, from x towards y; the pixels that are added lie in this direction.
    """
    reach = len(kernel) - 1
    steps = jnp.arange(reach + 1)
    corners = [jnp.ceil(steps * along - 0.5).astype(jnp.int32) + reach for along in (jnp.sin(angle), jnp.cos(angle))]
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")

    def add(step, total):
        corner = (corners[0][step], corners[1][step], 0)
        return total + kernel[step] * jax.lax.dynamic_slice(padded, corner, image.shape)

    blurred = jax.lax.fori_loop(0, jnp.count_nonzero(kernel), add, jnp.zeros_like(image))
    return jnp.floor(jnp.round(65535 * blurred) / 257) / 255


# zoom


class ZoomTaps(NamedTuple):
    """Linear interpolation along one axis, for each zoom factor."""

    near: Array  # int32 [zooms, n], the first of two pixels
    first: Array  # [zooms, n], its weight
    second: Array  # [zooms, n], weight of the next pixel


def zoom_taps(factors: tuple[float, ...], shape: tuple[int, int]) -> tuple[ZoomTaps, ZoomTaps]:
    """Return the interpolation of all zooms down the columns and along the rows."""
    down, along = (_taps(np.stack([zoom_filter(size, factor) for factor in factors])) for size in shape)
    return down, along


def _taps(matrices: np.ndarray) -> ZoomTaps:
    near = np.minimum((matrices > 0).argmax(-1), matrices.shape[-1] - 2)
    first, second = (np.take_along_axis(matrices, near[..., None] + n, -1)[..., 0] for n in (0, 1))
    return ZoomTaps(near.astype(np.int32), first, second)


def zoom_blur(key: jax.Array, image: jax.Array, axes: tuple[ZoomTaps, ZoomTaps]) -> jax.Array:
    """Return the mean of the image and its zooms."""
    del key

    def add(total, axes):
        down, along = axes
        zoomed = down.first[:, None, None] * image[down.near] + down.second[:, None, None] * image[down.near + 1]
        zoomed = along.first[:, None] * zoomed[:, along.near] + along.second[:, None] * zoomed[:, along.near + 1]
        return total + zoomed, None

    total, _ = jax.lax.scan(add, image, axes)
    return total / (len(axes[0].near) + 1)


def _zooms(*ranges: tuple[float, float]) -> tuple[tuple[float, ...], ...]:
    """Return the zoom factors of each severity, from (end, step)."""
    return tuple(tuple(np.arange(1, end, step).tolist()) for end, step in ranges)


CORRUPTIONS = {
    "defocus_blur": Corruption(
        defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        disk_spectrum,
    ),
    "glass_blur": Corruption(
        glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        glass_constants,
    ),
    "motion_blur": Corruption(
        motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        motion_kernel,
    ),
    "zoom_blur": Corruption(
        zoom_blur,
        _zooms((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        _zooms((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        zoom_taps,
    ),
    "gaussian_blur": Corruption(gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1), (1, 2, 3, 4, 6), gaussian_axes),
}
