"""Warps of C-bar: twirl, ripple, refraction, chromatic aberration and circular motion blur."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from anchor_jax.data.corruptions.c_bar.coordinates import axes, displace, offsets, shorter_side
from anchor_jax.data.corruptions.corruption import Corruption
from anchor_jax.data.corruptions.filters import filter_axes, gaussian_filter


def pinch_and_twirl(key: jax.Array, image: jax.Array, severity: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Pinch and twirl every disk of a square grid, clockwise or counter-clockwise; `severity` is (level, grid size)."""
    level, num_per_side = severity
    clockwise = jax.random.rademacher(key, (5, 5), jnp.float32)
    return twirl(image, jnp.pi / 20 * level * clockwise, 0.04 * level + 0.1, num_per_side)


def twirl(image: jax.Array, angles: jax.Array, power: jax.Array, num_per_side: jax.Array) -> jax.Array:
    """Twirl and pinch the disks of a grid.

    Args:
      image: `[H, W, 3]`.
      angles: at the center of disk (i, j), i along x, in radians, `[n, n]` with n at least `num_per_side`.
      power: strength of the pinch.
      num_per_side: number of disks along each axis.
    """
    disks, distances = [], []
    for axis, size in zip(axes(image), image.shape[:2], strict=True):
        diameter = size // num_per_side
        disk = jnp.floor(axis / diameter).astype(jnp.int32)
        disks.append(disk)
        distances.append(axis - diameter * (disk + 0.5))
    radius = shorter_side(image) // num_per_side / 2
    (row, column), (dy, dx) = disks, distances
    distance = jnp.clip(jnp.hypot(dy, dx) / radius, 1e-3, 1)  # the rim, and what is outside it, do not move
    in_disk = (row < num_per_side) & (column < num_per_side)
    angle = jnp.where(in_disk, angles[column, row], 0) * (1 - distance) ** 2
    stretch = jnp.where(in_disk, jnp.sin(jnp.pi / 2 * distance) ** -power, 1)
    cos, sin = stretch * jnp.cos(angle), stretch * jnp.sin(angle)
    return displace(image, cos * dy - sin * dx - dy, sin * dy + cos * dx - dx)


