"""Compare corruptions with formulas that are evaluated pixel by pixel."""

import numpy as np


def noise_image(height=12, width=10, seed=0):
    return np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)


def per_pixel(function, height=12, width=10):
    """Evaluate a function of y and x at every pixel."""
    return np.array([[function(y, x) for x in range(width)] for y in range(height)])


def assert_near(ours, expected, tolerance=2e-4):
    ours = np.asarray(ours)
    expected = np.broadcast_to(expected, ours.shape)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance)
