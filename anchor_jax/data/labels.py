"""Labels as arrays store them, numbers or names, and the classes that they make."""

import json
import os
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.data.files import preview, reading_errors, warn_once
from anchor_jax.runtime.paths import absolute_path


class Classes(NamedTuple):
    """The classes of a dataset whose labels are not described otherwise.

    Attributes:
      label_names: the labels, as strings.
      values: the distinct labels, in ascending order, int64 or strings `[classes]`.
    """

    label_names: tuple[str, ...]
    values: np.ndarray

    def rows(self, labels: np.ndarray) -> np.ndarray:
        """Return the rows of labels among the classes: int64 or strings `[N]` -> int32 `[N]`."""
        return np.searchsorted(self.values, labels).astype(np.int32)


def read_class_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read the names of classes, in order: lines of text, or the entry of a config.json of timm or transformers.

    Raises:
      UserError: the file does not exist, has fewer than two different names, or does not number them from 0.
    """
    file = absolute_path("data.classes", path)
    expected = "give the names of the classes, one per line, or a config.json with id2label or label_names"
    with reading_errors(f"file '{file}'", expected):
        text = file.read_text(encoding="utf-8-sig")  # editors of Windows begin a file with a byte order mark
        is_json = file.suffix.lower() == ".json"
        names = _names_in(json.loads(text)) if is_json else tuple(filter(None, map(str.strip, text.splitlines())))
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"'{file}' must hold at least two different names; got {preview(names)}; {expected}")
    return names


def _names_in(content: Any) -> tuple[str, ...]:
    """Return the names in the content of a JSON file; () if there are none.

    Raises:
      ValueError: an entry is not a name, or the names are not numbered from 0.
    """
    if isinstance(content, Mapping):
        content = content.get("id2label") or content.get("label_names") or ()
    if isinstance(content, Mapping):
        rows = list(map(str, range(len(content))))
        if missing := [row for row in rows if row not in content]:
            raise ValueError(f"id2label must number its {len(rows)} classes from 0; it has no {missing[0]}")
        content = [content[row] for row in rows]
    if not isinstance(content, list):
        return ()
    if wrong := [name for name in content if not isinstance(name, str | int) or not str(name).strip()]:
        raise ValueError(f"a class must have a name, a string; got {wrong[0]!r}")
    return tuple(map(str, content))


def read_labels(labels: np.ndarray, origin: str, *, quiet: bool = False) -> np.ndarray:
    """Return stored labels as int64 or as strings in Unicode's composed form (NFC).

    Args:
      labels: `[N]` or `[N, 1]`: integers, whole numbers of a floating-point dtype, booleans, or strings.
      origin: what messages call the labels.
      quiet: do not warn about labels that are not stored as integers or strings.

    Raises:
      UserError: they are something else.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise UserError(
            f"labels of {origin} must be [N], one per image; got {list(labels.shape)}; if they are one-hot, save "
            "labels.argmax(axis=1)"
        )
    if labels.ndim != 1:
        raise UserError(f"labels of {origin} must be [N], one per image; got {list(labels.shape)}")
    if labels.dtype.kind in "SU":
        return _read_names(labels, origin)
    if labels.dtype.kind not in "iufb":
        raise UserError(f"labels of {origin} must be integers or strings; got {labels.dtype}")
    wrong = labels[~(np.isfinite(labels) & (np.floor(labels) == labels))] if labels.dtype.kind == "f" else labels[:0]
    if len(wrong):
        raise UserError(f"labels of {origin} must be integers or strings; got {labels.dtype}, such as {wrong[0]}")
    if len(labels) and not -(2**63) <= int(labels.min()) <= int(labels.max()) < 2**63:
        raise UserError(f"labels of {origin} must fit into 64 bits; got {labels.max()}")
    if labels.dtype.kind in "fb" and not quiet:
        warn_once(f"labels of {origin} are {labels.dtype}; they are read as integers")
    return labels.astype(np.int64)


def _read_names(labels: np.ndarray, origin: str) -> np.ndarray:
    try:
        names = np.char.decode(labels, "utf-8") if labels.dtype.kind == "S" else labels
    except UnicodeDecodeError as error:
        raise UserError(f"labels of {origin} are bytes that are not UTF-8; save them as strings") from error
    distinct, rows = np.unique(names, return_inverse=True)
    composed = np.array([composed_name(name) for name in distinct.tolist()], dtype=np.str_)
    if any(not name.strip() for name in composed.tolist()):
        raise UserError(f"labels of {origin} must not be empty strings; name every class")
    return composed[rows] if len(distinct) else names


def classes_of(labels: Mapping[str, np.ndarray], origin: str) -> Classes:
    """Return the classes of all labels in a file; tell the user if they are not 0, 1, 2, ….

    Args:
      labels: name of the array -> what `read_labels` returned.
      origin: what messages call the file.

    Raises:
      UserError: some arrays are numbers, and some are strings.
    """
    kinds = {values.dtype.kind: name for name, values in labels.items()}
    if len(kinds) > 1:
        numbers, strings = kinds["i"], kinds["U"]
        raise UserError(f"labels of {origin} are numbers in {numbers} and strings in {strings}; save all alike")
    values = np.unique(np.concatenate(list(labels.values())))
    num = len(values)
    if values.dtype.kind == "i" and not np.array_equal(values, np.arange(num)):
        warn_once(
            f"labels of {origin} are {_listed(values)} instead of 0..{num - 1}: they make {num} classes, named by "
            "these numbers"
        )
    return Classes(tuple(map(str, values.tolist())), values)


def rows_of_names(labels: np.ndarray, label_names: tuple[str, ...], origin: str) -> np.ndarray:
    """Return the rows of labels among the declared classes of a dataset; integers are rows already.

    Args:
      labels: what `read_labels` returned.
      label_names: of the dataset.
      origin: what messages call the labels.

    Raises:
      UserError: a label is not among the names.
    """
    if labels.dtype.kind != "U":
        return labels
    row_of = {composed_name(name): row for row, name in enumerate(label_names)}
    distinct, rows = np.unique(labels, return_inverse=True)
    unknown = [name for name in distinct.tolist() if name not in row_of]
    if unknown:
        raise UserError(
            f"{len(unknown)} of the labels of {origin} are not among label_names: {preview(unknown)}; label_names are: "
            f"{preview(label_names)}"
        )
    return np.array([row_of[name] for name in distinct.tolist()], np.int64)[rows]


def composed_name(name: str) -> str:
    """Return a class name in Unicode's composed form: macOS writes "é" in file names as "e" and an accent."""
    return unicodedata.normalize("NFC", name)


def simplified_name(name: str) -> str:
    """Return a class name without differences in case, white space and Unicode form."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _listed(values: np.ndarray) -> str:
    if len(values) > 2 and values[-1] - values[0] == len(values) - 1:
        return f"{values[0]}..{values[-1]}"
    return preview(list(map(str, values.tolist())))
