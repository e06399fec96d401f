"""Digital: contrast, elastic deformation, pixelation, JPEG and saturation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from anchor_jax.data.corruptions.common import Array, Corruption, filter_axes, gaussian_filter, sample


def contrast(key: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    """Draws each channel towards its mean."""
    del key
    mean = image.mean((0, 1))
    return factor * (image - mean) + mean


def saturate(key: jax.Array, image: jax.Array, constants: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Changes the saturation S of HSV to `factor * S + offset`, at most 1.

    With V and H as they are, each channel's distance from V grows as S does. A grey has the hue of red.
    """
    del key
    factor, offset = constants
    value = image.max(-1, keepdims=True)
    chroma = value - image.min(-1, keepdims=True)
    below = jnp.where(chroma > 0, (value - image) / chroma, jnp.array([0.0, 1.0, 1.0]))  # 1 at the least channel
    saturation = jnp.clip(factor * chroma / jnp.where(value > 0, value, 1) + offset, 0, 1)
    return value * (1 - below * saturation)


# elastic deformation


class Elastic(NamedTuple):
    """Constants of `elastic_transform` for one image size."""

    jitter: float  # pixels by which the corners of the affine map move
    reach: float  # amplitude of the displacements, in pixels before they are smoothed
    rows: Array  # [H, H] smooths the displacements down the columns
    columns: Array  # [W, W] along the rows


def elastic_constants(constants: tuple[float, float, float], shape: tuple[int, int]) -> Elastic:
    """The published lengths (reach, smoothing, jitter) are parts of the image's side."""
    reach, sigma, jitter = (min(shape) * part for part in constants)
    rows, columns = (gaussian_filter(size, sigma, mode="reflect", truncate=3) for size in shape)
    return Elastic(jitter, reach, rows, columns)


def elastic_transform(key: jax.Array, image: jax.Array, constants: Elastic) -> jax.Array:
    """A random affine map, then a displacement of every pixel."""
    affine_key, pixels_key = jax.random.split(key)
    shifts = constants.jitter * jax.random.uniform(affine_key, (3, 2), minval=-1, maxval=1)
    wanderings = constants.reach * jax.random.uniform(pixels_key, (*image.shape[:2], 2), minval=-1, maxval=1)
    wanderings = filter_axes(wanderings, constants.rows, constants.columns)
    return displace(warp_affine(image, shifts), wanderings[..., 0], wanderings[..., 1])


