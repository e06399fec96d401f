"""Source "npz": arrays in an .npz file."""

from typing import Any

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.data.dataset import Dataset, numbered_label_names
from anchor_jax.data.files import open_npz
from anchor_jax.data.sources.source import SourceRequest


def open_npz_split(request: SourceRequest) -> Dataset:
    """Load the arrays `x_{split}` and `y_{split}` of a file, and `label_names` if it is there."""
    x, y = f"x_{request.split}", f"y_{request.split}"
    expected = f"expected: an .npz file with the arrays {x} (uint8 [N, H, W, C]) and {y} (integers [N])"
    path = request.required_path(expected)
    with open_npz(path, expected) as arrays:
        for key in (x, y):
            if key not in arrays.files:
                raise UserError(f"no array '{key}' in '{path}'; it contains: {', '.join(arrays.files)}")
        images, labels = np.asarray(arrays[x]), np.asarray(arrays[y])
        label_names = _read_label_names(arrays, str(path))
    if images.ndim == 3:
        images = images[..., None]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return Dataset(images, labels, label_names)


def _read_label_names(arrays: Any, path: str) -> tuple[str, ...]:
    """Return the array `label_names`, or numbers up to the maximum label of all splits, so that splits agree."""
    if "label_names" in arrays.files:
        names = np.asarray(arrays["label_names"])
        if names.dtype.kind != "U" or names.ndim != 1:
            raise UserError(f"label_names in '{path}' must be strings [classes]; got {names.dtype} {list(names.shape)}")
        return tuple(names.tolist())
    labels = [np.asarray(arrays[key]) for key in arrays.files if key.startswith("y_")]
    max_label = max((int(y.max()) for y in labels if y.size and y.dtype.kind in "iu"), default=-1)
    return numbered_label_names(max_label, path)
