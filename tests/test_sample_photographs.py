"""The patches of scikit-learn's photographs."""

from types import SimpleNamespace

import numpy as np
import pytest
from image_files import assert_same_dataset
from small_datasets import read_all

from anchor_jax.core.errors import UserError
from anchor_jax.data import open_dataset, photographs


@pytest.mark.parametrize("image_shape", [(8, 8, 1), (32, 32, 3), (10, 20, 3)])
def test_photographs_shape_and_classes(image_shape):
    stream = open_dataset("photographs", image_shape=image_shape)
    patches = read_all(stream, 100)
    assert patches.images.shape == (360, *image_shape)
    assert (stream.name, patches.label_names) == ("photographs", ("china", "flower"))
    assert_same_dataset(patches, photographs(image_shape))  # the same again
    assert len({image.tobytes() for image in patches.images}) > 350


def test_photographs_are_patches_at_three_scales(monkeypatch):
    height, width = 400, 640
    ramp = np.stack([*np.indices((height, width)) / 4, np.zeros((height, width))], axis=-1).astype(np.uint8)
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: SimpleNamespace(images=[ramp, 255 - ramp]))
    patches, labels, _ = photographs((16, 16, 3), num=60)
    patches = np.where(labels[:, None, None, None] == 1, 255 - patches.astype(int), patches)
    down, right = patches[:, -1, :, 0] - patches[:, 0, :, 0], patches[:, :, -1, 1] - patches[:, :, 0, 1]
    extents = np.stack([down, right]).mean(axis=(0, 2)) * 4 * 16 / 15
    np.testing.assert_allclose(np.sort(extents), np.repeat([50, 100, 200], 20), atol=8)
    np.testing.assert_allclose(down.max(axis=1), down.min(axis=1), atol=2)
    assert (patches[..., 2] == 0).all()


def test_photographs_rejects_other_channels():
    with pytest.raises(UserError, match=r"photographs have 1 or 3 channels, but images of the run are \[8, 8, 2\]"):
        photographs((8, 8, 2))
