"""A dataset in memory, and the checks on its images, labels and class names."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.data.labels import composed_name, simplified_name


@short_repr
class Dataset(NamedTuple):
    """All labeled images of one split, in a fixed order.

    Attributes:
      images: uint8 `[N, H, W, C]`, in 0..255.
      labels: int32 `[N]`, in [0, number of classes).
      label_names: one name per class.

    Example:
      >>> import anchor_jax as aj
      >>> images, labels, label_names = aj.data.load("digits", "test")
      >>> images.shape, labels.shape, len(label_names)
      ((360, 8, 8, 1), (360,), 10)
    """

    images: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]


def validate_dataset(dataset: Dataset, origin: str, channels: int = 0) -> Dataset:
    """Return the dataset with its labels as int32.

    Args:
      dataset: labels may be of any integer dtype.
      origin: what error messages call the dataset.
      channels: C, required if it is above 4, see `checks.channels_last`.

    Raises:
      UserError: a dtype, shape, label or class name does not match the description of `Dataset`.
    """
    images, labels, names = dataset
    if images.dtype != np.uint8:
        raise UserError(f"images of {origin} must be uint8; got {images.dtype}; {checks.AS_STORED}")
    if images.ndim != 4 or 0 in images.shape:
        raise UserError(f"images of {origin} must be [N, H, W, C] and not empty; got {list(images.shape)}")
    checks.channels_last(f"images of {origin}", images.shape, channels, key="config.data.channels")
    if labels.dtype.kind not in "iu":
        raise UserError(f"labels of {origin} must be integers; got {labels.dtype}")
    if labels.shape != (len(images),):
        raise UserError(f"labels of {origin} must be [{len(images)}], one per image; got {list(labels.shape)}")
    names = checks.several(f"class names of {origin}", names)
    check_label_names(names, origin)
    return Dataset(images, validate_labels(labels, len(names), origin), names)


def check_label_names(label_names: tuple[str, ...], origin: str) -> None:
    """Raise a `UserError` for fewer than two classes, or for two classes with the same name in any Unicode form."""
    if len(label_names) < 2:
        raise UserError(f"{origin} must have at least 2 classes; got {len(label_names)}")
    if same := _first_pair(label_names, composed_name):
        raise UserError(f"two classes of {origin} are named '{same[1]}'; give each class a unique name")


def warn_similar_names(label_names: tuple[str, ...], origin: str) -> None:
    """Warn about two classes whose names differ only in case, white space or compatible characters."""
    similar = _first_pair(label_names, simplified_name)
    if similar and composed_name(similar[0]) != composed_name(similar[1]):  # the same name is an error elsewhere
        warnings.warn(
            f"the classes '{similar[0]}' and '{similar[1]}' of {origin} differ only in case or white space; they are "
            "two classes",
            stacklevel=1,  # always the same place: printed once, however often a set is opened
        )


def _first_pair(names: tuple[str, ...], simplify: Callable[[str], str]) -> tuple[str, str] | None:
    """Return the first two names that are the same after simplification."""
    seen: dict[str, str] = {}
    for name in names:
        key = simplify(name)
        if key in seen:
            return seen[key], name
        seen[key] = name
    return None


def validate_labels(labels: np.ndarray, num_classes: int, origin: str) -> np.ndarray:
    """Return integer labels as int32.

    Raises:
      UserError: a label is outside [0, `num_classes`).
    """
    low, high = labels.min(), labels.max()
    if low < 0 or high >= num_classes:
        hint = "; the first class is 0: subtract 1" if (low, high) == (1, num_classes) else ""
        raise UserError(f"labels of {origin} must be in 0..{num_classes - 1}; got values from {low} to {high}{hint}")
    return labels.astype(np.int32)
