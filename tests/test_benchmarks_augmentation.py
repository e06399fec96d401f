"""The benchmark of augmentation, at its smallest."""

import numpy as np
import pytest
from commands import assert_told
from test_benchmarks_speed import benchmark
from test_benchmarks_startup_input import results_of


def test_augmentation_times_a_case(tmp_path):
    arguments = ("--sizes=8", "--cases=crop and flip", "--batch_size=4", "--host_images=2")
    numbers = results_of(tmp_path, "speed.augmentation", *arguments)
    assert ("anchor_jax", "crop and flip, 8x8") in numbers


def test_torchvision_transforms_keep_the_size():
    pytest.importorskip("torchvision")
    from benchmarks.pytorch.augmentation import TRANSFORMS, augment

    images = np.zeros((2, 9, 9, 3), np.uint8)
    for name in TRANSFORMS:
        assert [image.size for image in augment(name, images)] == [(9, 9)] * 2


def test_augmentation_rejects_unknown_cases():
    assert_told(benchmark("speed.augmentation", "--cases=crops"), 1, "error: unknown case 'crops'; allowed: ")