def ripple(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Displace pixels by a wave along each axis."""
    length_key, phase_key = jax.random.split(key)
    lengths = jax.random.uniform(length_key, (2,), minval=0.1, maxval=0.3) * shorter_side(image)
    phases = jax.random.uniform(phase_key, (2,), maxval=2 * jnp.pi)
    return wave_warp(image, 0.0025 * level * shorter_side(image), lengths, phases)


def wave_warp(image: jax.Array, amplitude: jax.Array, lengths: jax.Array, phases: jax.Array) -> jax.Array:
    """Displace pixels along each axis by a sine of that axis; amplitude and wavelengths `[2]` are in pixels."""
    y, x = axes(image)
    dy, dx = (
        amplitude * jnp.sin(2 * jnp.pi * p / length + phase)
        for p, length, phase in zip((y, x), lengths, phases, strict=True)
    )
    return displace(image, dy, dx)


def caustic_refraction(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Show the image through moving water."""
    time_key, size_key = jax.random.split(key)
    time = jax.random.uniform(time_key, minval=0.5, maxval=2)
    size = jax.random.uniform(size_key, minval=0.75, maxval=1.25) * shorter_side(image)
    return refract(image, caustics(image, time, size), 0.05 * level * shorter_side(image), 0.2 * level)


def caustics(image: jax.Array, time: jax.Array, size: jax.Array) -> jax.Array:
    """Return the blurred light `[H, W]` in [0, 1] on the ground below waves with a period of `size` pixels."""
    py, px = (jnp.mod(axis / size, 1) * 2 * jnp.pi - 250 for axis in axes(image))
    y, x, light = py, px, 1.0
    for n in range(1, 6):
        t = time * (1 - 3.5 / n)
        y, x = py + jnp.cos(t - y) + jnp.sin(t + x), px + jnp.sin(t - x) + jnp.cos(t + y)
        light += 200 / jnp.hypot(py / jnp.sin(y + t), px / jnp.cos(x + t))
    light = jnp.clip(jnp.abs(1.17 - (light / 5) ** 1.4) ** 8, 0, 1)
    return filter_axes(light, *(jnp.array(gaussian_filter(size, sigma=1, mode="reflect")) for size in light.shape))


def refract(image: jax.Array, surface: jax.Array, depth: jax.Array, lighting: jax.Array) -> jax.Array:
    """Show the image from above, through a surface with a refractive index of 4, lit according to its slope.

    Args:
      image: `[H, W, 3]`.
      surface: heights `[H, W]`.
      depth: of the image below the surface, in pixels.
      lighting: intensity of the light.
    """
    padded = jnp.pad(surface, 1)
    slope_y = padded[2:, 1:-1] - padded[:-2, 1:-1]
    slope_x = padded[1:-1, 2:] - padded[1:-1, :-2]
    steepness = jnp.hypot(slope_y, slope_x)
    cos = 1 / jnp.sqrt(1 + steepness**2)
    sin = steepness * cos
    bend = sin * jnp.sqrt(1 - (sin / 4) ** 2) - cos * sin / 4  # Snell's law: sin(angle - angle in the water)
    is_flat = cos >= 1 - 1e-3  # no refraction
    shift = jnp.where(is_flat, 0, depth * bend / jnp.where(is_flat, 1, steepness))
    refracted = displace(image, shift * slope_y, shift * slope_x)
    return refracted + (lighting * (slope_y - slope_x))[..., None]


def transverse_chromatic_abberation(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Magnify the channels by different factors."""
    scales = 1 + 0.05 * level * jnp.array([0, 0.5, 1])
    return magnify(image, jax.random.permutation(key, scales))


def magnify(image: jax.Array, scales: jax.Array) -> jax.Array:
    """Magnify the center of each channel by its scale, with smoothing cubic B-splines (without prefilter)."""

    def positions(scale, size):
        magnified = jnp.round(size * scale)
        return (jnp.arange(size) + (magnified - size) // 2) * (size - 1) / (magnified - 1)

    def magnify_channel(channel, scale):
        return filter_axes(channel, *(spline_matrix(positions(scale, size), size) for size in channel.shape))

    return jax.vmap(magnify_channel, in_axes=(-1, 0), out_axes=-1)(image, scales)


def circular_motion_blur(key: jax.Array, image: jax.Array, level: jax.Array) -> jax.Array:
    """Return a weighted mean of rotated copies of the image; nothing is random."""
    del key
    return rotation_blur(image, jnp.deg2rad(1.5 * level))


def rotation_blur(image: jax.Array, angle: jax.Array) -> jax.Array:
    """Return a weighted mean of 21 rotations from `-angle` to `angle`, in radians, interpolated by cubic splines."""
    steps = jnp.linspace(-1, 1, 21)
    weights = jnp.exp(-2 * steps**2)
    coefficients = spline_coefficients(image)

    def add(total, step_and_weight):
        step, weight = step_and_weight
        return total + weight * rotate(coefficients, step * angle), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(image), (steps, weights))
    return total / weights.sum()


def rotate(coefficients: jax.Array, angle: jax.Array) -> jax.Array:
    """Rotate an image, given by its spline coefficients `[H, W, C]`, around its center; it is black outside."""
    height, width, _ = coefficients.shape
    dy, dx = offsets(coefficients, jnp.array([height - 1, width - 1]) / 2)
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
    """Return the coefficients `[H, W, C]` of the cubic splines that interpolate the pixels."""
    filters = (ndimage.spline_filter1d(np.eye(size), axis=0, mode="mirror") for size in image.shape[:2])
    return filter_axes(image, *(jnp.array(each, jnp.float32) for each in filters))


def spline_matrix(positions: jax.Array, size: int) -> jax.Array:
    """Return the matrix `[M, size]` from spline coefficients to values at positions `[M]`, mirrored at the ends."""
    weights = cubic_spline(positions[:, None] - jnp.arange(-1, size + 1))
    return weights.at[:, 2].add(weights[:, 0]).at[:, -3].add(weights[:, -1])[:, 1:-1]


def cubic_spline(distance: jax.Array) -> jax.Array:
    """Return the cubic B-spline at a distance from its center, in pixels."""
    d = jnp.abs(distance)
    return jnp.where(d < 1, 2 / 3 - d**2 + d**3 / 2, jnp.maximum(0, 2 - d) ** 3 / 6)


# Levels of severity 1..5 in CIFAR-10-C-bar (small) and ImageNet-C-bar (large), see noise.py.
CORRUPTIONS = {
    # in CIFAR-10-C-bar only
    "circular_motion_blur": Corruption(circular_motion_blur, (2.8, 3.6, 4.4, 5.2, 6.0), (2.35, 4.05, 5.75, 7.45, 9.15)),
    "pinch_and_twirl": Corruption(
        pinch_and_twirl,
        tuple((level, 3) for level in (5.5, 6.0, 6.5, 8.5, 10.0)),
        tuple((level, 5) for level in (4.15, 5.45, 6.75, 8.05, 9.35)),
    ),
    "ripple": Corruption(ripple, (5.5, 6.0, 6.5, 7.5, 8.0), (3.25, 4.75, 6.25, 7.75, 9.25)),
    "transverse_chromatic_abberation": Corruption(
        transverse_chromatic_abberation, (1.0, 2.0, 5.0, 9.0, 10.0), (1.0, 3.0, 5.0, 7.0, 9.0)
    ),
    # in ImageNet-C-bar only
    "caustic_refraction": Corruption(caustic_refraction, (1.4, 2.2, 3.0, 3.8, 4.6), (2.35, 3.2, 4.9, 6.6, 9.15)),
}
