"""What every source of data gives, and the reading of files that may be damaged."""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from anchor_jax.core.errors import UserError


class Dataset(NamedTuple):
    """All images of one split, in a fixed order."""

    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray  # int32 [N], in [0, len(label_names))
    label_names: tuple[str, ...]


def validate_dataset(dataset: Dataset, where: str) -> Dataset:
    """The data set with int32 labels, refused if it is not what `Dataset` says; `where` it is from."""
    images, labels, names = dataset
    if images.dtype != np.uint8:
        raise UserError(f"images of {where}: uint8 expected, got {images.dtype}")
    if images.ndim != 4 or 0 in images.shape:
        raise UserError(f"images of {where}: non-empty [N, H, W, C] expected, got {list(images.shape)}")
    if labels.dtype.kind not in "iu":
        raise UserError(f"labels of {where}: integers expected, got {labels.dtype}")
    if labels.shape != (len(images),):
        raise UserError(f"labels of {where}: [{len(images)}] expected, got {list(labels.shape)}")
    check_classes(names, where)
    return Dataset(images, validate_labels(labels, len(names), where), names)


def check_classes(label_names: tuple[str, ...], where: str) -> None:
    """Refuse names of fewer than two classes, and names that are not of one class alone."""
    if len(label_names) < 2:
        raise UserError(f"{where} has {len(label_names)} class; at least 2 are needed")
    if len(set(label_names)) < len(label_names):
        twice = next(name for row, name in enumerate(label_names) if name in label_names[:row])
        raise UserError(f"two classes of {where} are called '{twice}'; give each a name of its own")


def validate_labels(labels: np.ndarray, num_classes: int, where: str) -> np.ndarray:
    """Integer labels as int32, refused where they name none of the classes."""
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(f"labels of {where}: 0 to {num_classes - 1} expected, got {labels.min()} to {labels.max()}")
    return labels.astype(np.int32)


def first_of(names: Sequence[str]) -> str:
    """The first names of many, for a message."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


@contextlib.contextmanager
def reading_errors(what: str, mend: str) -> Iterator[None]:
    """Tells every failure to read `what` as one UserError that ends in how to mend it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Pillow, zipfile, NumPy and TFDS raise a dozen kinds on damaged bytes
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"cannot read {what} ({type(error).__name__}: {reason}); {mend}") from error


def check_regular(path: Path) -> None:
    """Refuse a pipe or a device, whose bytes may never come or never end."""
    if not path.is_dir() and not stat.S_ISREG(path.stat().st_mode):
        raise OSError("it is no regular file")


def open_file(path: Path) -> BinaryIO:
    """A regular file, open to be read."""
    check_regular(path)
    return path.open("rb")


def absolute(path: str | os.PathLike[str]) -> Path:
    """A path that a user gave, with "~" and ".." resolved, and links as they are.

    Raises:
      UserError: it begins with "~" and a name that is no user's.
    """
    try:
        return Path(os.path.abspath(Path(path).expanduser()))
    except RuntimeError as error:
        raise UserError(f"there is no home folder for '{path}'; write the path in full") from error


@contextlib.contextmanager
def open_npz(path: Path, mend: str) -> Iterator[Any]:
    """The arrays of an .npz file; see `reading`. No file can run code: objects are refused."""
    # np.load leaves a damaged file open if it opened it itself
    with reading_errors(f"'{path}'", mend), open_file(path) as file, np.load(file, allow_pickle=False) as arrays:
        yield arrays