def warp_affine(image: jax.Array, shifts: jax.Array) -> jax.Array:
    """The affine map that moves three corners of a square in the middle by `shifts [3, 2]`, (x, y) in pixels.

    The corners are those at the lower right, the upper right and the upper left.
    """
    height, width, _ = image.shape
    side = min(height, width) // 3  # half of the square's
    corner = jnp.array([width // 2 + side, height // 2 + side], jnp.float32)
    along_x = jnp.array([1.0, 0.0]) + (shifts[1] - shifts[2]) / (2 * side)
    along_y = jnp.array([0.0, 1.0]) + (shifts[0] - shifts[1]) / (2 * side)
    y, x = pixels(image)
    dx, dy = x - corner[0] - shifts[0, 0], y - corner[1] - shifts[0, 1]
    determinant = along_x[0] * along_y[1] - along_x[1] * along_y[0]
    source_x = corner[0] + (along_y[1] * dx - along_y[0] * dy) / determinant
    source_y = corner[1] + (along_x[0] * dy - along_x[1] * dx) / determinant
    return sample(image, source_y, source_x, mode="mirror")


def displace(image: jax.Array, dy: jax.Array, dx: jax.Array) -> jax.Array:
    """The image `[H, W, C]` seen at every pixel plus a displacement `[H, W]`."""
    y, x = pixels(image)
    return sample(image, y + dy, x + dx, mode="reflect")


def pixels(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The coordinates y and x of every pixel, float32 `[H, W]`."""
    height, width, _ = image.shape
    y, x = jnp.mgrid[:height, :width]
    return y.astype(jnp.float32), x.astype(jnp.float32)


# pixelation


class Windows(NamedTuple):
    """What each pixel of one axis is the mean of, after shrinking and growing it."""

    members: Array  # [n, n] 1 where pixel j is in the window of pixel i
    weights: Array  # int32 [n] 2^22 / the number of them


def windows(part: float, shape: tuple[int, int]) -> tuple[Windows, Windows]:
    """Of Pillow's box filter down to `part` of the image and up again, for the rows and for the columns."""
    return _windows(part, shape[0]), _windows(part, shape[1])


def _windows(part: float, size: int) -> Windows:
    unit = Image.fromarray(np.eye(size, dtype=np.float32))
    shrunk = unit.resize((size, max(1, int(size * part))), Image.Resampling.BOX)
    members = np.asarray(shrunk.resize((size, size), Image.Resampling.BOX)) > 0
    weights = np.floor(2**22 / members.sum(1) + 0.5).astype(np.int32)
    return Windows(members.astype(np.float32), weights)


def pixelate(key: jax.Array, image: jax.Array, axes: tuple[Windows, Windows]) -> jax.Array:
    """Shrinks the image and grows it again, as Pillow's box filter does: along x, then along y, rounded each time."""
    del key
    rows, columns = axes
    levels = jnp.round(255 * image)
    levels = window_means(jnp.einsum("xw,hwc->hxc", columns.members, levels), columns.weights[:, None])
    levels = window_means(jnp.einsum("yh,hxc->yxc", rows.members, levels), rows.weights[:, None, None])
    return levels / 255


def window_means(sums: jax.Array, weights: Array) -> jax.Array:
    """Rounded means of whole numbers in fixed point with 22 binary places, as in Pillow."""
    return ((sums.astype(jnp.int32) * weights + (1 << 21)) >> 22).astype(jnp.float32)


# JPEG: what libjpeg, and so Pillow, computes with whole numbers

# quantisation of ITU-T T.81, annex K.1
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMINANCE = np.full((8, 8), 99)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# 2^13 sqrt(8) times the DCT, as the factored form of Loeffler, Ligtenberg and Moschytz rounds it ("islow" in libjpeg):
# of frequencies 0, 2, 4, 6 the left half, which the right one mirrors, and of 1, 3, 5, 7, where it changes sign
EVEN = np.array(
    [[8192, 8192, 8192, 8192], [10703, 4433, -4433, -10703], [8192, -8192, -8192, 8192], [4433, -10704, 10704, -4433]]
)
ODD = np.array(
    [[11363, 9633, 6437, 2260], [9633, -2259, -11362, -6436], [6437, -11362, 2261, 9633], [2260, -6436, 9633, -11363]]
)
DCT = (
    np.stack([np.hstack([EVEN, EVEN[:, ::-1]]), np.hstack([ODD, -ODD[:, ::-1]])], axis=1).reshape(8, 8).astype(np.int32)
)

# of JFIF, times 2^16
TO_YCBCR = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]], np.int32)
FROM_YCBCR = np.array([[0, 91881], [-22554, -46802], [116130, 0]], np.int32)


