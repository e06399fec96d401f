"""Blur: Gaussian, of a lens out of focus, of frosted glass, of motion and of a zoom."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft, ndimage

from anchor_jax.data.corruptions.common import Array, Corruption, filter_axes, gaussian_axes, zoom_filter


def gaussian_blur(key: jax.Array, image: jax.Array, axes: tuple[Array, Array]) -> jax.Array:
    """Convolution with a Gaussian."""
    del key
    return filter_axes(image, *axes)


# out of focus


def lens(constants: tuple[float, float], shape: tuple[int, int]) -> np.ndarray:
    """Real Fourier transform, complex64, of a disc around the first pixel, of a radius, smoothed by a Gaussian.

    The Gaussian has 3 x 3 pixels (5 x 5 beyond a radius of 8), and the disc is mirrored where its square ends, of
    17 x 17 pixels or more. The size is that of the image with a border as wide as the disc reaches, or a little wider.
    """
    radius, sigma = constants
    side, cut = max(8, int(radius)), 1 if radius <= 8 else 2
    y, x = np.mgrid[-side : side + 1, -side : side + 1]
    disc = (y**2 + x**2 <= radius**2).astype(float)
    disc = ndimage.gaussian_filter(disc / disc.sum(), sigma, mode="mirror", radius=cut)
    reach = min(side, int(radius) + cut)
    half = [fft.next_fast_len((n + 2 * reach + 1) // 2) for n in shape]
    size = [2 * n for n in half]  # pyright: ignore[reportOperatorIssue]
    around, inside = np.arange(-reach, reach + 1), slice(side - reach, side + reach + 1)
    centred = np.zeros(size)
    centred[np.ix_(around, around)] = disc[inside, inside]
    return np.fft.rfft2(centred).astype(np.complex64)


def defocus_blur(key: jax.Array, image: jax.Array, transfer: jax.Array) -> jax.Array:
    """Convolution with a disc, the image mirrored at its border."""
    del key
    size = (transfer.shape[0], 2 * transfer.shape[1] - 2)
    border = [((n - m) // 2, (n - m + 1) // 2) for n, m in zip(size, image.shape[:2], strict=True)]
    image = jnp.pad(image, (*border, (0, 0)), mode="reflect")
    blurred = jnp.fft.irfft2(jnp.fft.rfft2(image, axes=(0, 1)) * transfer[..., None], size, axes=(0, 1))
    (top, bottom), (left, right) = border
    return blurred[top : size[0] - bottom, left : size[1] - right]


# frosted glass


class Glass(NamedTuple):
    """Constants of `glass_blur` for one image size."""

    rows: Array  # [H, H] a Gaussian blur, before and after
    columns: Array  # [W, W]
    reach: int  # pixels
    rounds: int


def glass(constants: tuple[float, int, int], shape: tuple[int, int]) -> Glass:
    """Of the published sigma, greatest distance and number of rounds."""
    sigma, reach, rounds = constants
    return Glass(*gaussian_axes(sigma, shape), reach, rounds)


def glass_blur(key: jax.Array, image: jax.Array, glass: Glass) -> jax.Array:
    """Blurs, replaces pixels by near ones, blurs again.

    The published generator means to swap pixels, but assigns views of one array, by which the one takes the value of
    the other, which keeps its own; that is what is done here. It goes from pixel to pixel, the last first, so that a
    value can travel. Here all of the pixels look up at once whence their values come (see `travelled`).
    """
    blurred = jnp.floor(255 * filter_axes(image, glass.rows, glass.columns) + 2e-4)  # cut to whole levels there too

    def shuffle(step, pixels):
        return pixels[travelled(draw_nearby(jax.random.fold_in(key, step), image.shape[:2], glass.reach))]

    shuffled = jax.lax.fori_loop(0, glass.rounds, shuffle, blurred.reshape(-1, image.shape[2]))
    return filter_axes(shuffled.reshape(image.shape) / 255, glass.rows, glass.columns)


def draw_nearby(key: jax.Array, shape: tuple[int, ...], reach: int) -> jax.Array:
    """For every pixel the index, in row-major order `[H * W]`, of a pixel -reach..reach-1 from it along y and x.

    Near the border, `reach` pixels or less from its end and more by one at its start, a pixel gets its own index.
    """
    height, width = shape
    offsets = jnp.floor(2 * reach * jax.random.uniform(key, (2, height, width))).astype(jnp.int32) - reach
    y, x = jnp.mgrid[:height, :width]
    inside = (y > reach) & (y <= height - reach) & (x > reach) & (x <= width - reach)
    dy, dx = jnp.where(inside, offsets, 0)
    return (width * (y + dy) + x + dx).ravel()


def travelled(taken: jax.Array) -> jax.Array:
    """Where values come from if each pixel, the last one first, takes that of pixel `taken[i]`: indices `[H * W]`.

    A pixel that takes from one before it takes what was there at first; one that takes from one behind it takes what
    that one took. Chains of those are halved in length until none is left.
    """
    end = taken <= jnp.arange(len(taken))

    def jump(state):
        source, end = state
        return jnp.where(end, source, source[source]), end | end[source]

    return jax.lax.while_loop(lambda state: ~state[1].all(), jump, (taken, end))[0]


# motion


def motion_kernel(constants: tuple[int, float], shape: tuple[int, int]) -> np.ndarray:
    """Weights float32 of half a Gaussian, `2 * radius + 1` of them as in ImageMagick, and zeros behind them.

    With those there are few lengths, and few programs are compiled.
    """
    del shape
    radius, sigma = constants
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    return np.pad(weights / weights.sum(), (0, -2 * radius % 20)).astype(np.float32)


def motion_blur(key: jax.Array, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """A motion along a direction up to 45 degrees from the rows."""
    angle = jax.random.uniform(key, minval=-jnp.pi / 4, maxval=jnp.pi / 4)
    return move(image, kernel, angle)


def move(image: jax.Array, kernel: Array, angle: jax.Array) -> jax.Array:
    """ImageMagick's `-motion-blur` of an image `[H, W, C]` by a `motion_kernel`.

    The weighted sum of the image moved by 0, 1, ... pixels, whole ones along x and y; its border is continued. The
    angle, in radians from x towards y, is that in which the pixels lie that are added up. The result has the whole
    levels of a PNG of 8 bits, to which ImageMagick 6 cuts its 16 bits.
    """
    reach = len(kernel) - 1
    steps = jnp.arange(reach + 1)
    corners = [jnp.ceil(steps * along - 0.5).astype(jnp.int32) + reach for along in (jnp.sin(angle), jnp.cos(angle))]
    continued = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")

    def add(step, total):
        corner = (corners[0][step], corners[1][step], 0)
        return total + kernel[step] * jax.lax.dynamic_slice(continued, corner, image.shape)

    moved = jax.lax.fori_loop(0, jnp.count_nonzero(kernel), add, jnp.zeros_like(image))
    return jnp.floor(jnp.round(65535 * moved) / 257) / 255


# zoom


class Taps(NamedTuple):
    """Linear interpolation along an axis, for each zoom."""

    near: Array  # int32 [zooms, n] the first of two pixels
    first: Array  # [zooms, n] its weight
    second: Array  # [zooms, n] that of the pixel behind it


def zoom_taps(factors: tuple[float, ...], shape: tuple[int, int]) -> tuple[Taps, Taps]:
    """Of the rows and of the columns."""
    rows, columns = (_taps(np.stack([zoom_filter(size, factor) for factor in factors])) for size in shape)
    return rows, columns


def _taps(matrices: np.ndarray) -> Taps:
    near = np.minimum((matrices > 0).argmax(-1), matrices.shape[-1] - 2)
    first, second = (np.take_along_axis(matrices, near[..., None] + n, -1)[..., 0] for n in (0, 1))
    return Taps(near.astype(np.int32), first, second)


def zoom_blur(key: jax.Array, image: jax.Array, axes: tuple[Taps, Taps]) -> jax.Array:
    """Mean of the image and of its zooms."""
    del key

    def add(total, axes):
        rows, columns = axes
        zoomed = rows.first[:, None, None] * image[rows.near] + rows.second[:, None, None] * image[rows.near + 1]
        zoomed = (
            columns.first[:, None] * zoomed[:, columns.near] + columns.second[:, None] * zoomed[:, columns.near + 1]
        )
        return total + zoomed, None

    total, _ = jax.lax.scan(add, image, axes)
    return total / (len(axes[0].near) + 1)


def _zooms(*ranges: tuple[float, float]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(np.arange(1, end, step).tolist()) for end, step in ranges)


CORRUPTIONS = {
    "defocus_blur": Corruption(
        defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        lens,
    ),
    "glass_blur": Corruption(
        glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        glass,
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
