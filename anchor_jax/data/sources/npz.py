"""Source "npz": arrays in an .npz file."""

from typing import Any

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.data.dataset import Dataset
from anchor_jax.data.files import open_npz
from anchor_jax.data.labels import classes_of, read_labels, rows_of_names
from anchor_jax.data.sources.source import SourceRequest


def open_npz_split(request: SourceRequest) -> Dataset:
    """Load the arrays `x_{split}` and `y_{split}` of a file, and `label_names` if it is there.

    Without `label_names`, the distinct labels of all splits are the classes, so that the splits agree.
    """
    x, y = f"x_{request.split}", f"y_{request.split}"
    expected = f"expected: an .npz file with the arrays {x} (uint8 [N, H, W, C]) and {y} (integers or strings [N])"
    path = request.required_path(expected)
    with open_npz(path, expected) as arrays:
        for key in (x, y):
            if key not in arrays.files:
                raise UserError(f"no array '{key}' in '{path}'; it contains: {', '.join(arrays.files)}")
        images, labels = np.asarray(arrays[x]), read_labels(np.asarray(arrays[y]), f"npz split '{request.split}'")
        label_names = _read_label_names(arrays, str(path))
        others = {} if label_names else _labels_of_other_splits(arrays, request.split)
    if images.ndim == 3:
        images = images[..., None]
    if label_names:
        return Dataset(images, rows_of_names(labels, label_names, f"npz split '{request.split}'"), label_names)
    classes = classes_of({y: labels, **others}, f"'{path}'")
    return Dataset(images, classes.rows(labels), classes.label_names)


def _read_label_names(arrays: Any, path: str) -> tuple[str, ...]:
    """Return the array `label_names`, or () if there is none."""
    if "label_names" not in arrays.files:
        return ()
    names = np.asarray(arrays["label_names"])
    if names.dtype.kind != "U" or names.ndim != 1 or not len(names):
        raise UserError(f"label_names in '{path}' must be strings [classes]; got {names.dtype} {list(names.shape)}")
    return tuple(names.tolist())


def _labels_of_other_splits(arrays: Any, split: str) -> dict[str, np.ndarray]:
    """Return the labels of the other splits, by the names of their arrays; what cannot be labels is left to `load`."""
    labels = {}
    for key in arrays.files:
        other = key.removeprefix("y_")
        if key.startswith("y_") and other != split:
            stored = np.asarray(arrays[key])  # also of arrays without images: a pickled array raises an error
            if f"x_{other}" in arrays.files and stored.size:
                try:
                    labels[key] = read_labels(stored, f"npz split '{other}'", quiet=True)
                except UserError:
                    continue
    return labels
