"""Augmentation and normalization on the device."""

from functools import cache

import jax
import numpy as np
import pytest
from conftest import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor_jax import config as configuration
from anchor_jax.core.errors import UserError
from anchor_jax.data import Normalization, augment, measure_normalization, normalize
from anchor_jax.runtime.mesh import SHARDED, mesh, pmapped

IMAGES = np.random.default_rng(0).integers(1, 256, (64, 6, 5, 3)).astype(np.uint8)
MIXING_IMAGES = np.random.default_rng(1).integers(0, 256, (4, 9, 7, 3)).astype(np.uint8)
KEYS = jax.random.split(jax.random.key(0), 64)
POLICIES = ("trivial_augment", "rand_augment", "pixmix")


def augmentation_config(**options):
    config = configuration.base().augmentation
    config.update(options)
    return config


@cache
def jitted(**options):
    config = augmentation_config(**options)
    return jax.jit(lambda keys, images: augment(keys, images, config, MIXING_IMAGES))


def augment_images(**options):
    return np.asarray(jitted(**options)(KEYS, IMAGES))


def crops(image, padding):
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    offsets = range(2 * padding + 1)
    return [padded[i : i + image.shape[0], j : j + image.shape[1]] for i in offsets for j in offsets]


def test_augment_without_options_is_the_identity():
    assert augment_images().dtype == np.uint8
    assert_same_bits(augment_images(), IMAGES)


def test_augment_crops_a_window_of_the_padded_image():
    results = augment_images(crop_padding=2)
    assert results.dtype == np.uint8
    found = [
        next(i for i, window in enumerate(crops(image, 2)) if (window == result).all())
        for image, result in zip(IMAGES, results, strict=True)
    ]
    assert len(set(found)) > 15


def test_augment_mirrors_half_of_the_images():
    results = augment_images(flip=True)
    kept = (results == IMAGES).all((1, 2, 3))
    mirrored = (results == IMAGES[:, :, ::-1]).all((1, 2, 3))
    assert (kept ^ mirrored).all()
    assert 16 < mirrored.sum() < 48


def test_augment_crop_and_mirror_match_earlier_versions():
    pix = pytest.importorskip("dm_pix")  # whose functions these were

    def one(key, image):
        crop_key, flip_key = jax.random.split(key)
        padded = jax.numpy.pad(image, ((2, 2), (2, 2), (0, 0)))
        return pix.random_flip_left_right(flip_key, pix.random_crop(crop_key, padded, image.shape))

    assert_same_bits(augment_images(crop_padding=2, flip=True), jax.jit(jax.vmap(one))(KEYS, IMAGES))


@pytest.mark.parametrize(
    "options",
    [
        {"crop_padding": 2, "flip": True},
        {"resized_crop": (0.1, 1.0)},
        {"crop_padding": 2, "flip": True, "policy": "trivial_augment"},
        {"policy": "rand_augment"},
        {"policy": "pixmix"},
    ],
)
def test_augment_depends_on_own_key_only(options):
    augment = jitted(**options)
    np.testing.assert_array_equal(augment(KEYS[::-1], IMAGES[::-1])[::-1], augment(KEYS, IMAGES))


def test_augment_takes_the_interpolation_of_resized_crops():
    config = augmentation_config(resized_crop=(0.1, 1.0))
    auto, bilinear, bicubic = (
        np.asarray(augment(KEYS, IMAGES, config, interpolation=each), np.int32)
        for each in ("auto", "bilinear", "bicubic")
    )
    np.testing.assert_array_equal(auto, bilinear)
    assert 1 < np.abs(bicubic - bilinear).mean() < 20  # the same crops
    with pytest.raises(UserError, match="interpolation must be 'auto' or 'bilinear' or 'bicubic'; got 'nearest'"):
        augment(KEYS, IMAGES, config, interpolation="nearest")


def test_augment_is_the_same_on_any_number_of_devices():
    config = augmentation_config(policy="pixmix")
    sharded = pmapped(
        lambda keys, images: augment(keys, images, config, MIXING_IMAGES),
        mesh(),
        in_specs=(SHARDED, SHARDED),
        out_specs=SHARDED,
    )
    assert_same_bits(sharded(KEYS, IMAGES), augment_images(policy="pixmix"))


def test_augment_applies_policy_after_crop_and_mirror():
    with_policy = augment_images(crop_padding=2, flip=True, policy="trivial_augment")
    unchanged = (with_policy == augment_images(crop_padding=2, flip=True)).all((1, 2, 3))
    assert 2 < unchanged.sum() < 32


def test_augment_pixmix_requires_matching_mixing_images():
    config = augmentation_config(policy="pixmix")
    for mixing_images in (None, MIXING_IMAGES[:, :5], MIXING_IMAGES[..., :1]):
        with pytest.raises(UserError, match=r"'pixmix' needs mixing images \[M, at least 6, at least 5, 3\]"):
            augment(KEYS, IMAGES, config, mixing_images)


def test_augment_policies_reject_other_channels():
    config = augmentation_config(policy="trivial_augment")
    with pytest.raises(UserError, match="'trivial_augment' takes images with 1 or 3 channels; got 4"):
        augment(KEYS, np.zeros((64, 6, 5, 4), np.uint8), config)


def test_normalize_equals_torchvision():
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    expected = (IMAGES / 255 - np.array(mean)) / np.array(std)
    result = normalize(jax.numpy.asarray(IMAGES), Normalization(mean, std))
    assert_same_bits(
        jax.jit(normalize)(IMAGES, Normalization(mean, std)),
        jax.jit(normalize, static_argnums=1)(IMAGES, Normalization(mean, std)),
    )
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_measure_normalization_centers_and_scales_channels():
    normalized = np.asarray(normalize(jax.numpy.asarray(IMAGES), measure_normalization(IMAGES)))
    np.testing.assert_allclose(normalized.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(normalized.std((0, 1, 2)), 1, atol=1e-4)


def test_measure_normalization_keeps_constant_channel():
    assert measure_normalization(np.full((2, 3, 3, 1), 51, np.uint8)) == Normalization((0.2,), (1.0,))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_augment_crop_contains_pixels_of_the_image_only(seed):
    keys = jax.random.split(jax.random.key(seed), 64)
    for image, result in zip(IMAGES, np.asarray(jitted(crop_padding=2, flip=True)(keys, IMAGES)), strict=True):
        assert set(result.ravel()) <= set(image.ravel()) | {0}


@pytest.mark.parametrize("policy", ["", *POLICIES])
def test_augment_keeps_grayscale_images(policy):
    config = augmentation_config(crop_padding=1, flip=True, policy=policy)
    images = IMAGES[:4, ..., :1]
    result = jax.eval_shape(lambda keys: augment(keys, images, config, MIXING_IMAGES[..., :1]), KEYS[:4])
    assert (result.shape, result.dtype) == (images.shape, np.uint8)
