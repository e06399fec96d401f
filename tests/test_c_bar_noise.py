"""Noise of C-bar next to formulas evaluated pixel by pixel."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pixelwise import assert_near, noise_image, per_pixel

from anchor_jax.data.corruptions.c_bar import CORRUPTIONS, noise


def test_add_wave_has_one_frequency():
    gray = np.full((16, 16, 3), 0.5, np.float32)
    out = np.asarray(jax.jit(noise.add_wave)(gray, 2 * np.pi / 16 * np.array([3, 5]), 0.3, 0.2))
    spectrum = np.abs(np.fft.fft2(out[..., 1] - 0.5))
    assert np.argwhere(spectrum > 1e-3).tolist() == [[3, 5], [13, 11]]
    np.testing.assert_allclose(spectrum[3, 5], 0.2 * 16 * 16 / 2, rtol=1e-4)
    assert_near(out[0, 0], 0.5 + 0.2 * math.sin(0.3))


def test_add_rings_matches_formula():
    def ring(y, x, y0=2.2, x0=7.1, frequency=3.7, amplitude=0.8, width=1.3):
        wave = math.sin(math.atan2(x - x0, y - y0) * frequency) * amplitude
        return (math.hypot(y - y0, x - x0) + wave) % width / width - 0.5

    image = noise_image()
    out = jax.jit(noise.add_rings)(image, np.array([2.2, 7.1]), 3.7, 0.8, 1.3, 0.1)
    assert_near(out, image + 0.1 * per_pixel(ring)[..., None])


def test_add_rings_without_wave_is_a_ramp_of_distance():
    out = jax.jit(noise.add_rings)(np.zeros((4, 8, 3)), np.zeros(2), 5.0, 0.0, 4.0, 1.0)
    assert_near(out[0, :, 0], [-0.5, -0.25, 0, 0.25, -0.5, -0.25, 0, 0.25])


@pytest.mark.parametrize("folds", [4, 6])
def test_blend_plasma_matches_formula(folds):
    time, sharpness, scale = 4.1, 0.7, 1.9

    def plasma(y, x):
        x, y = x / scale, y / scale
        for n in range(folds):
            right = math.cos(y * 1.93**n + time / 1.15**n) / (2.25 - sharpness) ** n
            down = math.sin(x * 1.93**n + time / 1.15**n) / (2.25 - sharpness) ** n
            x, y = x + right - 0.3 * down, y + down + 0.3 * right
        return math.sin(x - time), math.sin(0.5 * (x + y + math.sin(time))), math.sin(y + time)

    image = noise_image()
    out = jax.jit(noise.blend_plasma)(image, time, folds, sharpness, scale, 0.25)
    assert_near(out, 0.75 * image + 0.25 * per_pixel(plasma))


def test_perlin_with_equal_gradients():
    y, x = np.linspace(0, 3, 31)[:, None], np.linspace(0, 5, 21)[None, :]
    gradients = np.tile([1.0, 0.0], (256, 1))
    out = jax.jit(noise.perlin)(y, x, np.arange(256), gradients)
    d = y % 1
    assert_near(out, 1.5 * (d - d**2 * (3 - 2 * d)), 1e-5)


def test_blend_turbulence_matches_formula():
    rng = np.random.default_rng(1)
    order, gradients = rng.permutation(256), rng.normal(size=(256, 2))

    def perlin(y, x):
        value = 0.0
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                gradient = gradients[order[(order[row % 256] + column) % 256]]
                weight = math.prod(1 - 3 * d**2 + 2 * d**3 for d in (abs(y - row), abs(x - column)))
                value += weight * (gradient @ [y - row, x - column])
        return 1.5 * value

    def turbulent(y, x):
        y, x = y * 7 / 10, x * 7 / 10
        light = 0.5 + 0.5 * sum(abs(perlin(f * y, f * x)) / f for f in (1, 2, 4, 8, 16))
        return min(light, 1)

    image = noise_image()
    out = jax.jit(noise.blend_turbulence)(image, order, gradients, 0.3)
    assert_near(out, 0.7 * image + 0.3 * per_pixel(turbulent)[..., None])


@pytest.mark.parametrize("shape", [(8, 8), (9, 9), (9, 6)])
def test_spectral_noise_is_the_sum_of_its_waves(shape):
    height, width = shape
    phases = np.asarray(noise.random_phases(jax.random.key(3), height, width))
    amplitudes = np.random.default_rng(0).random(shape)

    def waves(y, x):
        total = 0.0
        for row in range(height):
            for column in range(width):
                turns = (row - height // 2) * y / height + (column - width // 2) * x / width  # 0 at the center
                total += amplitudes[row, column] * math.cos(phases[row, column] + 2 * math.pi * turns)
        return total

    expected = per_pixel(waves, height, width)
    assert_near(jax.jit(noise.spectral_noise)(phases, amplitudes), expected / expected.std())


def test_random_phases_are_symmetric_under_rotation():
    even, odd = (np.asarray(noise.random_phases(jax.random.key(0), size, size)) for size in (32, 33))
    for phases in (even, odd):
        np.testing.assert_array_equal(phases, phases[::-1, ::-1])
    assert odd[16, 16] == 0
    np.testing.assert_allclose(np.histogram(even, 4, (0, 2 * np.pi))[0] / 1024, 0.25, atol=0.05)


@pytest.mark.parametrize(("name", "slope"), [("blue_noise_sample", 1), ("brownish_noise", -2)])
def test_noise_amplitude_is_a_power_of_frequency(name, slope, monkeypatch):
    drawn = []
    monkeypatch.setattr(noise, "spectral_noise", lambda _, amplitudes: drawn.append(amplitudes) or amplitudes)
    CORRUPTIONS[name].apply(jax.random.key(0), jnp.zeros((64, 64, 3)), 1.0)
    amplitudes = np.asarray(drawn[0])[32, 42:]  # 10 to 31 periods across the image
    frequencies = np.arange(10, 32)
    assert_near(np.polyfit(np.log(frequencies), np.log(amplitudes), 1)[0], slope, 0.02)


def test_keep_above_keeps_pixels_above_threshold():
    image, phases = noise_image(16, 16) + 0.1, np.asarray(noise.random_phases(jax.random.key(1), 16, 16))
    kept = [np.asarray(jax.jit(noise.keep_above)(image, phases, threshold)) for threshold in (-9.0, 0.0, 9.0)]
    np.testing.assert_array_equal(kept[0], image)
    np.testing.assert_array_equal(kept[2], 0 * image)
    black = (kept[1] == 0).all(-1)
    np.testing.assert_array_equal(kept[1][~black], image[~black])
    assert 0.4 < black.mean() < 0.6
