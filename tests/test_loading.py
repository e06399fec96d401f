"""The data sets that a configuration names, and what is held out of them."""

import numpy as np
import pytest

from anchor_jax import UserError
from anchor_jax.data import load_test, load_train

NAMES, SHAPE = ("0", "1", "2"), (6, 6, 1)


def test_without_a_fraction_nothing_is_held_out(tiny):
    train, held_out = load_train(tiny.data, seed=0)
    assert len(train.images) == len(train.labels) == 96
    assert held_out is None


def test_held_out_part_is_disjoint_stratified_and_follows_from_the_seed(tiny):
    whole, _ = load_train(tiny.data, seed=0)
    tiny.data.validation_fraction = 0.25
    train, held_out = load_train(tiny.data, seed=0)
    assert np.bincount(train.labels).tolist() == [24, 24, 24]
    assert np.bincount(held_out.labels).tolist() == [8, 8, 8]
    both = np.concatenate([train.images, held_out.images]).reshape(96, -1)
    assert {row.tobytes() for row in both} == {image.tobytes() for image in whole.images}
    again, other = load_train(tiny.data, seed=0)[1], load_train(tiny.data, seed=1)[1]
    np.testing.assert_array_equal(held_out.images, again.images)
    assert (held_out.images != other.images).any()


def test_too_few_examples_to_hold_some_out_is_told(tiny):
    tiny.data.validation_fraction = 0.01
    with pytest.raises(UserError, match=r"config.data.validation_fraction=0.01 does not fit"):
        load_train(tiny.data, seed=0)


def test_test_set_has_the_classes_and_images_of_the_training_set(tiny):
    assert len(load_test(tiny.data, NAMES, SHAPE).images) == 40
    with pytest.raises(UserError, match=r"split 'test' has 3 classes: 0, 1, 2, but the training set has 2: 0, 1;"):
        load_test(tiny.data, ("0", "1"), SHAPE)
    with pytest.raises(UserError, match=r"images of split 'test' are \[6, 6, 1\], but .* \[8, 8, 3\]"):
        load_test(tiny.data, NAMES, (8, 8, 3))
