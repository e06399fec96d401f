"""Occlusions of C-bar next to formulas evaluated pixel by pixel, and lines next to scikit-image."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pixelwise import assert_near, noise_image, per_pixel
from skimage.draw import line_aa

from anchor_jax.data.corruptions.c_bar import CORRUPTIONS, occlusion

GRAY = 128 / 255


def star(y, x, center, lengths, power):
    """Return the light of one star at a pixel."""
    turns = (math.atan2(x - center[1], y - center[0]) + math.pi) / (2 * math.pi) * len(lengths)
    ray, between = divmod(turns, 1)
    following = [lengths[(int(ray) + step) % len(lengths)] for step in (0, 1)]
    length = following[0] * (1 - between) + following[1] * between
    falloff = (length**2 / ((y - center[0]) ** 2 + (x - center[1]) ** 2 + 1e-4)) ** power
    return min(1, (1 - (between - 0.5) ** 2) * falloff)


def test_show_in_star_matches_formula():
    image, center, lengths = noise_image(), (5.2, 4.4), np.random.default_rng(0).normal(3, 1, 53)
    padded = np.pad(lengths, (0, 147), constant_values=99)
    out = jax.jit(occlusion.show_in_star)(image, np.array(center), padded, 53, 0.6)
    light = per_pixel(partial(star, center=center, lengths=lengths, power=0.6))[..., None]
    assert_near(out, light * image + (1 - light), 1e-3)


def test_add_stars_equals_adding_one_by_one():
    rng = np.random.default_rng(1)
    image, centers, rays = noise_image(), rng.uniform(0, 10, (3, 2)), np.array([50, 61, 72])
    lengths = rng.normal(2, 0.5, (3, 200))
    expected = image
    for center, row, num in zip(centers, lengths, rays, strict=True):
        light = per_pixel(partial(star, center=center, lengths=row[:num], power=1))[..., None]
        expected = expected + light * (1 - expected)
    assert_near(jax.jit(occlusion.add_stars)(image, centers, lengths, rays), expected, 1e-3)


def test_cut_out_squares_of_a_board():
    image = noise_image(12, 12)
    board = np.kron(np.indices((4, 4)).sum(0) % 2 == 0, np.ones((3, 3), bool))
    is_chosen = np.zeros((20, 20), bool)
    np.testing.assert_array_equal(jax.jit(occlusion.cut_out_squares)(image, 0.0, 3.0, is_chosen), image)
    out = jax.jit(occlusion.cut_out_squares)(image, 0.0, 3.0, ~is_chosen)
    assert_near(out, np.where(board[..., None], GRAY, image), 1e-6)
    is_chosen[10 + 1, 10 + 3] = True
    expected = image.copy()
    expected[3:6, 9:12] = GRAY
    assert_near(jax.jit(occlusion.cut_out_squares)(image, 0.0, 3.0, is_chosen), expected, 1e-6)


def test_cut_out_squares_of_a_rotated_board():
    image, is_chosen = noise_image(12, 12), np.random.default_rng(0).random((20, 20)) < 0.6

    def painted(y, x, angle=2.2, side=1.7):
        rotated = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) @ [y, x] / side
        row, column = np.floor(rotated).astype(int)
        return is_chosen[10 + row, 10 + column] and row % 2 == column % 2

    expected = np.where(per_pixel(painted, 12, 12)[..., None], GRAY, image)
    assert_near(jax.jit(occlusion.cut_out_squares)(image, 2.2, 1.7, is_chosen), expected, 1e-6)


ENDS = st.tuples(*[st.integers(-30, 45)] * 4).filter(lambda ends: ends[:2] != ends[2:])


@settings(deadline=None)  # the first one compiles
@given(ENDS)
def test_line_coverage_equals_scikit_image(ends):
    image = np.zeros((16, 12, 3), np.float32)
    expected = np.zeros((200, 200))
    rows, columns, values = line_aa(*ends)
    expected[rows + 60, columns + 60] = values
    ours = jax.jit(occlusion.line_coverage)(image, np.array(ends[:2], np.float32), np.array(ends[2:], np.float32))
    assert_near(ours[..., 0], expected[60:76, 60:72], 1e-5)


def test_lines_truncates_the_number_of_lines():
    image = jnp.ones((32, 32, 3))
    lines = CORRUPTIONS["lines"].apply
    for level, same in ((0.3, True), (0.32, False)):  # 0.96 and 1.02 lines
        assert (np.asarray(lines(jax.random.key(0), image, level)) == 1).all() == same
