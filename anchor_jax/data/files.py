"""Read files that may be missing, corrupt or malicious."""

import contextlib
import itertools
import logging
import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from anchor_jax.core.errors import UserError

_LOGGED = set[str]()


@contextlib.contextmanager
def reading_errors(what: str, hint: str) -> Iterator[None]:
    """Turn every exception raised while reading `what` into a one-line `UserError` that ends in `hint`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Pillow, zipfile, NumPy and TFDS raise a dozen types on corrupt bytes
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"cannot read {what} ({type(error).__name__}: {reason}); {hint}") from error


def check_regular_file(path: Path) -> None:
    """Raise an `OSError` for a pipe or a device: reading one may block or never end."""
    if not path.is_dir() and not stat.S_ISREG(path.stat().st_mode):
        raise OSError("not a regular file")


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading."""
    check_regular_file(path)
    return path.open("rb")


@contextlib.contextmanager
def open_npz(path: Path, hint: str) -> Iterator[Any]:
    """Open an .npz file; object arrays, which could run code when unpickled, raise an error.

    Args:
      path: the file.
      hint: how to fix a file that cannot be read, see `reading_errors`.
    """
    # np.load leaks the file handle on a corrupt file unless it is given an open file
    with reading_errors(f"'{path}'", hint), open_file(path) as file, np.load(file, allow_pickle=False) as arrays:
        yield arrays


def preview(names: Sequence[str]) -> str:
    """Return the first five names, separated by commas, for a message."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def warn_once(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, always from this place: Python prints a warning once per place, however often a dataset is opened."""
    warnings.warn(message, category, stacklevel=1)


def log_once(line: str, *values: object) -> None:
    """Log a warning once, whatever values later ones would have. Commands print it."""
    if line not in _LOGGED:
        _LOGGED.add(line)
        logging.getLogger("anchor_jax").warning(line, *values)


class FileList(Sequence[Path]):
    """Files in one folder, stored as a single byte string: millions of `Path` objects would take gigabytes."""

    def __init__(self, folder: Path, names: Iterable[str]):
        encoded = [os.fsencode(name) for name in names]
        self._folder = folder
        self._names = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> Path:  # pyright: ignore[reportIncompatibleMethodOverride]  # no slices
        return self._folder / self.name(row)

    def name(self, row: int) -> str:
        """Return the path of a file relative to the folder."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        return os.fsdecode(self._names[self._ends[row] : self._ends[row + 1]])

    def names(self) -> Iterator[bytes]:
        """Yield the paths of all files relative to the folder, encoded."""
        for start, end in itertools.pairwise(self._ends):
            yield self._names[start:end]
