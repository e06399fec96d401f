"""The corruptions of CIFAR-10-C-bar and ImageNet-C-bar, on the device.

Source: Mintun, Kirillov, Xie, "On Interaction Between Augmentations and Corruptions in Natural Corruption Robustness",
NeurIPS 2021 (arXiv 2102.11273), and its generator, `imagenet_c_bar/corrupt.py` of facebookresearch/augmentation-
corruption (MIT licence), from which the formulas, the ranges of what is drawn and the severities are taken.

Each corruption is two functions: `name(key, image, level)` draws what is random, as the generator does, and hands it to
a function of the image and of those values alone. Images are float32 `[H, W, 3]` in [0, 1], and what is returned may
leave that range: the caller clips it. A `level` is the generator's own severity, a number up to 10 (see `CORRUPTIONS`
for the five that count as severity 1..5). Positions are (y, x) in pixels. The generator's images are square; where one
is not, lengths that depend on its side depend on the shorter one. Names are spelled as the data sets spell them.

Given the same random values, the generator's pixels are met but for rounding (docs/results/c_bar_published.json). What
is different on purpose:

- Pixels are cut to whole levels of 0..255 there; our caller rounds them, which is half a level brighter on average.
- `lines` are cut to whole levels after each line there.
- The gradients of `perlin_noise` are drawn from 512 x 512 points of a square there, of which one has no direction and
  turns parts of one image in a thousand black; here from the whole square.
- The displacements of `caustic_refraction` are rounded to a thousandth of a pixel there.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from anchor_jax.data.corruptions.common import Corruption, filter_axes, gaussian_filter, sample

GREY = 128 / 255  # what `lines` and `checkerboard_cutout` paint
MAX_RAYS = 200  # of a sparkle
PERLIN_TABLE = 256  # gradients that the lattice shares


# noise


def single_frequency_greyscale(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """A grey plane wave."""
    larger_key, smaller_key, order_key, phase_key = jax.random.split(key, 4)
    larger = jax.random.uniform(larger_key, minval=-jnp.pi, maxval=jnp.pi)
    smaller = jnp.abs(larger) * jax.random.uniform(smaller_key, minval=-1, maxval=1)
    frequency = jax.random.permutation(order_key, jnp.stack([larger, smaller]))
    phase = jax.random.uniform(phase_key, maxval=2 * jnp.pi)
    return add_wave(image, frequency, phase, 19.6 / 255 * level)


def add_wave(image: jax.Array, frequency: jax.Array, phase: jax.Array, intensity: jax.Array) -> jax.Array:
    """Adds a wave of a frequency `[2]`, in radians a pixel along y and x."""
    y, x = _axes(image)
    return image + intensity * jnp.sin(frequency[0] * y + frequency[1] * x + phase)[..., None]


def cocentric_sine_waves(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Wavy grey rings, each a ramp from dark to bright."""
    center_key, frequency_key, amplitude_key, width_key = jax.random.split(key, 4)
    center = jax.random.uniform(center_key, (2,)) * jnp.array(image.shape[:2])
    frequency = jax.random.uniform(frequency_key, maxval=10)
    amplitude = jax.random.uniform(amplitude_key) * _side(image) / 10
    width = (1 - jax.random.uniform(width_key)) * _side(image) / 10  # never 0, by which we divide
    return add_rings(image, center, frequency, amplitude, width, 12.8 / 255 * level)


def add_rings(
    image: jax.Array,
    center: jax.Array,
    frequency: jax.Array,
    amplitude: jax.Array,
    width: jax.Array,
    intensity: jax.Array,
) -> jax.Array:
    """Adds rings of a width, each with a wave of a frequency (periods a turn) and an amplitude; lengths in pixels."""
    dy, dx = _offsets(image, center)
    distance = jnp.hypot(dy, dx) + amplitude * jnp.sin(frequency * jnp.arctan2(dx, dy))
    return image + intensity * (jnp.mod(distance, width) / width - 0.5)[..., None]


