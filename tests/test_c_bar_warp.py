"""Warps of C-bar next to formulas evaluated pixel by pixel, and to SciPy."""

import math

import jax
import numpy as np
import pytest
from pixelwise import assert_near, noise_image, per_pixel
from scipy import ndimage

from anchor_jax.data.corruptions.c_bar import warp


def interpolate(image, positions):
    """Interpolate linearly at positions `[H, W, 2]`, black outside."""
    channels = [
        ndimage.map_coordinates(image[..., c], np.moveaxis(positions, -1, 0), order=1, mode="grid-constant")
        for c in range(3)
    ]
    return np.stack(channels, axis=-1)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 35)])
def test_twirl_matches_formula(height, width):
    image = noise_image(height, width)
    angles, power = np.random.default_rng(0).uniform(-2, 2, (3, 3)), 0.4
    disk = np.array([height // 3, width // 3])

    def source(y, x):
        row, column = np.array([y, x]) // disk
        center = (np.array([row, column]) + 0.5) * disk
        offset = np.array([y, x]) - center
        distance = np.hypot(*offset) / (min(disk) / 2)
        if row > 2 or column > 2 or distance > 1 or distance == 0:
            return y, x
        angle = angles[column, row] * (1 - distance) ** 2
        rotated = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) @ offset
        return center + rotated * math.sin(math.pi / 2 * distance) ** -power

    out = np.asarray(jax.jit(warp.twirl)(image, np.pad(angles, (0, 2)), power, 3))
    assert_near(out, interpolate(image, per_pixel(source, height, width)))
    np.testing.assert_array_equal(out[3 * disk[0] :], image[3 * disk[0] :])
    assert (out != image).any()


def test_twirl_of_zero_strength_is_the_identity():
    image = noise_image(20, 20)
    np.testing.assert_allclose(jax.jit(warp.twirl)(image, np.zeros((5, 5)), 0.0, 5), image, atol=1e-6)


def test_wave_warp_equals_scipy():
    image = noise_image(20, 16)
    lengths, phases = np.array([5.3, 4.1]), np.array([0.4, 2.0])
    points = np.stack(np.indices((20, 16)), -1)
    expected = interpolate(image, points + 1.7 * np.sin(2 * np.pi * points / lengths + phases))
    assert_near(jax.jit(warp.wave_warp)(image, 1.7, lengths, phases), expected)
    np.testing.assert_array_equal(jax.jit(warp.wave_warp)(image, 0.0, lengths, phases), image)


def test_caustics_match_formula():
    def light(y, x, time=1.3, size=11.0):
        p = np.array([y, x]) / size % 1 * 2 * math.pi - 250
        i, c = p, 1.0
        for n in range(5):
            t = time * (1 - 3.5 / (n + 1))
            step = math.cos(t - i[0]) + math.sin(t + i[1]), math.sin(t - i[1]) + math.cos(t + i[0])
            i = p + step
            c += 1 / (0.005 * math.hypot(p[0] / math.sin(i[0] + t), p[1] / math.cos(i[1] + t)))
        return min(1, abs(1.17 - (c / 5) ** 1.4) ** 8)

    expected = ndimage.gaussian_filter(per_pixel(light), sigma=1)
    assert_near(jax.jit(warp.caustics)(noise_image(), 1.3, 11.0), expected)


def test_refract_follows_snells_law():
    image, surface = noise_image(), np.random.default_rng(5).random((12, 10)) * 0.6
    padded = np.pad(surface, 1)

    def slopes(y, x):
        return padded[y + 2, x + 1] - padded[y, x + 1], padded[y + 1, x + 2] - padded[y + 1, x]

    def source(y, x):
        normal = np.array([*slopes(y, x), 1.0])
        normal /= np.linalg.norm(normal)
        if normal[2] >= 0.999:
            return y, x
        # the vector form of Snell's law
        ray = np.array([0, 0, 1]) / 4 + (math.sqrt(1 - (1 - normal[2] ** 2) / 16) - normal[2] / 4) * normal
        return y + 3.0 * ray[0], x + 3.0 * ray[1]

    lit = per_pixel(lambda y, x: 0.5 * (slopes(y, x)[0] - slopes(y, x)[1]))
    expected = interpolate(image, per_pixel(source)) + lit[..., None]
    assert_near(jax.jit(warp.refract)(image, surface, 3.0, 0.5), expected)
    np.testing.assert_array_equal(jax.jit(warp.refract)(image, 0 * surface, 3.0, 0.5), image)


@pytest.mark.parametrize("size", [9, 32])
def test_magnify_equals_scipy(size):
    image, scales = noise_image(size, size), (1.0, 1.23, 1.5)
    expected = []
    for channel, scale in zip(np.moveaxis(image, -1, 0), scales, strict=True):
        zoomed = ndimage.zoom(channel, scale, prefilter=False)
        start = (len(zoomed) - size) // 2
        expected.append(zoomed[start : start + size, start : start + size])
    assert_near(jax.jit(warp.magnify)(image, np.array(scales)), np.stack(expected, -1))


@pytest.mark.parametrize("degrees", [-9.0, 3.3, 31.0])
def test_rotate_equals_scipy(degrees):
    image = noise_image(13, 16)
    expected = ndimage.rotate(image, degrees, reshape=False)
    assert_near(jax.jit(warp.rotate)(warp.spline_coefficients(image), np.deg2rad(degrees)), expected)


def test_rotation_blur_is_a_weighted_mean_of_rotations():
    image = noise_image(16, 16)
    steps = np.linspace(-1, 1, 21)
    rotated = [ndimage.rotate(image, 7.0 * step, reshape=False) for step in steps]
    expected = np.average(rotated, axis=0, weights=np.exp(-2 * steps**2))
    assert_near(jax.jit(warp.rotation_blur)(image, np.deg2rad(7.0)), expected)
    assert_near(jax.jit(warp.rotation_blur)(image, 0.0), image, 1e-5)
