"""Source "digits": the 8 x 8 handwritten digits that scikit-learn contains."""

import numpy as np

from anchor_jax.core import errors
from anchor_jax.data.dataset import Dataset
from anchor_jax.data.sources.source import SourceRequest


def open_digits(request: SourceRequest) -> Dataset:
    """Load the split "train" (1,437 images) or "test" (360 images, stratified by class)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if request.split not in ("train", "test"):
        raise errors.unknown("split of digits", request.split, ("train", "test"))
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    train, test = train_test_split(np.arange(len(labels)), test_size=360, random_state=0, stratify=labels)
    rows = train if request.split == "train" else test
    images = np.rint(pixels[rows] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return Dataset(images, labels[rows], tuple("0123456789"))
