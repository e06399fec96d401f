"""Coloured fractals, made on the spot: pictures that need no download, as complex as PixMix asks for.

Each is the middle of the attractor of a system of 2 to 8 affine maps, drawn as by Anderson, Farrell, "Improving Fractal
Pre-training", WACV 2022 (arXiv 2110.03091): the singular values σ1 >= σ2 of the maps have a sum of σ1 + 2 σ2 for which
attractors are neither dust nor blots. A point takes half of the colour of each map that it goes through.
"""

import numpy as np

_MOST_MAPS = 8
_POINTS_PER_PIXEL = 3
_WALKERS = 2048
_SETTLING = 16  # steps until a walker is on the attractor
_SEEN = (0.1, 0.9)  # quantiles of the points that the edges of the picture cut off


def fractals(seed: int, num: int, size: int) -> np.ndarray:
    """Pictures of fractals, uint8 `[num, size, size, 3]`; the first ones do not depend on how many follow."""
    pictures = [_picture(np.random.default_rng([seed, number]), size) for number in range(num)]
    return np.stack(pictures) if pictures else np.empty((0, size, size, 3), np.uint8)


def _picture(rng: np.random.Generator, size: int) -> np.ndarray:
    matrices, shifts = _maps(rng)
    places, colours = _walk(rng, matrices, shifts, steps=-(-_POINTS_PER_PIXEL * size**2 // _WALKERS))
    edges = np.quantile(places[:: len(places) // _WALKERS], _SEEN, axis=0)
    pixels = np.floor((places - edges[0]) / np.maximum(edges[1] - edges[0], 1e-6) * size).astype(int)
    seen = ((pixels >= 0) & (pixels < size)).all(1)
    row_major = pixels[seen] @ [size, 1]
    counts = np.bincount(row_major, minlength=size**2)
    sums = [np.bincount(row_major, colours[seen, c], size**2) for c in range(3)]
    colour = np.stack(sums, -1) / np.maximum(counts, 1)[:, None]
    opacity = (np.log1p(counts) / np.log1p(counts.max()))[:, None] ** 0.5
    picture = opacity * colour + (1 - opacity) * _background(rng, size)
    return np.round(255 * picture).astype(np.uint8).reshape(size, size, 3)


def _maps(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Matrices `[maps, 2, 2]` and shifts `[maps, 2]`, contracting all of them."""
    num = rng.integers(2, _MOST_MAPS + 1)
    total = rng.uniform((5 + num) / 2, (6 + num) / 2)
    values = np.ones((num, 2))
    while values.max() >= 1:
        values = -np.sort(-rng.random((num, 2)))
        values *= total / (values @ [1, 2]).sum()
    angles, signs = rng.uniform(0, 2 * np.pi, (2, num)), rng.choice([-1, 1], (num, 1, 2))
    return _rotations(angles[0]) * values[:, None] @ _rotations(angles[1]) * signs, rng.uniform(-1, 1, (num, 2))


def _rotations(angles: np.ndarray) -> np.ndarray:
    """Matrices `[n, 2, 2]`."""
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([cos, -sin, sin, cos], -1).reshape(-1, 2, 2)


def _walk(
    rng: np.random.Generator, matrices: np.ndarray, shifts: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Places `[points, 2]` and colours `[points, 3]` of walkers, of which each step sends a part through each map.

    A map's part is its determinant's, so that points are spread evenly.
    """
    weights = np.abs(np.linalg.det(matrices)) + 1e-3
    ends = np.round(_WALKERS * np.cumsum(weights) / weights.sum()).astype(int)
    of_walker = np.searchsorted(ends, np.arange(_WALKERS), side="right")
    half_colours = rng.random((len(ends), 3)) / 2
    linear, shift, half_colour = (part[of_walker].astype(np.float32) for part in (matrices, shifts, half_colours))
    place, colour = np.zeros((_WALKERS, 2), np.float32), 2 * half_colour
    places, colours = np.empty((steps, *place.shape), np.float32), np.empty((steps, *colour.shape), np.float32)
    for step in range(-_SETTLING, steps):
        order = rng.permutation(_WALKERS)
        place = np.einsum("wij,wj->wi", linear, place[order]) + shift
        colour = colour[order] / 2 + half_colour
        if step >= 0:
            places[step], colours[step] = place, colour
    return places.reshape(-1, 2), colours.reshape(-1, 3)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """From one random colour to another, in a random direction, `[size * size, 3]`."""
    angle, (first, last) = rng.uniform(0, 2 * np.pi), rng.random((2, 3))
    y, x = np.mgrid[:size, :size] / max(size - 1, 1) - 0.5
    share = (0.5 + (np.cos(angle) * x + np.sin(angle) * y) / np.sqrt(2)).reshape(-1, 1)
    return share * first + (1 - share) * last