def plasma_noise(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Coloured clouds folded into each other."""
    time_key, folds_key, sharpness_key, scale_key = jax.random.split(key, 4)
    time = jax.random.uniform(time_key, maxval=6 * jnp.pi)
    folds = jax.random.randint(folds_key, (), 4, 7)
    sharpness = jax.random.uniform(sharpness_key, minval=0.5, maxval=1)
    scale = jax.random.uniform(scale_key, minval=0.075, maxval=0.2) * _side(image)
    return blend_plasma(image, time, folds, sharpness, scale, 6.4 / 255 * level)


def blend_plasma(
    image: jax.Array,
    time: jax.Array,
    folds: jax.Array,
    sharpness: jax.Array,
    scale: jax.Array,
    intensity: jax.Array,
) -> jax.Array:
    """Takes so much of waves of the three colours that were folded a number of times, on a scale in pixels."""

    def fold(n, position):
        y, x = position
        turn = time / 1.15**n
        across, along = jnp.cos(1.93**n * y + turn), jnp.sin(1.93**n * x + turn)
        size = (2.25 - sharpness) ** n
        return y + (along + 0.3 * across) / size, x + (across - 0.3 * along) / size

    y, x = jnp.broadcast_arrays(*_axes(image))
    y, x = jax.lax.fori_loop(0, folds, fold, (y / scale, x / scale))
    plasma = jnp.stack([jnp.sin(x - time), jnp.sin((x + y + jnp.sin(time)) / 2), jnp.sin(y + time)], axis=-1)
    return (1 - intensity) * image + intensity * plasma


def perlin_noise(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Blends the image with Perlin's turbulence, seven cells a side."""
    order_key, gradients_key = jax.random.split(key)
    order = jax.random.permutation(order_key, PERLIN_TABLE)
    gradients = jax.random.uniform(gradients_key, (PERLIN_TABLE, 2), minval=-1, maxval=1)
    gradients /= jnp.linalg.norm(gradients, axis=1, keepdims=True)
    return blend_turbulence(image, order, gradients, 0.05 * level)


def blend_turbulence(image: jax.Array, order: jax.Array, gradients: jax.Array, alpha: jax.Array) -> jax.Array:
    """Takes so much of a turbulence with seven cells a side."""
    y, x = (7 / _side(image) * axis for axis in _axes(image))
    noise = jnp.clip(0.5 * turbulence(y, x, order, gradients) + 0.5, 0, 1)[..., None]
    return (1 - alpha) * image + alpha * noise


def turbulence(y: jax.Array, x: jax.Array, order: jax.Array, gradients: jax.Array) -> jax.Array:
    """Sum of five octaves of Perlin noise, each without its sign, at positions in cells of the largest."""

    def add(n, total):
        frequency = 2.0**n
        return total + jnp.abs(perlin(frequency * y, frequency * x, order, gradients)) / frequency

    return jax.lax.fori_loop(0, 5, add, jnp.zeros(jnp.broadcast_shapes(y.shape, x.shape)))


def perlin(y: jax.Array, x: jax.Array, order: jax.Array, gradients: jax.Array) -> jax.Array:
    """Gradient noise at positions in cells: the gradient of a corner is found by hashing it with a permutation."""
    gradients = gradients[order]
    top, left = jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
    dy, dx = y - top, x - left

    def slope(down, right):
        """The value that the gradient of one corner gives."""
        row = order[(top + down) % PERLIN_TABLE]
        gradient = gradients[(row + left + right) % PERLIN_TABLE]
        return gradient[..., 0] * (dy - down) + gradient[..., 1] * (dx - right)

    along_y, along_x = (d**2 * (3 - 2 * d) for d in (dy, dx))
    left_side = slope(0, 0) + along_y * (slope(1, 0) - slope(0, 0))
    right_side = slope(0, 1) + along_y * (slope(1, 1) - slope(0, 1))
    return 1.5 * (left_side + along_x * (right_side - left_side))


def brownish_noise(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Adds coloured noise with an amplitude that falls with the square of the frequency."""
    height, width, channels = image.shape
    phases = jax.vmap(lambda key: random_phases(key, height, width))(jax.random.split(key, channels))
    return add_brownish(image, phases, 6.4 / 255 * level)


def add_brownish(image: jax.Array, phases: jax.Array, intensity: jax.Array) -> jax.Array:
    """Adds to each channel the noise of its phases `[3, H, W]`."""
    amplitudes = 1 / (1 + _frequencies(image) ** 2)
    return image + intensity * jax.vmap(spectral_noise, in_axes=(0, None), out_axes=-1)(phases, amplitudes)


def blue_noise_sample(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Blackens the pixels where noise with an amplitude that grows with the frequency is low."""
    return keep_above(image, random_phases(key, *image.shape[:2]), 0.3 * level - 2.5)


def keep_above(image: jax.Array, phases: jax.Array, threshold: jax.Array) -> jax.Array:
    """Keeps the pixels where the noise of phases `[H, W]` is above a threshold, in standard deviations."""
    return image * (spectral_noise(phases, _frequencies(image)) > threshold)[..., None]


def random_phases(key: jax.Array, height: int, width: int) -> jax.Array:
    """Phases `[H, W]` in [0, 2 pi) that half a turn of the picture leaves as they are."""
    half = jax.random.uniform(key, (height * width // 2,), maxval=2 * jnp.pi)
    return jnp.concatenate([half, jnp.zeros(height * width % 2), half[::-1]]).reshape(height, width)


def spectral_noise(phases: jax.Array, amplitudes: jax.Array) -> jax.Array:
    """Noise `[H, W]` of unit standard deviation from a spectrum with the frequency 0 in the middle."""
    noise = jnp.fft.ifft2(jnp.fft.ifftshift(amplitudes * jnp.exp(1j * phases))).real
    return noise / noise.std()


# things in front of the image


def sparkles(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Five white stars with rays of random lengths."""
    center_key, rays_key, length_key = jax.random.split(key, 3)
    centers = jax.random.uniform(center_key, (5, 2)) * jnp.array(image.shape[:2])
    rays = jax.random.randint(rays_key, (5,), 50, MAX_RAYS)
    radius = 0.01 * level * _side(image)
    lengths = jnp.maximum(1, radius * (1 + 0.25 * jax.random.normal(length_key, (5, MAX_RAYS))))
    return add_stars(image, centers, lengths, rays)


def add_stars(image: jax.Array, centers: jax.Array, lengths: jax.Array, rays: jax.Array) -> jax.Array:
    """White light of N stars: centers `[N, 2]`, ray lengths `[N, R]`, the number of them that each star has `[N]`."""
    light = jax.vmap(glow, in_axes=(None, 0, 0, 0, None))(image, centers, lengths, rays, 1.0)
    return 1 - jnp.prod(1 - light, axis=0) * (1 - image)


def inverse_sparkles(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """The image within a star, white around it."""
    center_key, rays_key, length_key = jax.random.split(key, 3)
    center = jax.random.uniform(center_key, (2,), minval=0.25, maxval=0.75) * jnp.array(image.shape[:2])
    rays = jax.random.randint(rays_key, (), 50, MAX_RAYS)
    lengths = 0.25 * _side(image) * (1 + 0.25 * jax.random.normal(length_key, (MAX_RAYS,)))
    return show_in_star(image, center, lengths, rays, 0.13 * level)


def show_in_star(
    image: jax.Array, center: jax.Array, lengths: jax.Array, rays: jax.Array, power: jax.Array
) -> jax.Array:
    """The image where a star glows, white elsewhere."""
    return 1 - glow(image, center, lengths, rays, power) * (1 - image)


def glow(
    image: jax.Array, center: jax.Array, lengths: jax.Array, rays: jax.Array, power: jax.Array | float
) -> jax.Array:
    """Light `[H, W, 1]` in [0, 1] of a star: the first `rays` of `lengths` `[R]` divide the circle evenly."""
    dy, dx = _offsets(image, center)
    turns = (jnp.arctan2(dx, dy) + jnp.pi) / (2 * jnp.pi) * rays
    ray = jnp.floor(turns).astype(jnp.int32)
    between = turns - ray
    # each ray with the next one: one lookup for both is three times as fast on a CPU
    pairs = jnp.stack([lengths, lengths[(jnp.arange(len(lengths)) + 1) % rays]], axis=1)[ray % rays]
    length = (1 - between) * pairs[..., 0] + between * pairs[..., 1]
    falloff = (length**2 / (dy**2 + dx**2 + 1e-4)) ** power
    return jnp.clip((1 - (between - 0.5) ** 2) * falloff, 0, 1)[..., None]


def checkerboard_cutout(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Some of one colour's squares of a turned chessboard are painted grey."""
    angle_key, side_key, square_key = jax.random.split(key, 3)
    angle = jax.random.uniform(angle_key, maxval=2 * jnp.pi)
    side = jnp.maximum(1, jax.random.uniform(side_key, minval=0.1, maxval=0.25) * _side(image))
    reach = math.ceil(math.hypot(*image.shape[:2]) / max(1, 0.1 * _side(image)))
    squares = jax.random.bernoulli(square_key, level / 10, (2 * reach, 2 * reach))
    return cut_out_squares(image, angle, side, squares)


def cut_out_squares(image: jax.Array, angle: jax.Array, side: jax.Array, squares: jax.Array) -> jax.Array:
    """Paints the chosen `squares`, bool `[2 R, 2 R]`, of which `[R, R]` begins at the image's corner."""
    y, x = _axes(image)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    row = jnp.floor((cos * y + sin * x) / side).astype(jnp.int32)
    column = jnp.floor((cos * x - sin * y) / side).astype(jnp.int32)
    reach = len(squares) // 2
    chosen = squares[row + reach, column + reach] & ((row + column) % 2 == 0)
    return jnp.where(chosen[..., None], GREY, image)


def lines(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Grey lines that are two sides of the image long, around one direction."""
    angle_key, variation_key, line_key = jax.random.split(key, 3)
    angle = jax.random.uniform(angle_key, maxval=2 * jnp.pi)
    variation = jax.random.uniform(variation_key, minval=0.1, maxval=1)
    side = _side(image)
    drawn = jax.random.uniform(line_key, (side, 3))  # as many as at level 10
    centers = drawn[:, :2] * jnp.array(image.shape[:2])
    along = angle + 2 * jnp.pi * variation * (drawn[:, 2] - 0.5)
    halves = side * jnp.stack([jnp.cos(along), jnp.sin(along)], axis=1)
    ends = jnp.trunc(jnp.stack([centers - halves, centers + halves], axis=1))
    return draw_lines(image, ends, jnp.floor(level * side / 10).astype(jnp.int32))


def draw_lines(image: jax.Array, ends: jax.Array, num_lines: jax.Array) -> jax.Array:
    """Draws the first lines of N, of which the ends (y, x) are given, `[N, 2, 2]`, over each other."""

    def uncovered_by_next(n, uncovered):
        return uncovered * (1 - line(image, *ends[n]))

    uncovered = jax.lax.fori_loop(0, num_lines, uncovered_by_next, jnp.ones((*image.shape[:2], 1)))
    return GREY + uncovered * (image - GREY)


def line(image: jax.Array, start: jax.Array, end: jax.Array) -> jax.Array:
    """Cover `[H, W, 1]` in [0, 1] of a smooth line: 1 less the distance to it, in the rectangle of its ends.

    That is what the Bresenham algorithm of scikit-image's `line_aa` walks over.
    """
    extent, direction = jnp.abs(end - start), jnp.where(end >= start, 1, -1)
    down, right = (d * offset for d, offset in zip(direction, _offsets(image, start), strict=True))
    distance = jnp.abs(extent[1] * down - extent[0] * right) / jnp.hypot(*extent)
    inside = (down >= 0) & (down <= extent[0]) & (right >= 0) & (right <= extent[1])
    return jnp.where(inside, jnp.maximum(0, 1 - distance), 0)[..., None]


# warps and blurs


def pinch_and_twirl(key: jax.Array, image: jax.Array, severity: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Every disc of a square grid is pinched and turned, clockwise or against the clock."""
    level, num_per_side = severity
    clockwise = jax.random.rademacher(key, (5, 5), jnp.float32)
    return twirl(image, jnp.pi / 20 * level * clockwise, 0.04 * level + 0.1, num_per_side)


def twirl(image: jax.Array, angles: jax.Array, power: jax.Array, num_per_side: jax.Array) -> jax.Array:
    """Turns disc (i, j), i along x, by `angles[i, j]` radians at its middle, and draws it to there."""
    discs, offsets = [], []
    for axis, size in zip(_axes(image), image.shape[:2], strict=True):
        diameter = size // num_per_side
        disc = jnp.floor(axis / diameter).astype(jnp.int32)
        discs.append(disc)
        offsets.append(axis - diameter * (disc + 0.5))
    radius = _side(image) // num_per_side / 2
    (row, column), (dy, dx) = discs, offsets
    distance = jnp.clip(jnp.hypot(dy, dx) / radius, 1e-3, 1)  # the rim and what lies beyond it stay where they are
    in_disc = (row < num_per_side) & (column < num_per_side)
    angle = jnp.where(in_disc, angles[column, row], 0) * (1 - distance) ** 2
    stretch = jnp.where(in_disc, jnp.sin(jnp.pi / 2 * distance) ** -power, 1)
    cos, sin = stretch * jnp.cos(angle), stretch * jnp.sin(angle)
    return _displaced(image, cos * dy - sin * dx - dy, sin * dy + cos * dx - dx)


def ripple(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """The image seen through a wave along each axis."""
    length_key, phase_key = jax.random.split(key)
    lengths = jax.random.uniform(length_key, (2,), minval=0.1, maxval=0.3) * _side(image)
    phases = jax.random.uniform(phase_key, (2,), maxval=2 * jnp.pi)
    return wave_warp(image, 0.0025 * level * _side(image), lengths, phases)


def wave_warp(image: jax.Array, amplitude: jax.Array, lengths: jax.Array, phases: jax.Array) -> jax.Array:
    """Moves along each axis by a sine of that axis: an amplitude and wavelengths `[2]` in pixels."""
    y, x = _axes(image)
    dy, dx = (
        amplitude * jnp.sin(2 * jnp.pi * p / length + phase)
        for p, length, phase in zip((y, x), lengths, phases, strict=True)
    )
    return _displaced(image, dy, dx)


def caustic_refraction(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """The image seen through moving water."""
    time_key, size_key = jax.random.split(key)
    time = jax.random.uniform(time_key, minval=0.5, maxval=2)
    size = jax.random.uniform(size_key, minval=0.75, maxval=1.25) * _side(image)
    return refract(image, caustics(image, time, size), 0.05 * level * _side(image), 0.2 * level)


def caustics(image: jax.Array, time: jax.Array, size: jax.Array) -> jax.Array:
    """Light `[H, W]` in [0, 1] on the ground under waves that repeat after `size` pixels, blurred."""
    py, px = (jnp.mod(axis / size, 1) * 2 * jnp.pi - 250 for axis in _axes(image))
    y, x, light = py, px, 1.0
    for n in range(1, 6):
        t = time * (1 - 3.5 / n)
        y, x = py + jnp.cos(t - y) + jnp.sin(t + x), px + jnp.sin(t - x) + jnp.cos(t + y)
        light += 200 / jnp.hypot(py / jnp.sin(y + t), px / jnp.cos(x + t))
    light = jnp.clip(jnp.abs(1.17 - (light / 5) ** 1.4) ** 8, 0, 1)
    return filter_axes(light, *(jnp.array(gaussian_filter(size, sigma=1, mode="reflect")) for size in light.shape))


def refract(image: jax.Array, surface: jax.Array, depth: jax.Array, lighting: jax.Array) -> jax.Array:
    """Looks straight down through a surface `[H, W]` with an index of refraction of 4, lit by its own slopes."""
    around = jnp.pad(surface, 1)
    slope_y = around[2:, 1:-1] - around[:-2, 1:-1]
    slope_x = around[1:-1, 2:] - around[1:-1, :-2]
    steepness = jnp.hypot(slope_y, slope_x)
    cos = 1 / jnp.sqrt(1 + steepness**2)
    sin = steepness * cos
    bend = sin * jnp.sqrt(1 - (sin / 4) ** 2) - cos * sin / 4  # Snell: the sine of (angle - angle in the water)
    flat = cos >= 1 - 1e-3  # is taken as level: nothing is bent
    shift = jnp.where(flat, 0, depth * bend / jnp.where(flat, 1, steepness))
    seen = _displaced(image, shift * slope_y, shift * slope_x)
    return seen + (lighting * (slope_y - slope_x))[..., None]


def transverse_chromatic_abberation(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """The channels are magnified differently."""
    scales = 1 + 0.05 * level * jnp.array([0, 0.5, 1])
    return magnify(image, jax.random.permutation(key, scales))


def magnify(image: jax.Array, scales: jax.Array) -> jax.Array:
    """The middle of each channel, magnified by its scale with cubic B-splines that smooth (without prefilter)."""

    def positions(scale, size):
        magnified = jnp.round(size * scale)
        return (jnp.arange(size) + (magnified - size) // 2) * (size - 1) / (magnified - 1)

    def magnified(channel, scale):
        return filter_axes(channel, *(spline_matrix(positions(scale, size), size) for size in channel.shape))

    return jax.vmap(magnified, in_axes=(-1, 0), out_axes=-1)(image, scales)


def circular_motion_blur(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """A weighted mean of turned copies of the image."""
    del key  # nothing is random
    return rotation_blur(image, jnp.deg2rad(1.5 * level))


def rotation_blur(image: jax.Array, angle: jax.Array) -> jax.Array:
    """Weighted mean of 21 rotations from `-angle` to `angle`, in radians, interpolated with cubic splines."""
    steps = jnp.linspace(-1, 1, 21)
    weights = jnp.exp(-2 * steps**2)
    coefficients = spline_coefficients(image)

    def add(total, step_and_weight):
        step, weight = step_and_weight
        return total + weight * rotated(coefficients, step * angle), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(image), (steps, weights))
    return total / weights.sum()


def rotated(coefficients: jax.Array, angle: jax.Array) -> jax.Array:
    """An image `[H, W, C]`, of which the spline coefficients are given, turned about its middle; black around."""
    height, width, _ = coefficients.shape
    dy, dx = _offsets(coefficients, jnp.array([height - 1, width - 1]) / 2)
    y = jnp.cos(angle) * dy + jnp.sin(angle) * dx + (height - 1) / 2
    x = jnp.cos(angle) * dx - jnp.sin(angle) * dy + (width - 1) / 2
    inside = (y >= 0) & (y <= height - 1) & (x >= 0) & (x <= width - 1)
    top, left = (jnp.clip(jnp.floor(p).astype(jnp.int32), 0, n - 1) for p, n in ((y, height), (x, width)))
    mirrored = jnp.pad(coefficients, ((1, 2), (1, 2), (0, 0)), mode="reflect")
    value = jnp.zeros_like(coefficients)
    for row in range(4):
        for column in range(4):
            weight = cubic_spline(y - top + 1 - row) * cubic_spline(x - left + 1 - column)
            value += weight[..., None] * mirrored[top + row, left + column]
    return jnp.where(inside[..., None], value, 0)


def spline_coefficients(image: jax.Array) -> jax.Array:
    """Coefficients `[H, W, C]` of the cubic splines that run through the pixels."""
    filters = (ndimage.spline_filter1d(np.eye(size), axis=0, mode="mirror") for size in image.shape[:2])
    return filter_axes(image, *(jnp.array(each, jnp.float32) for each in filters))


def spline_matrix(positions: jax.Array, size: int) -> jax.Array:
    """Matrix `[M, size]` from coefficients to the values of their splines at positions `[M]`, mirrored at the ends."""
    weights = cubic_spline(positions[:, None] - jnp.arange(-1, size + 1))
    return weights.at[:, 2].add(weights[:, 0]).at[:, -3].add(weights[:, -1])[:, 1:-1]


def cubic_spline(distance: jax.Array) -> jax.Array:
    """The cubic B-spline, of a distance to its middle in pixels."""
    d = jnp.abs(distance)
    return jnp.where(d < 1, 2 / 3 - d**2 + d**3 / 2, jnp.maximum(0, 2 - d) ** 3 / 6)


# shared


def _axes(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Positions y `[H, 1]` and x `[1, W]` of the pixels."""
    height, width = image.shape[:2]
    return jnp.arange(height, dtype=jnp.float32)[:, None], jnp.arange(width, dtype=jnp.float32)[None, :]


def _offsets(image: jax.Array, center: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Positions y `[H, 1]` and x `[1, W]` from a center (y, x)."""
    y, x = _axes(image)
    return y - center[0], x - center[1]


def _side(image: jax.Array) -> int:
    return min(image.shape[:2])


def _frequencies(image: jax.Array) -> jax.Array:
    """Distance `[H, W]` to the middle of the spectrum."""
    return jnp.hypot(*_offsets(image, jnp.array(image.shape[:2]) // 2))


def _displaced(image: jax.Array, dy: jax.Array, dx: jax.Array) -> jax.Array:
    """The image seen at displaced pixels, linear between them, black outside."""
    y, x = _axes(image)
    return sample(image, *jnp.broadcast_arrays(y + dy, x + dx), mode="constant")


# levels 1..5: of CIFAR-10-C-bar and ImageNet-C-bar; where a set lacks a corruption, the 1st, 3rd, 5th, 7th and 9th of
# the ten that the generator lists for its image size (cifar10_new_corruptions.csv, imagenet_new_corruptions.csv)
CORRUPTIONS: dict[str, Corruption] = {
    "blue_noise_sample": Corruption(blue_noise_sample, (0.7, 1.4, 2.1, 3.5, 4.2), (0.8, 1.6, 2.4, 4.0, 5.6)),
    "brownish_noise": Corruption(brownish_noise, (2.5, 4.0, 5.5, 6.5, 7.0), (1.0, 2.0, 3.0, 4.0, 5.0)),
    "checkerboard_cutout": Corruption(checkerboard_cutout, (1.0, 2.0, 3.0, 4.0, 5.0), (2.0, 3.0, 4.0, 5.0, 6.0)),
    "inverse_sparkles": Corruption(inverse_sparkles, (1.0, 1.5, 2.5, 4.5, 5.0), (1.0, 2.0, 4.0, 9.0, 10.0)),
    "sparkles": Corruption(sparkles, (0.7, 3.5, 5.6, 6.3, 7.0), (1.0, 2.0, 3.0, 5.0, 6.0)),
    # CIFAR-10-C-bar alone
    "circular_motion_blur": Corruption(circular_motion_blur, (2.8, 3.6, 4.4, 5.2, 6.0), (2.35, 4.05, 5.75, 7.45, 9.15)),
    "lines": Corruption(lines, (0.5, 1.0, 1.5, 2.0, 2.5), (0.8, 2.4, 4.0, 5.6, 7.2)),
    "pinch_and_twirl": Corruption(
        pinch_and_twirl,
        tuple((level, 3) for level in (5.5, 6.0, 6.5, 8.5, 10.0)),
        tuple((level, 5) for level in (4.15, 5.45, 6.75, 8.05, 9.35)),
    ),
    "ripple": Corruption(ripple, (5.5, 6.0, 6.5, 7.5, 8.0), (3.25, 4.75, 6.25, 7.75, 9.25)),
    "transverse_chromatic_abberation": Corruption(
        transverse_chromatic_abberation, (1.0, 2.0, 5.0, 9.0, 10.0), (1.0, 3.0, 5.0, 7.0, 9.0)
    ),
    # ImageNet-C-bar alone
    "caustic_refraction": Corruption(caustic_refraction, (1.4, 2.2, 3.0, 3.8, 4.6), (2.35, 3.2, 4.9, 6.6, 9.15)),
    "cocentric_sine_waves": Corruption(cocentric_sine_waves, (0.5, 1.5, 2.5, 3.5, 4.5), (3.0, 5.0, 8.0, 9.0, 10.0)),
    "perlin_noise": Corruption(perlin_noise, (4.6, 5.8, 7.0, 8.2, 9.4), (4.6, 5.2, 5.8, 7.6, 8.8)),
    "plasma_noise": Corruption(plasma_noise, (0.7, 2.1, 3.5, 4.9, 6.3), (4.75, 7.0, 8.5, 9.25, 10.0)),
    "single_frequency_greyscale": Corruption(
        single_frequency_greyscale, (0.3, 0.9, 1.5, 2.1, 2.7), (1.0, 1.5, 2.0, 4.5, 5.0)
    ),
}
