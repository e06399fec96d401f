"""Weather: snow, frost, fog and brightness."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.data.corruptions.blur import blur_along, motion_kernel
from anchor_jax.data.corruptions.corruption import Corruption
from anchor_jax.data.corruptions.filters import Array, filter_axes, luma, zoom_filter

# brightness


def brightness_table(added: float, shape: tuple[int, int]) -> tuple[float, np.ndarray]:
    """Return what is added to V, and the new level of each of the 256 levels of V, rounded as in float64."""
    del shape
    return added, np.around(255 * np.minimum(np.arange(256) / 255 + added, 1)).astype(np.float32)


def brightness(key: jax.Array, image: jax.Array, constants: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Increase the value V of HSV, up to 1; H and S are kept, so that each channel grows by the factor of V."""
    del key
    added, levels = constants
    value = image.max(-1, keepdims=True)
    brightest = levels[jnp.round(255 * value).astype(jnp.int32)] / 255
    others = image * jnp.minimum(value + added, 1) / jnp.where(value > 0, value, 1)
    return jnp.where(image == value, brightest, others)


# snow


class SnowConstants(NamedTuple):
    """Constants of `snow` for one image size."""

    mean: float  # of the normally distributed flakes
    std: float
    down: Array  # [H, H], zoom of the flakes down the columns
    along: Array  # [W, W], along the rows
    threshold: float  # flakes below it are removed
    kernel: Array  # of the motion blur of the flakes
    kept: float  # weight of the original image in the whitened one


def snow_constants(constants: tuple[float, ...], shape: tuple[int, int]) -> SnowConstants:
    """Prepare the published mean, std, zoom, threshold, radius and sigma of the motion blur, and weight."""
    mean, std, zoom, threshold, radius, sigma, kept = constants
    down, along = (zoom_filter(size, zoom) for size in shape)
    return SnowConstants(mean, std, down, along, threshold, motion_kernel((int(radius), sigma), shape), kept)


def snow(key: jax.Array, image: jax.Array, constants: SnowConstants) -> jax.Array:
    """Whiten, and add flakes that fall within 45 degrees of vertical, plus the same flakes rotated by 180 degrees."""
    flakes_key, angle_key = jax.random.split(key)
    flakes = constants.mean + constants.std * jax.random.normal(flakes_key, image.shape[:2])
    angle = jax.random.uniform(angle_key, minval=-3 / 4 * jnp.pi, maxval=-1 / 4 * jnp.pi)
    return add_snow(image, flakes, angle, constants)


def add_snow(image: jax.Array, flakes: jax.Array, angle: jax.Array, constants: SnowConstants) -> jax.Array:
    """Add snow made of normally distributed numbers `[H, W]`, blurred along an angle, see `blur_along`."""
    flakes = filter_axes(flakes, constants.down, constants.along)[..., None]
    flakes = jnp.floor(255 * jnp.clip(jnp.where(flakes < constants.threshold, 0, flakes), 0, 1)) / 255
    flakes = blur_along(flakes, constants.kernel, angle)
    white = jnp.maximum(image, 1.5 * luma(image) + 0.5)
    return constants.kept * image + (1 - constants.kept) * white + flakes + flakes[::-1, ::-1]


# frost


class FrostConstants(NamedTuple):
    """Constants of `frost` for one image size."""

    kept: float  # weight of the image
    added: float  # weight of the frost
    amplitudes: Array  # [textures, H, W // 2 + 1] of the frequencies, in levels
    needles: Array  # [directions, H, W // 2 + 1], spectra of needles


# Measured on the five photographs of frost in the published generator, two of which are nearly equal: FROST_TEXTURES
# maps each photograph to a row of the tables. Mean and standard deviation per channel, in levels, and power of the
# channels' mean at frequencies in cycles per pixel.
FROST_TEXTURES = np.array([0, 1, 1, 2, 3])
FROST_MEANS = np.array([[77, 148, 164], [199, 203, 212], [144, 159, 171], [102, 113, 125]], np.float32)
FROST_STDS = np.array([[26.9, 16.5, 15.3], [21.4, 22.1, 22.6], [28.5, 28.5, 29.9], [44.4, 43.3, 41.7]], np.float32)
FROST_FREQUENCIES = np.array([0.002, 0.006, 0.011, 0.02, 0.035, 0.063, 0.114, 0.206, 0.372, 0.6])
FROST_POWERS = np.array(
    [
        [6.0e6, 4.0e5, 3.8e4, 7.0e3, 1.7e3, 530, 310, 210, 64, 25],
        [1.9e6, 4.0e5, 2.2e4, 1.5e4, 7.3e3, 3900, 1000, 395, 90, 20],
        [1.9e6, 4.2e5, 1.9e4, 1.7e4, 1.1e4, 5300, 2600, 1150, 300, 80],
        [5.0e6, 4.8e5, 1.4e5, 8.3e4, 3.1e4, 9700, 3300, 1060, 350, 150],
    ]
)
_NUM_DIRECTIONS = 8


