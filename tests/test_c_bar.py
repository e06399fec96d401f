"""The corruptions of C-bar: keys, shapes, and the change next to the published generator."""

import json
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import optimised
from pixelwise import noise_image

from anchor_jax.data.corruptions import C_BAR_CIFAR, C_BAR_IMAGENET, corrupt
from anchor_jax.data.corruptions.c_bar import CORRUPTIONS
from benchmarks.fidelity import corruptions_c_bar as published

RECORD = Path(__file__).parents[1] / "docs/results/c_bar_published.json"


@cache
def compiled(name):
    """Return a function of keys `[B]`, images `[B, H, W, 3]` and the constants of a severity."""
    return optimised(jax.vmap(CORRUPTIONS[name].apply, in_axes=(0, 0, None)))


def corrupted(name, keys, images, constants):
    return np.asarray(compiled(name)(keys, images, jax.tree.map(jnp.asarray, constants)))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_c_bar_depends_on_own_key_only(name):
    images = np.stack([noise_image(8, 8, seed) for seed in (0, 0, 1)])
    keys = jax.random.split(jax.random.key(0), 3)
    for constants in (*CORRUPTIONS[name].small, *CORRUPTIONS[name].large):
        first, second, third = corrupted(name, keys, images, constants)
        again = corrupted(name, keys[::-1], images[::-1], constants)
        np.testing.assert_array_equal(again[::-1], [first, second, third])
        assert np.isfinite([first, second, third]).all()
        assert first.dtype == np.float32
    # disks of two pixels have a center and a rim only, which do not move
    assert (first != images[0]).any() == (name != "pinch_and_twirl")
    assert (first != second).any() == (name not in ("pinch_and_twirl", "circular_motion_blur"))
    assert compiled(name)._cache_size() == 1  # one program for all severities


@pytest.mark.parametrize("name", ["checkerboard_cutout", "lines", "perlin_noise"])
def test_c_bar_covers_oblong_images(name):
    image = noise_image(9, 70)[None]
    out = corrupted(name, jax.random.split(jax.random.key(1), 1), image, CORRUPTIONS[name].small[4])
    assert np.isfinite(out).all()
    for part in np.split(out[0] != image[0], 7, axis=1)[::3]:
        assert part.any()


def test_c_bar_keeps_grayscale_images():
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 9, 1), np.uint8)
    out = np.asarray(corrupt(jax.random.key(0), images, "plasma_noise", 5))
    assert (out.shape, out.dtype) == (images.shape, np.uint8)
    assert (out != images).mean() > 0.5


@pytest.mark.parametrize("names", [C_BAR_CIFAR, C_BAR_IMAGENET])
def test_c_bar_has_ten_corruptions_per_set(names):
    assert len(set(names) & set(CORRUPTIONS)) == len(names) == 10


RECORDED = {(row["size"], row["corruption"], row["severity"]): row for row in json.loads(RECORD.read_text())["results"]}
# Tolerance in levels or dB, in addition to five standard errors. The generator truncates to integer levels after every
# line.
TOLERANCE = {"lines": 0.25}


@cache
def photographs(size):
    return published.photographs(size)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [32, 224])
def test_c_bar_changes_match_published_generator(size, name):
    levels = published.levels(name, size)
    constants = CORRUPTIONS[name].small if size == 32 else CORRUPTIONS[name].large
    images, draws = photographs(size), 3
    for severity in range(1, 6):
        row = RECORDED[size, name, severity]
        assert row["level"] == levels[severity - 1]
        assert row["images"] == len(images)
        changes = []
        for draw in range(draws):
            keys = jax.random.split(jax.random.key(draw), len(images))
            out = corrupted(name, keys, images.astype(np.float32) / 255, constants[severity - 1])
            changes.append(published.change(images, published.quantize(name, out)))
        for quantity in ("mean", "spread", "psnr"):
            ours = np.stack([change[quantity] for change in changes])
            standard_error = np.sqrt(ours.var(0, ddof=1).mean() * (1 + 1 / draws) / len(images))
            tolerance = 5 * standard_error + TOLERANCE.get(name, 0.05)
            assert abs(ours.mean() - row[quantity]) < tolerance, (severity, quantity)
