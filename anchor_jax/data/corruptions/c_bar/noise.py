"""Noise of C-bar: waves, rings, plasma, Perlin noise, and noise with a given spectrum."""

import jax
import jax.numpy as jnp

from anchor_jax.data.corruptions.c_bar.coordinates import axes, offsets, shorter_side
from anchor_jax.data.corruptions.corruption import Corruption

PERLIN_TABLE = 256  # number of gradients, which the lattice points share


def single_frequency_greyscale(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Add a gray plane wave."""
    larger_key, smaller_key, order_key, phase_key = jax.random.split(key, 4)
    larger = jax.random.uniform(larger_key, minval=-jnp.pi, maxval=jnp.pi)
    smaller = jnp.abs(larger) * jax.random.uniform(smaller_key, minval=-1, maxval=1)
    frequency = jax.random.permutation(order_key, jnp.stack([larger, smaller]))
    phase = jax.random.uniform(phase_key, maxval=2 * jnp.pi)
    return add_wave(image, frequency, phase, 19.6 / 255 * level)


def add_wave(image: jax.Array, frequency: jax.Array, phase: jax.Array, intensity: jax.Array) -> jax.Array:
    """Add a wave with a frequency `[2]`, in radians per pixel along y and x."""
    y, x = axes(image)
    return image + intensity * jnp.sin(frequency[0] * y + frequency[1] * x + phase)[..., None]


def cocentric_sine_waves(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Add wavy gray rings, each a ramp from dark to bright."""
    center_key, frequency_key, amplitude_key, width_key = jax.random.split(key, 4)
    center = jax.random.uniform(center_key, (2,)) * jnp.array(image.shape[:2])
    frequency = jax.random.uniform(frequency_key, maxval=10)
    amplitude = jax.random.uniform(amplitude_key) * shorter_side(image) / 10
    width = (1 - jax.random.uniform(width_key)) * shorter_side(image) / 10  # never 0, because it is a divisor
    return add_rings(image, center, frequency, amplitude, width, 12.8 / 255 * level)


def add_rings(
    image: jax.Array,
    center: jax.Array,
    frequency: jax.Array,
    amplitude: jax.Array,
    width: jax.Array,
    intensity: jax.Array,
) -> jax.Array:
    """Add rings around a center (y, x).

    Args:
      image: `[H, W, 3]`.
      center: `[2]`, in pixels.
      frequency: of the wave along each ring, in periods per turn.
      amplitude: of the wave, in pixels.
      width: of a ring, in pixels.
      intensity: range of the ramp.
    """
    dy, dx = offsets(image, center)
    distance = jnp.hypot(dy, dx) + amplitude * jnp.sin(frequency * jnp.arctan2(dx, dy))
    return image + intensity * (jnp.mod(distance, width) / width - 0.5)[..., None]


def plasma_noise(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Blend with colored clouds that are folded into each other."""
    time_key, folds_key, sharpness_key, scale_key = jax.random.split(key, 4)
    time = jax.random.uniform(time_key, maxval=6 * jnp.pi)
    folds = jax.random.randint(folds_key, (), 4, 7)
    sharpness = jax.random.uniform(sharpness_key, minval=0.5, maxval=1)
    scale = jax.random.uniform(scale_key, minval=0.075, maxval=0.2) * shorter_side(image)
    return blend_plasma(image, time, folds, sharpness, scale, 6.4 / 255 * level)


def blend_plasma(
    image: jax.Array,
    time: jax.Array,
    folds: jax.Array,
    sharpness: jax.Array,
    scale: jax.Array,
    intensity: jax.Array,
) -> jax.Array:
    """Blend with waves of the three colors in folded coordinates.

    Args:
      image: `[H, W, 3]`.
      time: phase of the waves.
      folds: number of folds, int.
      sharpness: of the folds, in [0.5, 1].
      scale: of the waves, in pixels.
      intensity: weight of the plasma, in [0, 1].
    """

    def fold(n, position):
        y, x = position
        turn = time / 1.15**n
        across, along = jnp.cos(1.93**n * y + turn), jnp.sin(1.93**n * x + turn)
        size = (2.25 - sharpness) ** n
        return y + (along + 0.3 * across) / size, x + (across - 0.3 * along) / size

    y, x = jnp.broadcast_arrays(*axes(image))
    y, x = jax.lax.fori_loop(0, folds, fold, (y / scale, x / scale))
    plasma = jnp.stack([jnp.sin(x - time), jnp.sin((x + y + jnp.sin(time)) / 2), jnp.sin(y + time)], axis=-1)
    return (1 - intensity) * image + intensity * plasma


def perlin_noise(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Blend with Perlin turbulence of seven cells per side."""
    order_key, gradients_key = jax.random.split(key)
    order = jax.random.permutation(order_key, PERLIN_TABLE)
    gradients = jax.random.uniform(gradients_key, (PERLIN_TABLE, 2), minval=-1, maxval=1)
    gradients /= jnp.linalg.norm(gradients, axis=1, keepdims=True)
    return blend_turbulence(image, order, gradients, 0.05 * level)


def blend_turbulence(image: jax.Array, order: jax.Array, gradients: jax.Array, alpha: jax.Array) -> jax.Array:
    """Blend with turbulence of seven cells per side, with the weight `alpha`; see `perlin`."""
    y, x = (7 / shorter_side(image) * axis for axis in axes(image))
    noise = jnp.clip(0.5 * turbulence(y, x, order, gradients) + 0.5, 0, 1)[..., None]
    return (1 - alpha) * image + alpha * noise


def turbulence(y: jax.Array, x: jax.Array, order: jax.Array, gradients: jax.Array) -> jax.Array:
    """Return the sum of the absolute values of five octaves of Perlin noise, at positions in cells of the largest."""

    def add(n, total):
        frequency = 2.0**n
        return total + jnp.abs(perlin(frequency * y, frequency * x, order, gradients)) / frequency

    return jax.lax.fori_loop(0, 5, add, jnp.zeros(jnp.broadcast_shapes(y.shape, x.shape)))


def perlin(y: jax.Array, x: jax.Array, order: jax.Array, gradients: jax.Array) -> jax.Array:
    """Return gradient noise.

    Args:
      y: positions, in cells.
      x: positions, in cells.
      order: a permutation `[PERLIN_TABLE]`, which hashes lattice points.
      gradients: `[PERLIN_TABLE, 2]`.
    """
    gradients = gradients[order]
    top, left = jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
    dy, dx = y - top, x - left

    def ramp(down, right):
        """Return the value of the linear ramp of one corner."""
        row = order[(top + down) % PERLIN_TABLE]
        gradient = gradients[(row + left + right) % PERLIN_TABLE]
        return gradient[..., 0] * (dy - down) + gradient[..., 1] * (dx - right)

    along_y, along_x = (d**2 * (3 - 2 * d) for d in (dy, dx))
    left_side = ramp(0, 0) + along_y * (ramp(1, 0) - ramp(0, 0))
    right_side = ramp(0, 1) + along_y * (ramp(1, 1) - ramp(0, 1))
    return 1.5 * (left_side + along_x * (right_side - left_side))


def brownish_noise(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Add colored noise whose amplitude falls with the square of the frequency."""
    height, width, channels = image.shape
    phases = jax.vmap(lambda key: random_phases(key, height, width))(jax.random.split(key, channels))
    return add_brownish(image, phases, 6.4 / 255 * level)


def add_brownish(image: jax.Array, phases: jax.Array, intensity: jax.Array) -> jax.Array:
    """Add to each channel the noise with its phases `[3, H, W]`."""
    amplitudes = 1 / (1 + _frequencies(image) ** 2)
    return image + intensity * jax.vmap(spectral_noise, in_axes=(0, None), out_axes=-1)(phases, amplitudes)


def blue_noise_sample(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Set pixels to black where noise, whose amplitude grows with the frequency, is below a threshold."""
    return keep_above(image, random_phases(key, *image.shape[:2]), 0.3 * level - 2.5)


def keep_above(image: jax.Array, phases: jax.Array, threshold: jax.Array) -> jax.Array:
    """Keep the pixels where noise with phases `[H, W]` is above a threshold, in standard deviations."""
    return image * (spectral_noise(phases, _frequencies(image)) > threshold)[..., None]


def random_phases(key: jax.Array, height: int, width: int) -> jax.Array:
    """Draw phases `[H, W]` in [0, 2 pi) that do not change if the array is rotated by 180 degrees."""
    half = jax.random.uniform(key, (height * width // 2,), maxval=2 * jnp.pi)
    return jnp.concatenate([half, jnp.zeros(height * width % 2), half[::-1]]).reshape(height, width)


def spectral_noise(phases: jax.Array, amplitudes: jax.Array) -> jax.Array:
    """Return noise `[H, W]` with a standard deviation of 1, from a spectrum with the frequency 0 at its center."""
    noise = jnp.fft.ifft2(jnp.fft.ifftshift(amplitudes * jnp.exp(1j * phases))).real
    return noise / noise.std()


def _frequencies(image: jax.Array) -> jax.Array:
    """Return the distance `[H, W]` from the center of the spectrum."""
    return jnp.hypot(*offsets(image, jnp.array(image.shape[:2]) // 2))


# Levels of severity 1..5 in CIFAR-10-C-bar (small) and ImageNet-C-bar (large). If a set lacks a corruption, they are
# the 1st, 3rd, 5th, 7th and 9th of the ten that the generator lists for the image size (cifar10_new_corruptions.csv,
# imagenet_new_corruptions.csv).
CORRUPTIONS = {
    "blue_noise_sample": Corruption(blue_noise_sample, (0.7, 1.4, 2.1, 3.5, 4.2), (0.8, 1.6, 2.4, 4.0, 5.6)),
    "brownish_noise": Corruption(brownish_noise, (2.5, 4.0, 5.5, 6.5, 7.0), (1.0, 2.0, 3.0, 4.0, 5.0)),
    # in ImageNet-C-bar only
    "cocentric_sine_waves": Corruption(cocentric_sine_waves, (0.5, 1.5, 2.5, 3.5, 4.5), (3.0, 5.0, 8.0, 9.0, 10.0)),
    "perlin_noise": Corruption(perlin_noise, (4.6, 5.8, 7.0, 8.2, 9.4), (4.6, 5.2, 5.8, 7.6, 8.8)),
    "plasma_noise": Corruption(plasma_noise, (0.7, 2.1, 3.5, 4.9, 6.3), (4.75, 7.0, 8.5, 9.25, 10.0)),
    "single_frequency_greyscale": Corruption(
        single_frequency_greyscale, (0.3, 0.9, 1.5, 2.1, 2.7), (1.0, 1.5, 2.0, 4.5, 5.0)
    ),
}