def frost_constants(constants: tuple[float, float, int], shape: tuple[int, int]) -> FrostConstants:
    """Prepare the published weights of image and frost, and the subsampling of the photographs."""
    kept, added, spacing = constants
    height, width = shape
    y, x = (np.fft.fftfreq(size * spacing) for size in shape)
    frequency = np.log(np.maximum(np.hypot(y[:, None], x), FROST_FREQUENCIES[0]))
    log_frequencies = np.log(FROST_FREQUENCIES)
    power = np.stack([np.exp(np.interp(frequency, log_frequencies, np.log(row))) for row in FROST_POWERS])
    power = power.reshape(-1, spacing, height, spacing, width).mean((1, 3))  # aliasing of the subsampled photograph
    amplitudes = np.sqrt(power)[..., : width // 2 + 1].astype(np.float32)
    angle = np.arctan2(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    needles = np.cos(angle - np.pi / _NUM_DIRECTIONS * np.arange(_NUM_DIRECTIONS)[:, None, None]) ** 20
    return FrostConstants(kept, added, amplitudes, (needles / np.linalg.norm(needles, axis=0)).astype(np.float32))


def frost(key: jax.Array, image: jax.Array, constants: FrostConstants) -> jax.Array:
    """Add synthetic frost with the color and spectrum of a random one of the published photographs."""
    texture_key, crystals_key = jax.random.split(key)
    texture = jnp.asarray(FROST_TEXTURES)[jax.random.randint(texture_key, (), 0, len(FROST_TEXTURES))]
    relief = ice_crystals(crystals_key, image.shape[:2], constants.amplitudes[texture], constants.needles)
    std = jnp.asarray(FROST_STDS)[texture]
    ice = jnp.asarray(FROST_MEANS)[texture] + std / std.mean() * relief[..., None]
    return constants.kept * image + constants.added * jnp.clip(ice, 0, 255) / 255


def ice_crystals(key: jax.Array, shape: tuple[int, ...], amplitudes: Array, needles: Array) -> jax.Array:
    """Return a texture of needles `[H, W]`, few of them strong: sparse noise, convolved per direction with a needle."""
    direction_key, normal_key = jax.random.split(key)
    direction = jax.random.bits(direction_key, shape, "uint8") % len(needles)
    strength = jax.random.normal(normal_key, shape) ** 3 * jnp.sqrt(len(needles) / 15)  # each direction's variance is 1
    sparse = jnp.where(direction == jnp.arange(len(needles))[:, None, None], strength, 0)
    spectrum = (jnp.fft.rfft2(sparse) * needles).sum(0) * amplitudes
    return jnp.fft.irfft2(spectrum, shape)


# fog


def fog(key: jax.Array, image: jax.Array, constants: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Add a plasma fractal, and scale the sum so that it does not exceed the image's maximum."""
    amount, decay = constants
    height, width, _ = image.shape
    plasma = plasma_fractal(key, 1 << (max(height, width) - 1).bit_length(), decay)[:height, :width, None]
    brightest = image.max()
    return (image + amount * plasma) * brightest / (brightest + amount)


def plasma_fractal(key: jax.Array, size: int, decay: jax.Array) -> jax.Array:
    """Return the heights `[size, size]` of the diamond-square algorithm, periodic, scaled to [0, 1].

    Args:
      key: PRNG key.
      size: a power of two.
      decay: factor by which the random amplitude decreases from one scale to the next, half as large.
    """
    noise = jax.random.uniform(key, (size * size,), minval=-1, maxval=1)
    heights, amplitude = jnp.zeros((1, 1)), 100.0
    while (n := len(heights)) < size:
        for_middle, for_top, for_left = amplitude**2 * noise[n**2 - 1 : 4 * n**2 - 1].reshape(3, n, n)
        below, right = jnp.roll(heights, -1, 0), jnp.roll(heights, -1, 1)
        middle = (heights + below + right + jnp.roll(below, -1, 1)) / 4 + for_middle
        top = (heights + right + middle + jnp.roll(middle, 1, 0)) / 4 + for_top
        left = (heights + below + middle + jnp.roll(middle, 1, 1)) / 4 + for_left
        quarters = jnp.stack([jnp.stack([heights, top], -1), jnp.stack([left, middle], -1)], axis=1)
        heights, amplitude = quarters.reshape(2 * n, 2 * n), amplitude / decay
    heights -= heights.min()
    return heights / heights.max()


CORRUPTIONS = {
    "snow": Corruption(
        snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        snow_constants,
    ),
    "frost": Corruption(
        frost,
        ((1.0, 0.2, 5), (1.0, 0.3, 5), (0.9, 0.4, 5), (0.85, 0.4, 5), (0.75, 0.45, 5)),
        ((1.0, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
        frost_constants,
    ),
    "fog": Corruption(
        fog,
        ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
        ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
    ),
    "brightness": Corruption(brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5), brightness_table),
}
