"""A first layer that whitens patches."""

from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from anchor_jax import config
from anchor_jax.core.errors import UserError
from anchor_jax.models.whitening import whitening_kernel
from anchor_jax.training.loop import train


def _smooth_images(num: int, seed: int = 0) -> np.ndarray:
    """Return images [num, 8, 8, 3] whose neighboring pixels and channels are correlated."""
    noise = np.random.default_rng(seed).normal(size=(num, 9, 9, 4))
    return (noise[:, 1:, :-1] + noise[:, :-1, 1:])[..., 1:] + noise[:, 1:, 1:, :1]


def _responses(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return the outputs of a convolution, one row per patch."""
    outputs = jax.lax.conv_general_dilated(
        images.astype(np.float32), kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return np.asarray(outputs, np.float64).reshape(-1, kernel.shape[-1])


def test_whitening_kernel_whitens_patches():
    images = _smooth_images(500)
    kernel = whitening_kernel(images, 2, 24, anchored=False)
    assert kernel.shape == (2, 2, 3, 24)
    np.testing.assert_array_equal(kernel[..., 12:], -kernel[..., :12])
    whitened = np.cov(_responses(images, kernel)[:, :12], rowvar=False)
    np.testing.assert_allclose(whitened, np.eye(12), atol=2e-3)  # up to the constant added to the variances


def test_whitening_kernel_whitens_reference_and_residual_alone():
    images, references = _smooth_images(4_000), _smooth_images(4_000, seed=1)
    kernel = whitening_kernel(images, 2, 48, anchored=True)
    responses = _responses(np.concatenate([references, images - references], axis=-1), kernel)
    of_reference, of_residual = responses[:, :12], responses[:, 24:36]
    np.testing.assert_allclose(np.cov(of_reference, rowvar=False), np.eye(12), atol=0.05)
    np.testing.assert_allclose(np.cov(of_residual, rowvar=False), np.eye(12), atol=0.05)
    assert not kernel[:, :, 3:, :24].any()
    assert not kernel[:, :, :3, 24:].any()


def test_whitening_kernel_keeps_largest_components_first():
    images = _smooth_images(500)
    few, all_ = (whitening_kernel(images, 2, features, anchored=False) for features in (8, 24))
    np.testing.assert_array_equal(few[..., :4], all_[..., :4])
    assert np.linalg.norm(all_[..., 0]) < np.linalg.norm(all_[..., 11])  # a larger variance is divided by more


@pytest.mark.parametrize(("features", "anchored"), [(7, False), (26, False), (6, True), (52, True)])
def test_whitening_kernel_rejects_number_of_features(features, anchored):
    with pytest.raises(UserError, match=f"multiple of {4 if anchored else 2} and at most .*; got {features}"):
        whitening_kernel(_smooth_images(2), 2, features, anchored=anchored)


def test_training_starts_from_whitened_stem(tiny, tmp_path, capsys):
    tiny.data.path = _npz_of_three_classes(tmp_path / "images.npz")
    tiny.model.name, tiny.model.options = "fastnet", ConfigDict({"width": 4, "stem_width": 8})
    tiny.model.whiten_stem = True
    tiny.optimizer.learning_rate = 0.0
    tiny.training.total_epochs = 1.0
    trained = train(tiny, tmp_path / "run")
    with np.load(tiny.data.path) as arrays:
        pixels = arrays["x_train"] / 255
    normalized = (pixels - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2))
    expected = whitening_kernel(normalized, 2, 8, anchored=True)
    np.testing.assert_allclose(trained.params["stem_conv"]["kernel"], expected, rtol=1e-3, atol=1e-4)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"the first layer whitens 2×2 patches, measured on {len(pixels)} training images" in printed


def test_whitened_stem_needs_fastnet(tiny):
    tiny.model.whiten_stem = True
    with pytest.raises(UserError, match=r"whiten_stem needs config.model.name='fastnet' and no config.model.weights"):
        config.validate(tiny)


def _npz_of_three_classes(file: Path) -> str:
    images = np.random.default_rng(0).integers(0, 256, (96, 10, 10, 1)).astype(np.uint8)
    labels = np.arange(96) % 3
    np.savez(file, x_train=images, y_train=labels, x_test=images[:12], y_test=labels[:12])
    return str(file)
