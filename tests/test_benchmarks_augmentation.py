"""The benchmark of augmentation at its smallest: it runs, and its file has the agreed form."""

import numpy as np
import pytest
from test_benchmarks_speed import benchmark
from test_benchmarks_startup_input import results_of


def test_augmentation(tmp_path):
    arguments = ("--sizes=8", "--cases=crop and flip", "--batch_size=4", "--host_images=2")
    numbers = results_of(tmp_path, "augmentation", *arguments)
    assert ("anchor_jax", "crop and flip, 8x8") in numbers


def test_transforms_of_torchvision():
    pytest.importorskip("torchvision")
    from pytorch_augmentation import TRANSFORMS, augment

    images = np.zeros((2, 9, 9, 3), np.uint8)
    for name in TRANSFORMS:
        assert [image.size for image in augment(name, images)] == [(9, 9)] * 2


def test_unknown_case_is_told_in_one_line():
    done = benchmark("augmentation", "--cases=crops")
    assert done.returncode == 1
    assert done.stderr.startswith("error: unknown case 'crops'; allowed: ")
    assert done.stderr.count("\n") == 1
