"""What becomes of stored pixels before a network sees them."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor_jax.data import Normalization, augment, measure_normalization, normalize

IMAGES = np.random.default_rng(0).integers(1, 256, (64, 6, 5, 3)).astype(np.uint8)
KEYS = jax.random.split(jax.random.key(0), 64)


def augmented(**options):
    return np.asarray(jax.jit(jax.vmap(partial(augment, **options)))(KEYS, IMAGES))


def crops(image, padding):
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    offsets = range(2 * padding + 1)
    return [padded[i : i + image.shape[0], j : j + image.shape[1]] for i in offsets for j in offsets]


def test_nothing_asked_nothing_done():
    np.testing.assert_array_equal(augmented(crop_padding=0, flip=False), IMAGES)


def test_every_crop_is_a_window_of_the_image_padded_with_black():
    results = augmented(crop_padding=2, flip=False)
    assert results.dtype == np.uint8
    found = [
        next(i for i, window in enumerate(crops(image, 2)) if (window == result).all())
        for image, result in zip(IMAGES, results, strict=True)
    ]
    assert len(set(found)) > 15


def test_half_of_the_images_are_mirrored():
    results = augmented(crop_padding=0, flip=True)
    kept = (results == IMAGES).all((1, 2, 3))
    mirrored = (results == IMAGES[:, :, ::-1]).all((1, 2, 3))
    assert (kept ^ mirrored).all()
    assert 16 < mirrored.sum() < 48


def test_augmentation_of_an_image_is_its_key_alone():
    together = augmented(crop_padding=2, flip=True)
    alone = augment(KEYS[7], IMAGES[7], crop_padding=2, flip=True)
    np.testing.assert_array_equal(alone, together[7])


def test_normalization_is_that_of_torchvision():
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    expected = (IMAGES / 255 - np.array(mean)) / np.array(std)
    result = normalize(jax.numpy.asarray(IMAGES), Normalization(mean, std))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_measured_normalization_centres_and_scales_every_channel():
    normalized = np.asarray(normalize(jax.numpy.asarray(IMAGES), measure_normalization(IMAGES)))
    np.testing.assert_allclose(normalized.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(normalized.std((0, 1, 2)), 1, atol=1e-4)


def test_constant_channel_keeps_its_scale():
    assert measure_normalization(np.full((2, 3, 3, 1), 51, np.uint8)) == Normalization((0.2,), (1.0,))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_pixels_of_a_crop_come_from_the_image(seed, padding):
    result = np.asarray(augment(jax.random.key(seed), IMAGES[0], crop_padding=padding, flip=True))
    assert set(result.ravel()) <= set(IMAGES[0].ravel()) | {0}


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_kept(channels):
    image = IMAGES[0, ..., :channels]
    assert augment(KEYS[0], image, crop_padding=1, flip=True).shape == image.shape
