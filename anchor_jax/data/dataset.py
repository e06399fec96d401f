"""A dataset in memory, and the checks on its images, labels and class names."""

from typing import NamedTuple

import numpy as np

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError


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
    check_label_names(names, origin)
    return Dataset(images, validate_labels(labels, len(names), origin), names)


def check_label_names(label_names: tuple[str, ...], origin: str) -> None:
    """Raise a `UserError` for fewer than two classes, or for two classes with the same name."""
    if len(label_names) < 2:
        raise UserError(f"{origin} must have at least 2 classes; got {len(label_names)}")
    if len(set(label_names)) < len(label_names):
        duplicate = next(name for row, name in enumerate(label_names) if name in label_names[:row])
        raise UserError(f"two classes of {origin} are named '{duplicate}'; give each class a unique name")


def validate_labels(labels: np.ndarray, num_classes: int, origin: str) -> np.ndarray:
    """Return integer labels as int32.

    Raises:
      UserError: a label is outside [0, `num_classes`).
    """
    low, high = labels.min(), labels.max()
    if low < 0 or high >= num_classes:
        raise UserError(f"labels of {origin} must be in 0..{num_classes - 1}; got values from {low} to {high}")
    return labels.astype(np.int32)


_MAX_NUMBERED_CLASSES = 1_000_000


def numbered_label_names(max_label: int, origin: str) -> tuple[str, ...]:
    """Return "0", "1", ..., `max_label`: the names of classes that have none.

    Raises:
      UserError: `max_label` is so large that it must be a mistake.
    """
    if max_label >= _MAX_NUMBERED_CLASSES:
        raise UserError(f"labels in '{origin}' must be below {_MAX_NUMBERED_CLASSES}; got {max_label}")
    return tuple(str(label) for label in range(max_label + 1))
