"""Anomalies that need no download: patches of the two photographs that scikit-learn contains."""

import numpy as np
from PIL import Image

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data.dataset import Dataset
from anchor_jax.data.modes import MODES

_SCALES = (1 / 8, 1 / 4, 1 / 2)  # relative to the largest patch that fits into a photograph


def photographs(image_shape: tuple[int, ...], num: int = 360) -> Dataset:
    """Return patches of scikit-learn's photographs, a temple in China and a flower.

    The patches have three scales and random positions, and are the same in every call.

    Args:
      image_shape: H, W and C of the patches; C is 1 (grayscale) or 3.
      num: number of patches N, at least 2.

    Returns:
      `Dataset` with images uint8 `[N, H, W, C]`, alternating between the classes "china" and "flower".

    Raises:
      UserTypeError: `image_shape` is not a tuple, or `num` not an integer.
      UserError: `image_shape` is not H, W and C, C is neither 1 nor 3, or `num` is below 2.

    Example:
      >>> import anchor_jax as aj
      >>> images, labels, label_names = aj.data.photographs((32, 32, 3), num=6)
      >>> images.shape, labels.tolist(), label_names
      ((6, 32, 32, 3), [0, 1, 0, 1, 0, 1], ('china', 'flower'))
    """
    image_shape = checks.image_shape("image_shape", image_shape, channels=0)
    num = checks.count("num", num, least=2)
    from sklearn.datasets import load_sample_images  # takes a second to import

    height, width, channels = image_shape
    if channels not in MODES:
        raise UserError(f"photographs have 1 or 3 channels, but images of the run are {list(image_shape)}")
    sources = [Image.fromarray(photograph).convert(MODES[channels]) for photograph in load_sample_images().images]
    labels = np.arange(num, dtype=np.int32) % len(sources)
    scales = np.resize(np.repeat(_SCALES, len(sources)), num)
    positions = np.random.default_rng(0).random((num, 2))
    patches = [
        _crop_patch(sources[label], (width, height), scale, position)
        for label, scale, position in zip(labels, scales, positions, strict=True)
    ]
    return Dataset(np.stack(patches).reshape(num, *image_shape), labels, ("china", "flower"))


def _crop_patch(photograph: Image.Image, size: tuple[int, int], scale: float, position: np.ndarray) -> np.ndarray:
    """Crop a patch and resize it.

    Args:
      photograph: the source.
      size: width and height of the result, in pixels.
      scale: of the patch, relative to the largest one of this aspect ratio.
      position: of the patch, `[2]` in [0, 1): from one end of its range to the other.
    """
    largest = min(available / side for available, side in zip(photograph.size, size, strict=True))
    extent = np.array(size) * largest * scale
    corner = (np.array(photograph.size) - extent) * position
    box = (*corner.tolist(), *(corner + extent).tolist())
    return np.asarray(photograph.resize(size, Image.Resampling.BICUBIC, box=box))
