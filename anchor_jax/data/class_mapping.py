"""Map the classes of a dataset to those of a run."""

import dataclasses
import re

import numpy as np

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data.dataset import Dataset
from anchor_jax.data.eval_dataset import EvalDataset
from anchor_jax.data.files import preview, warn_once
from anchor_jax.data.labels import composed_name, simplified_name


class UnknownClassesError(UserError):
    """A dataset has classes that a run lacks."""


def class_rows(
    label_names: tuple[str, ...], run_label_names: tuple[str, ...], origin: str = "the dataset"
) -> np.ndarray | None:
    """Return the row of each of a dataset's classes among the classes of a run.

    Classes are the same if their names are, in any Unicode form. Some datasets, such as `tfds:cifar10_1`, have numbers
    instead of class names. If the run has names, and the largest number is that of its last class, the numbers are
    taken as the run's classes in order, and a warning says so.

    Args:
      label_names: of the dataset: some or all of the run's classes, in any order.
      run_label_names: of the run.
      origin: what messages call the dataset.

    Returns:
      int32 `[classes of the dataset]`, the logits to keep; None if the classes are the same.

    Raises:
      UserTypeError: the names are not tuples.
      UserError: the run does not have one of the dataset's classes.

    Example:
      >>> import anchor_jax as aj
      >>> aj.data.class_rows(("dog", "ant"), ("ant", "bee", "cat", "dog")).tolist()
      [3, 0]
      >>> aj.data.class_rows(("ant", "bee"), ("ant", "bee")) is None
      True
    """
    label_names = checks.several("label_names", label_names)
    run_label_names = checks.several("run_label_names", run_label_names)
    if label_names == run_label_names:
        return None
    row_of = {composed_name(name): row for row, name in enumerate(run_label_names)}
    row_of |= {name: row for row, name in enumerate(run_label_names)}
    unknown = [name for name in label_names if _find(name, row_of) is None]
    if unknown and _are_positions(label_names, run_label_names):
        warn_once(
            f"{origin} has no class names: its labels are taken as the run's classes in order, 0 as "
            f"'{run_label_names[0]}', 1 as '{run_label_names[1]}', …"
        )
        row_of, unknown = {name: int(name) for name in label_names}, []
    if unknown:
        raise UnknownClassesError(
            f"{len(unknown)} of the {len(label_names)} classes of {origin} are not among the run's "
            f"{len(run_label_names)}: {preview(unknown)}; the run has: {preview(run_label_names)}"
            f"{_similar(unknown, run_label_names)}"
        )
    rows = np.array([_find(name, row_of) for name in label_names], np.int32)
    return None if np.array_equal(rows, np.arange(len(run_label_names))) else rows


def remap_labels(dataset: EvalDataset, label_names: tuple[str, ...], origin: str = "") -> EvalDataset:
    """Return the dataset with the labels and `label_names` of a run; warn if it has only some of the classes.

    Raises:
      UserError: it has other classes than the run; see `class_rows`.
    """
    rows = complete_class_rows(dataset.label_names, label_names, origin or f"'{dataset.name}'")
    return with_class_rows(dataset, label_names, rows)


def remap_dataset(dataset: Dataset, label_names: tuple[str, ...], origin: str) -> Dataset:
    """Return a dataset in memory with the labels and `label_names` of a run; see `remap_labels`."""
    rows = class_rows(dataset.label_names, label_names, origin)
    labels = dataset.labels if rows is None else rows[dataset.labels]
    return Dataset(dataset.images, labels, label_names)


def with_class_rows(dataset: EvalDataset, label_names: tuple[str, ...], rows: np.ndarray | None) -> EvalDataset:
    """Return the dataset with the labels and `label_names` of a run; `rows` as returned by `class_rows`."""
    if rows is None:
        return dataclasses.replace(dataset, label_names=label_names)
    return dataset.relabelled(label_names, rows)


def complete_class_rows(
    label_names: tuple[str, ...], run_label_names: tuple[str, ...], origin: str
) -> np.ndarray | None:
    """Return `class_rows`, and warn if some of the run's classes are missing."""
    rows = class_rows(label_names, run_label_names, origin)
    if rows is not None:
        warn_empty_classes(rows, run_label_names, origin)
    return rows


def warn_empty_classes(labels: np.ndarray, label_names: tuple[str, ...], origin: str) -> None:
    """Warn if a class does not occur among the labels, int `[N]`."""
    missing = np.setdiff1d(np.arange(len(label_names)), labels)
    if len(missing):
        warn_once(
            f"{origin} has no example of {len(missing)} of the {len(label_names)} classes: "
            f"{preview([label_names[row] for row in missing])}"
        )


def warn_shared_classes(label_names: tuple[str, ...], run_label_names: tuple[str, ...], origin: str) -> None:
    """Warn if anomalies have classes, other than numbers, that the run has too."""
    known = set(map(composed_name, run_label_names))
    shared = [name for name in label_names if composed_name(name) in known and not _is_number(name)]
    if shared:
        warn_once(
            f"{len(shared)} of the {len(label_names)} classes of {origin} are also classes of the run: "
            f"{preview(shared)}; their images count as anomalies"
        )


def drop_empty_classes(dataset: EvalDataset) -> EvalDataset:
    """Return the dataset without the classes that have no examples."""
    present = np.unique(dataset.labels())
    rows = np.full(len(dataset.label_names), -1, np.int32)
    rows[present] = np.arange(len(present))
    return dataset.relabelled(tuple(dataset.label_names[label] for label in present), rows)


def _find(name: str, row_of: dict[str, int]) -> int | None:
    return row_of.get(name, row_of.get(composed_name(name)))


def _is_number(name: str) -> bool:
    return re.fullmatch(r"-?\d+", name, re.ASCII) is not None


def _are_positions(label_names: tuple[str, ...], run_label_names: tuple[str, ...]) -> bool:
    """Return whether a dataset has numbers for names that count the named classes of a run."""
    positions = {str(row): row for row in range(len(run_label_names))}
    rows = [positions.get(name, -1) for name in label_names]
    return min(rows) >= 0 and max(rows) == len(run_label_names) - 1 and not all(map(_is_number, run_label_names))


def _similar(unknown: list[str], run_label_names: tuple[str, ...]) -> str:
    """Return a hint if an unknown name is spelled almost as one of the run's."""
    spelled = {simplified_name(name): name for name in run_label_names}
    for name in unknown:
        if other := spelled.get(simplified_name(name)):
            return f"; '{name}' and the run's '{other}' differ only in case or white space: rename one"
    return ""
