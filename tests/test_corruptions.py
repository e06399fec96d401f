"""The interface of the corruptions: names, keys and devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from anchor_jax.data.corruptions import (
    APPROXIMATIONS,
    C_BAR_CIFAR,
    C_BAR_IMAGENET,
    CORRUPTIONS,
    CORRUPTIONS_15,
    CORRUPTIONS_19,
    corrupt,
    corrupt_each,
)
from anchor_jax.runtime import mesh as mesh_lib

KEY = jax.random.key(0)
DETERMINISTIC = (
    *("gaussian_blur", "defocus_blur", "zoom_blur", "brightness", "contrast"),
    *("pixelate", "jpeg_compression", "saturate"),
)


def digits(num):
    return np.uint8(load_digits().images[:num, ..., None] * 15.9)


def test_corruption_names_are_complete():
    assert (len(CORRUPTIONS_15), len(CORRUPTIONS_19), len(C_BAR_CIFAR), len(C_BAR_IMAGENET)) == (15, 19, 10, 10)
    published = {*CORRUPTIONS_19, *C_BAR_CIFAR, *C_BAR_IMAGENET}
    assert len(published) == 34
    assert CORRUPTIONS.keys() >= published >= APPROXIMATIONS.keys()


def test_corruptions_have_five_severities_per_image_size():
    assert {(len(corruption.small), len(corruption.large)) for corruption in CORRUPTIONS.values()} == {(5, 5)}


@pytest.mark.parametrize("name", dict.fromkeys((*CORRUPTIONS_19, *C_BAR_CIFAR, *C_BAR_IMAGENET)))
def test_corrupt_depends_on_own_key_and_pixels_only(name):
    images = digits(8)
    corrupted = np.asarray(corrupt(KEY, images, name, 4))
    assert corrupted.shape == images.shape
    assert corrupted.dtype == np.uint8
    if name != "pinch_and_twirl":  # its disks have two pixels
        assert (corrupted != images).any()
    np.testing.assert_array_equal(corrupt(KEY, jnp.array(images), name, 4), corrupted)
    others = 255 - images
    others[2] = images[2]
    np.testing.assert_array_equal(corrupt(KEY, others, name, 4)[2], corrupted[2])


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS_19 if name not in DETERMINISTIC])
def test_corrupt_depends_on_the_key(name):
    images = np.repeat(digits(1), 8, axis=0)
    one, other = (np.asarray(corrupt(jax.random.key(seed), images, name, 4)) for seed in (1, 2))
    assert (one != other).any()
    assert (one[0] != one[1]).any()


@pytest.mark.parametrize("name", ["glass_blur", "frost"])
def test_corrupt_each_is_the_same_on_eight_devices(name):
    images = digits(8)
    keys = jax.vmap(partial(jax.random.fold_in, KEY))(jnp.arange(8))
    one, eight = (
        mesh_lib.pmapped(
            partial(corrupt_each, name=name, severity=4),
            mesh_lib.mesh(num),
            in_specs=(mesh_lib.SHARDED, mesh_lib.SHARDED),
            out_specs=mesh_lib.SHARDED,
        )(keys, images)
        for num in (1, 8)
    )
    np.testing.assert_array_equal(one, eight)
    difference = np.abs(np.asarray(one).astype(int) - corrupt(KEY, images, name, 4))
    assert difference.max() <= 1  # another program may add in another order
    assert (difference > 0).mean() < 0.01
