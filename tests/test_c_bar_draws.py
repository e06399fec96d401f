"""The random values of C-bar follow the distributions of the published generator."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pixelwise import assert_near
from scipy import stats

from anchor_jax.data.corruptions.c_bar import CORRUPTIONS, noise, occlusion, warp


def uniform(low, high):
    return stats.uniform(low, high - low).cdf


def pair_of_frequencies(pairs):
    smaller, larger = np.sort(np.abs(pairs), axis=1).T
    assert stats.kstest(larger, uniform(0, np.pi)).pvalue > 1e-3
    assert stats.kstest(smaller / larger, uniform(0, 1)).pvalue > 1e-3
    for sides in (pairs[:, 0] > 0, pairs[:, 1] > 0, np.abs(pairs[:, 0]) > np.abs(pairs[:, 1])):
        assert 0.4 < sides.mean() < 0.6


def uniform_integers(low, high):
    def check(numbers):
        assert stats.chisquare(np.bincount(numbers.ravel(), minlength=high)[low:]).pvalue > 1e-3

    return check


def fraction(probability):
    def check(chosen):
        assert abs(chosen.mean() - probability) < 0.01

    return check


def clipped_at_one(mean):
    def check(lengths):
        beyond = stats.truncnorm(4 * (1 - mean) / mean, np.inf, mean, mean / 4).cdf
        assert stats.kstest(lengths[lengths > 1], beyond).pvalue > 1e-3
        assert abs((lengths == 1).mean() - stats.norm(mean, mean / 4).cdf(1)) < 0.01
        assert lengths.min() == 1

    return check


def directions_in_a_square(drawn):
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=-1), 1, rtol=1e-5)
    smaller, larger = np.moveaxis(np.sort(np.abs(drawn), axis=-1), -1, 0)
    assert stats.kstest((smaller / larger).ravel(), uniform(0, 1)).pvalue > 1e-3
    for sides in (drawn[..., 0] > 0, drawn[..., 1] > 0, np.abs(drawn[..., 0]) > np.abs(drawn[..., 1])):
        assert abs(sides.mean() - 0.5) < 0.01


def permutations(drawn):
    np.testing.assert_array_equal(np.sort(drawn), np.broadcast_to(np.arange(256), drawn.shape))
    assert stats.chisquare(np.bincount(drawn[:, 0] // 64)).pvalue > 1e-3


def permutation_of(values):
    def check(drawn):
        assert_near(np.sort(drawn), values, 1e-6)
        assert len(np.unique(drawn, axis=0)) == math.factorial(len(values))

    return check


def signs_of(value):
    def check(drawn):
        np.testing.assert_allclose(np.abs(drawn), value, rtol=1e-5)
        assert abs((drawn > 0).mean() - 0.5) < 0.02

    return check


def lines_of_two_sides(ends):
    centers, along = ends.mean(2), np.moveaxis(ends[:, :, 1] - ends[:, :, 0], -1, 0)
    assert stats.kstest(centers[:, 0].ravel(), uniform(0, 64)).pvalue > 1e-3
    assert_near(np.hypot(*along), 2 * 64, 3)  # both ends are truncated to integer pixels
    angles = np.arctan2(*along)
    assert stats.kstest(angles[:, 0], uniform(-np.pi, np.pi)).pvalue > 1e-3
    # two lines of an image differ by u turns; u is the difference of two numbers from an interval of 0.1 to 1 turn
    agreement = (np.sinc(np.linspace(0.1, 1, 1000)) ** 2).mean()
    assert_near(np.cos(angles[:, 0] - angles[:, 1]).mean(), agreement, 0.05)


CIRCLE = uniform(0, 2 * np.pi)
# For images of 64 pixels and level 3: the function that is called, and each of its arguments after the image, as a
# constant, a distribution or a check.
DRAWN = {
    "blue_noise_sample": ("keep_above", CIRCLE, 0.3 * 3 - 2.5),
    "brownish_noise": ("add_brownish", CIRCLE, 0.3 * 64 / 255),
    "caustic_refraction": ("refract", uniform(0.5, 2), uniform(48, 80), 0.3 * 0.5 * 64, 0.3 * 2),
    "checkerboard_cutout": ("cut_out_squares", CIRCLE, uniform(6.4, 16), fraction(0.3)),
    "circular_motion_blur": ("rotation_blur", np.deg2rad(0.3 * 15)),
    "cocentric_sine_waves": (
        "add_rings",
        uniform(0, 64),
        uniform(0, 10),
        uniform(0, 6.4),
        uniform(0, 6.4),
        0.3 * 128 / 255,
    ),
    "inverse_sparkles": (
        "show_in_star",
        uniform(16, 48),
        stats.norm(16, 4).cdf,
        uniform_integers(50, 200),
        0.3 * 65 / 50,
    ),
    "lines": ("draw_lines", lines_of_two_sides, 19),
    "perlin_noise": ("blend_turbulence", permutations, directions_in_a_square, 0.3 * 0.5),
    "pinch_and_twirl": ("twirl", signs_of(0.3 * np.pi / 2), 0.3 * 0.4 + 0.1, 3),
    "plasma_noise": (
        "blend_plasma",
        uniform(0, 6 * np.pi),
        uniform_integers(4, 7),
        uniform(0.5, 1),
        uniform(4.8, 12.8),
        0.3 * 64 / 255,
    ),
    "ripple": ("wave_warp", 0.3 * 0.025 * 64, uniform(6.4, 19.2), CIRCLE),
    "single_frequency_greyscale": ("add_wave", pair_of_frequencies, CIRCLE, 0.3 * 196 / 255),
    "sparkles": ("add_stars", uniform(0, 64), clipped_at_one(0.3 * 0.1 * 64), uniform_integers(50, 200)),
    "transverse_chromatic_abberation": ("magnify", permutation_of([1, 1 + 0.3 * 0.25, 1 + 0.3 * 0.5])),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_c_bar_draws_published_distributions(name, monkeypatch):
    function, *expected = DRAWN[name]
    for module in (noise, occlusion, warp):
        for called in {function, "caustics"} & vars(module).keys():
            monkeypatch.setattr(module, called, lambda _, *drawn: jax.tree.map(jnp.asarray, jax.tree.leaves(drawn)))
    level = (3.0, 3) if name == "pinch_and_twirl" else 3.0
    draw = jax.jit(jax.vmap(lambda key: CORRUPTIONS[name].apply(key, jnp.zeros((64, 64, 3)), level)))
    drawn = draw(jax.random.split(jax.random.key(7), 2000))
    for values, expectation in zip(map(np.asarray, drawn), expected, strict=True):
        if isinstance(expectation, float | int):
            np.testing.assert_allclose(values, expectation, rtol=1e-5)
        elif getattr(expectation, "__name__", "") == "cdf":
            assert stats.kstest(np.unique(values.ravel()[:10_000]), expectation).pvalue > 1e-3
        else:
            expectation(values)