def quantisation(quality: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The tables int32 `[8, 8]` of luminance and chrominance."""
    del shape
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    luminance, chrominance = (np.clip((scale * table + 50) // 100, 1, 255) for table in (LUMINANCE, CHROMINANCE))
    return luminance.astype(np.int32), chrominance.astype(np.int32)


def jpeg_compression(key: jax.Array, image: jax.Array, tables: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Encodes and decodes JPEG, all but the part that loses nothing, with half of the resolution for colours."""
    del key
    height, width, _ = image.shape
    luminance, chrominance = tables
    levels = jnp.round(255 * image).astype(jnp.int32)
    offset = jnp.array([1 << 15, (128 << 16) + (1 << 15) - 1, (128 << 16) + (1 << 15) - 1])
    y, *colours = jnp.moveaxis((combine(levels, TO_YCBCR) + offset) >> 16, -1, 0)
    y = recode(y, luminance)
    half = (slice((height + 1) // 2), slice((width + 1) // 2))
    blue, red = (double(recode(halve(c), chrominance)[half])[:height, :width] - 128 for c in colours)
    chroma = shift_rounded(combine(jnp.stack([blue, red], -1), FROM_YCBCR), 16)
    return jnp.clip(y[..., None] + chroma, 0, 255) / 255


def recode(plane: jax.Array, table: jax.Array) -> jax.Array:
    """A plane int32 `[H, W]` of levels after its blocks of 8 x 8 went through DCT, quantisation and back."""
    height, width = plane.shape
    blocks = jnp.pad(plane, ((0, -height % 8), (0, -width % 8)), mode="edge") - 128
    blocks = blocks.reshape(-(-height // 8), 8, -(-width // 8), 8)
    blocks = transform(transform(blocks, DCT, 3, 11), DCT, 1, 15)
    step = 8 * table[:, None]
    blocks = table[:, None] * jnp.sign(blocks) * ((jnp.abs(blocks) + step // 2) // step)
    blocks = transform(transform(blocks, DCT.T, 1, 11), DCT.T, 3, 18)
    recoded = blocks.reshape(-(-height // 8) * 8, -(-width // 8) * 8)[:height, :width]
    return jnp.clip(recoded + 128, 0, 255)


def transform(blocks: jax.Array, matrix: np.ndarray, axis: int, places: int) -> jax.Array:
    """Blocks int32 `[H / 8, 8, W / 8, 8]` times a matrix along one axis, by 2^places, to the nearest."""
    product = combine(jnp.moveaxis(blocks, axis, -1), matrix)
    return jnp.moveaxis(shift_rounded(product, places), -1, axis)


def combine(numbers: jax.Array, matrix: np.ndarray) -> jax.Array:
    """`numbers @ matrix.T` of int32; for small matrices twice as fast on a CPU."""
    return (numbers[..., None, :] * matrix).sum(-1)


def shift_rounded(numbers: jax.Array, places: int) -> jax.Array:
    """Whole numbers by 2^places, to the nearest."""
    return (numbers + (1 << (places - 1))) >> places


def halve(plane: jax.Array) -> jax.Array:
    """Means of squares of 2 x 2, halves rounded down and up in turn."""
    height, width = plane.shape
    plane = jnp.pad(plane, ((0, height % 2), (0, -width % 16)), mode="edge")  # to whole blocks along x
    sums = plane[::2, ::2] + plane[::2, 1::2] + plane[1::2, ::2] + plane[1::2, 1::2]
    return (sums + 1 + jnp.arange(sums.shape[1]) % 2) >> 2


def double(plane: jax.Array) -> jax.Array:
    """Twice as many rows and columns, three parts of the nearest and one of the next ("fancy upsampling")."""
    padded = jnp.pad(plane, 1, mode="edge")
    near = 3 * padded[1:-1]
    rows = jnp.stack([near + padded[:-2], near + padded[2:]], axis=1).reshape(-1, padded.shape[1])
    near = 3 * rows[:, 1:-1]
    left, right = near + rows[:, :-2] + 8, near + rows[:, 2:] + 7
    return (jnp.stack([left, right], axis=-1) >> 4).reshape(len(rows), -1)


CORRUPTIONS = {
    "contrast": Corruption(contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": Corruption(
        elastic_transform,
        ((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        # published as parts of 244 pixels, for images of 224
        tuple(
            (244 / 224 * reach, 244 / 224 * sigma, 244 / 224 * jitter)
            for reach, sigma, jitter in (
                (2.0, 0.7, 0.1),
                (2.0, 0.08, 0.2),
                (0.05, 0.01, 0.02),
                (0.07, 0.01, 0.02),
                (0.12, 0.01, 0.02),
            )
        ),
        elastic_constants,
    ),
    "pixelate": Corruption(pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25), windows),
    "jpeg_compression": Corruption(jpeg_compression, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7), quantisation),
    "saturate": Corruption(
        saturate,
        ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),
        ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)),
    ),
}
