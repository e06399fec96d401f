"""Hashes of the content of datasets, which tell whether two evaluations were about the same data.

Arrays in memory are hashed completely. Of files, all names and sizes are hashed, and all bytes unless that would take
long; of more or larger files, blocks of some files. Folders and times do not count, so that moved data stay the same.
"""

import hashlib
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from anchor_jax.data.files import FileList, open_file, reading_errors

UNKNOWN: Callable[[], str] = str  # the content of a dataset about which nothing is known: ""

_MAX_READ_FILES, _MAX_READ_BYTES = 20_000, 2**28  # of files that are hashed completely
_MAX_SIZES = 200_000  # files whose sizes are asked for
_SAMPLED_FILES, _BLOCKS, _BLOCK_BYTES = 1_024, 16, 4_096  # of larger sets


def content_of_arrays(images: np.ndarray, labels: np.ndarray, label_names: tuple[str, ...]) -> str:
    """Return the SHA-256 of labeled images in memory."""
    digest = hashlib.sha256(repr((images.shape, label_names)).encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels, np.int32).data)
    return digest.hexdigest()


def content_of_files(files: FileList, *facts: object) -> str:
    """Return a SHA-256 of image files; see above for what is hashed.

    Args:
      files: in a fixed order.
      *facts: what else the dataset depends on, such as its class names.

    Raises:
      UserError: a file cannot be read.
    """
    digest = hashlib.sha256(repr((len(files), *facts)).encode(errors="surrogateescape"))
    for name in files.names():
        digest.update(name + b"\0")
    sizes = [_size(file) for file in files] if len(files) <= _MAX_SIZES else None
    digest.update(repr(sizes).encode())
    complete = sizes is not None and len(sizes) <= _MAX_READ_FILES and sum(sizes) <= _MAX_READ_BYTES
    rows = range(len(files)) if complete else _spread(len(files) - 1, _SAMPLED_FILES)
    for row in rows:
        for block in _blocks(files[row], complete=complete):
            digest.update(block)
    return digest.hexdigest()


def combined_content(contents: Iterable[str]) -> str:
    """Return the hash of several datasets, in any order; "" if one is unknown."""
    known = sorted(contents)
    if len(known) == 1:
        return known[0]
    return hashlib.sha256("\n".join(known).encode()).hexdigest() if known and all(known) else ""


def content_of_rows(content: Callable[[], str], rows: np.ndarray) -> str:
    """Return the hash of some examples of a dataset; "" if that of the dataset is unknown.

    Args:
      content: () -> hash of the dataset.
      rows: int `[n]`.
    """
    whole = content()
    return hashlib.sha256(whole.encode() + rows.astype("<i8").tobytes()).hexdigest() if whole else ""


def _blocks(file: Path, *, complete: bool) -> Iterable[bytes]:
    if file.is_dir():  # TFDS may keep one next to its files
        return
    with reading_errors(f"'{file}'", "replace or remove it"), open_file(file) as opened:
        if complete:
            yield opened.read()
            return
        for place in _spread(max(_size(file) - _BLOCK_BYTES, 0), _BLOCKS):
            opened.seek(place)
            yield opened.read(_BLOCK_BYTES)


def _size(file: Path) -> int:
    with reading_errors(f"'{file}'", "replace or remove it"):
        status = file.stat()
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _spread(last: int, num: int) -> list[int]:
    """Return at most `num` integers from 0 to `last`, evenly spaced."""
    return np.unique(np.linspace(0, last, min(last + 1, num)).astype(int)).tolist()
