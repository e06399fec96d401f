"""Colored fractals, generated on the fly: mixing images for PixMix that need no download.

Each image shows the center of the attractor of an iterated function system of 2 to 8 affine maps. The maps are drawn as
in Anderson, Farrell, "Improving Fractal Pre-training", WACV 2022 (arXiv 2110.03091): the singular values σ1 >= σ2 of
all maps have a sum of σ1 + 2 σ2 at which attractors are neither dust nor blobs. At each step, a point takes on half of
the color of the map that it passes through.
"""

import numpy as np

_MAX_MAPS = 8
_POINTS_PER_PIXEL = 3
_NUM_WALKERS = 2048
_BURN_IN = 16  # steps until a walker has reached the attractor
_VISIBLE = (0.1, 0.9)  # quantiles of the points at the edges of the image


def fractals(seed: int, num: int, size: int) -> np.ndarray:
    """Generate images of fractals, uint8 `[num, size, size, 3]`; image i depends on `seed` and i alone."""
    images = [_fractal(np.random.default_rng([seed, number]), size) for number in range(num)]
    return np.stack(images) if images else np.empty((0, size, size, 3), np.uint8)


def _fractal(rng: np.random.Generator, size: int) -> np.ndarray:
    matrices, shifts = _draw_maps(rng)
    num_steps = -(-_POINTS_PER_PIXEL * size**2 // _NUM_WALKERS)
    positions, colors = _walk(rng, matrices, shifts, num_steps)
    edges = np.quantile(positions[:: len(positions) // _NUM_WALKERS], _VISIBLE, axis=0)
    pixels = np.floor((positions - edges[0]) / np.maximum(edges[1] - edges[0], 1e-6) * size).astype(int)
    visible = ((pixels >= 0) & (pixels < size)).all(1)
    flat = pixels[visible] @ [size, 1]
    counts = np.bincount(flat, minlength=size**2)
    sums = [np.bincount(flat, colors[visible, c], size**2) for c in range(3)]
    color = np.stack(sums, -1) / np.maximum(counts, 1)[:, None]
    opacity = (np.log1p(counts) / np.log1p(counts.max()))[:, None] ** 0.5
    image = opacity * color + (1 - opacity) * _background(rng, size)
    return np.round(255 * image).astype(np.uint8).reshape(size, size, 3)


def _draw_maps(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw contracting maps: matrices `[maps, 2, 2]` and shifts `[maps, 2]`."""
    num = rng.integers(2, _MAX_MAPS + 1)
    total = rng.uniform((5 + num) / 2, (6 + num) / 2)
    singular_values = np.ones((num, 2))
    while singular_values.max() >= 1:
        singular_values = -np.sort(-rng.random((num, 2)))
        singular_values *= total / (singular_values @ [1, 2]).sum()
    angles, signs = rng.uniform(0, 2 * np.pi, (2, num)), rng.choice([-1, 1], (num, 1, 2))
    matrices = _rotations(angles[0]) * singular_values[:, None] @ _rotations(angles[1]) * signs
    return matrices, rng.uniform(-1, 1, (num, 2))


def _rotations(angles: np.ndarray) -> np.ndarray:
    """Return rotation matrices `[n, 2, 2]`."""
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([cos, -sin, sin, cos], -1).reshape(-1, 2, 2)


def _walk(
    rng: np.random.Generator, matrices: np.ndarray, shifts: np.ndarray, num_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions `[points, 2]` and colors `[points, 3]` that walkers visit.

    At each step, every map is applied to a share of the walkers proportional to its determinant, so that the points
    cover the attractor evenly.
    """
    weights = np.abs(np.linalg.det(matrices)) + 1e-3
    ends = np.round(_NUM_WALKERS * np.cumsum(weights) / weights.sum()).astype(int)
    map_of_walker = np.searchsorted(ends, np.arange(_NUM_WALKERS), side="right")
    half_colors = rng.random((len(ends), 3)) / 2
    linear, shift, half_color = (part[map_of_walker].astype(np.float32) for part in (matrices, shifts, half_colors))
    position, color = np.zeros((_NUM_WALKERS, 2), np.float32), 2 * half_color
    positions = np.empty((num_steps, *position.shape), np.float32)
    colors = np.empty((num_steps, *color.shape), np.float32)
    for step in range(-_BURN_IN, num_steps):
        order = rng.permutation(_NUM_WALKERS)
        position = np.einsum("wij,wj->wi", linear, position[order]) + shift
        color = color[order] / 2 + half_color
        if step >= 0:
            positions[step], colors[step] = position, color
    return positions.reshape(-1, 2), colors.reshape(-1, 3)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a gradient between two random colors in a random direction, `[size * size, 3]`."""
    angle, (first, last) = rng.uniform(0, 2 * np.pi), rng.random((2, 3))
    y, x = np.mgrid[:size, :size] / max(size - 1, 1) - 0.5
    weight = (0.5 + (np.cos(angle) * x + np.sin(angle) * y) / np.sqrt(2)).reshape(-1, 1)
    return weight * first + (1 - weight) * last
