"""Anomalies that need no download: patches of the two photographs that come with scikit-learn."""

import numpy as np
from PIL import Image

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data.dataset import Dataset
from anchor_jax.data.streaming import MODES

_SCALES = (1 / 8, 1 / 4, 1 / 2)  # of the largest patch that a photograph holds


def photographs(image_shape: tuple[int, ...], num: int = 360) -> Dataset:
    """Patches of scikit-learn's photographs, a temple in China and a flower, at three scales and random places.

    Args:
      image_shape: H, W and C of the patches; C is 1 (grey) or 3.
      num: how many, at least 2; the same ones every time.

    Returns:
      `Dataset` of the classes "china" and "flower", in turn.

    Raises:
      UserTypeError: `image_shape` is no tuple, or `num` no integer.
      UserError: `image_shape` is not H, W and C, C is neither 1 nor 3, or `num` is below 2.
    """
    checks.image_shape("image_shape", image_shape)
    num = checks.count("num", num, least=2)
    from sklearn.datasets import load_sample_images  # takes a second to import

    height, width, channels = image_shape
    if channels not in MODES:
        raise UserError(f"photographs have 1 or 3 channels, but images of the run are {list(image_shape)}")
    sources = [Image.fromarray(photograph).convert(MODES[channels]) for photograph in load_sample_images().images]
    labels = np.arange(num, dtype=np.int32) % len(sources)
    scales = np.resize(np.repeat(_SCALES, len(sources)), num)
    places = np.random.default_rng(0).random((num, 2))
    patches = [
        _patch(sources[label], (width, height), *rest) for label, *rest in zip(labels, scales, places, strict=True)
    ]
    return Dataset(np.stack(patches).reshape(num, *image_shape), labels, ("china", "flower"))


def _patch(photograph: Image.Image, size: tuple[int, int], scale: float, place: np.ndarray) -> np.ndarray:
    """A part of a photograph, `scale` times the largest of its shape; `place` in [0, 1) says where."""
    largest = min(whole / part for whole, part in zip(photograph.size, size, strict=True))
    extent = np.array(size) * largest * scale
    corner = (np.array(photograph.size) - extent) * place
    box = (*corner.tolist(), *(corner + extent).tolist())
    return np.asarray(photograph.resize(size, Image.Resampling.BICUBIC, box=box))
