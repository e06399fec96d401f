"""JPEG compression in the integer arithmetic of libjpeg, and therefore of Pillow."""

import jax
import jax.numpy as jnp
import numpy as np

# quantization tables of ITU-T T.81, annex K.1
_LUMINANCE = np.array(
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
_CHROMINANCE = np.full((8, 8), 99)
_CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# 2^13 sqrt(8) times the DCT, rounded like the factored form of Loeffler, Ligtenberg and Moschytz ("islow" in libjpeg):
# the left halves of frequencies 0, 2, 4, 6, whose right half mirrors the left one, and of 1, 3, 5, 7, where the
# mirrored half changes sign
_EVEN = np.array(
    [[8192, 8192, 8192, 8192], [10703, 4433, -4433, -10703], [8192, -8192, -8192, 8192], [4433, -10704, 10704, -4433]]
)
_ODD = np.array(
    [[11363, 9633, 6437, 2260], [9633, -2259, -11362, -6436], [6437, -11362, 2261, 9633], [2260, -6436, 9633, -11363]]
)
_DCT = (
    np.stack([np.hstack([_EVEN, _EVEN[:, ::-1]]), np.hstack([_ODD, -_ODD[:, ::-1]])], axis=1)
    .reshape(8, 8)
    .astype(np.int32)
)

# color conversion of JFIF, times 2^16
_TO_YCBCR = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]], np.int32)
_FROM_CBCR = np.array([[0, 91881], [-22554, -46802], [116130, 0]], np.int32)


def quantization_tables(quality: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the quantization tables of luminance and chrominance, int32 `[8, 8]`, for a quality in 1..100."""
    del shape
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    luminance, chrominance = (np.clip((scale * table + 50) // 100, 1, 255) for table in (_LUMINANCE, _CHROMINANCE))
    return luminance.astype(np.int32), chrominance.astype(np.int32)


def jpeg_compression(key: jax.Array, image: jax.Array, tables: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Encode and decode as JPEG, without the lossless part, with chroma at half the resolution.

    Args:
      key: ignored.
      image: float32 `[H, W, 3]` in [0, 1].
      tables: see `quantization_tables`.
    """
    del key
    height, width, _ = image.shape
    luminance, chrominance = tables
    levels = jnp.round(255 * image).astype(jnp.int32)
    offset = jnp.array([1 << 15, (128 << 16) + (1 << 15) - 1, (128 << 16) + (1 << 15) - 1])
    y, *chroma = jnp.moveaxis((_matmul(levels, _TO_YCBCR) + offset) >> 16, -1, 0)
    y = _recode(y, luminance)
    half = (slice((height + 1) // 2), slice((width + 1) // 2))
    cb, cr = (_upsample(_recode(_downsample(c), chrominance)[half])[:height, :width] - 128 for c in chroma)
    color = _shift_rounded(_matmul(jnp.stack([cb, cr], -1), _FROM_CBCR), 16)
    return jnp.clip(y[..., None] + color, 0, 255) / 255


def _recode(plane: jax.Array, table: jax.Array) -> jax.Array:
    """Apply DCT, quantization and their inverses to the 8 x 8 blocks of a plane of levels int32 `[H, W]`."""
    height, width = plane.shape
    blocks = jnp.pad(plane, ((0, -height % 8), (0, -width % 8)), mode="edge") - 128
    blocks = blocks.reshape(-(-height // 8), 8, -(-width // 8), 8)
    blocks = _transform(_transform(blocks, _DCT, 3, 11), _DCT, 1, 15)
    step = 8 * table[:, None]
    blocks = table[:, None] * jnp.sign(blocks) * ((jnp.abs(blocks) + step // 2) // step)
    blocks = _transform(_transform(blocks, _DCT.T, 1, 11), _DCT.T, 3, 18)
    recoded = blocks.reshape(-(-height // 8) * 8, -(-width // 8) * 8)[:height, :width]
    return jnp.clip(recoded + 128, 0, 255)


def _transform(blocks: jax.Array, matrix: np.ndarray, axis: int, bits: int) -> jax.Array:
    """Multiply blocks int32 `[H / 8, 8, W / 8, 8]` by a matrix along one axis, and divide by 2^bits, rounded."""
    product = _matmul(jnp.moveaxis(blocks, axis, -1), matrix)
    return jnp.moveaxis(_shift_rounded(product, bits), -1, axis)


def _matmul(numbers: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Compute `numbers @ matrix.T` of int32; for small matrices twice as fast on a CPU."""
    return (numbers[..., None, :] * matrix).sum(-1)


def _shift_rounded(numbers: jax.Array, bits: int) -> jax.Array:
    """Divide integers by 2^bits, rounded to the nearest."""
    return (numbers + (1 << (bits - 1))) >> bits


def _downsample(plane: jax.Array) -> jax.Array:
    """Return means of 2 x 2 pixels; halves are rounded down and up alternately."""
    height, width = plane.shape
    plane = jnp.pad(plane, ((0, height % 2), (0, -width % 16)), mode="edge")  # to complete blocks along x
    sums = plane[::2, ::2] + plane[::2, 1::2] + plane[1::2, ::2] + plane[1::2, 1::2]
    return (sums + 1 + jnp.arange(sums.shape[1]) % 2) >> 2


def _upsample(plane: jax.Array) -> jax.Array:
    """Double rows and columns, with weights 3/4 and 1/4 of the nearest and the next pixel ("fancy upsampling")."""
    padded = jnp.pad(plane, 1, mode="edge")
    near = 3 * padded[1:-1]
    rows = jnp.stack([near + padded[:-2], near + padded[2:]], axis=1).reshape(-1, padded.shape[1])
    near = 3 * rows[:, 1:-1]
    left, right = near + rows[:, :-2] + 8, near + rows[:, 2:] + 7
    return (jnp.stack([left, right], axis=-1) >> 4).reshape(len(rows), -1)
