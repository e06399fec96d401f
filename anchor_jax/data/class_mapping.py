"""Map the classes of a dataset to those of a run."""

import dataclasses

import numpy as np

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data.eval_dataset import EvalDataset
from anchor_jax.data.files import preview


def class_rows(
    label_names: tuple[str, ...], run_label_names: tuple[str, ...], origin: str = "the dataset"
) -> np.ndarray | None:
    """Return the row of each of a dataset's classes among the classes of a run.

    Some datasets, such as `tfds:cifar10_1`, have numbers instead of class names. If a dataset has as many classes as
    the run and they are named "0", "1", ..., these are taken as the run's labels.

    Args:
      label_names: of the dataset: some or all of the run's classes, in any order.
      run_label_names: of the run.
      origin: what error messages call the dataset.

    Returns:
      int32 `[classes of the dataset]`, the logits to keep; None if the classes are the same.

    Raises:
      UserTypeError: the names are not tuples.
      UserError: the run does not have one of the dataset's classes.

    Example:
      >>> import anchor_jax as aj
      >>> aj.data.class_rows(("dog", "ant"), ("ant", "bee", "cat", "dog")).tolist()
      [3, 0]
      >>> aj.data.class_rows(("0", "1"), ("ant", "bee")) is None
      True
    """
    checks.several("label_names", label_names)
    checks.several("run_label_names", run_label_names)
    if label_names == run_label_names:
        return None
    numbers = [str(number) for number in range(len(run_label_names))]
    is_numbered = sorted(label_names) == sorted(numbers)
    row_of = {name: row for row, name in enumerate(numbers if is_numbered else run_label_names)}
    unknown = [name for name in label_names if name not in row_of]
    if unknown:
        raise UserError(
            f"{len(unknown)} of the {len(label_names)} classes of {origin} are not among the run's "
            f"{len(run_label_names)}: {preview(unknown)}; the run has: {preview(run_label_names)}"
        )
    rows = np.array([row_of[name] for name in label_names], np.int32)
    return None if np.array_equal(rows, np.arange(len(run_label_names))) else rows


def remap_labels(dataset: EvalDataset, label_names: tuple[str, ...]) -> EvalDataset:
    """Return the dataset with the labels and `label_names` of a run.

    Raises:
      UserError: its classes are not those of the run, in any order; see `class_rows`.
    """
    check_same_classes(dataset.label_names, label_names, f"'{dataset.name}'")
    rows = class_rows(dataset.label_names, label_names)
    if rows is None:
        return dataclasses.replace(dataset, label_names=label_names)
    return dataset.relabelled(label_names, rows)


def check_same_classes(label_names: tuple[str, ...], run_label_names: tuple[str, ...], origin: str) -> None:
    """Raise a `UserError` unless the classes are all those of the run, in any order; see `class_rows`."""
    rows = class_rows(label_names, run_label_names, origin)
    missing = [] if rows is None else np.setdiff1d(np.arange(len(run_label_names)), rows)
    if len(missing):
        raise UserError(
            f"{origin} has only {len(label_names)} of the run's {len(run_label_names)} classes; missing: "
            f"{preview([run_label_names[row] for row in missing])}"
        )


def drop_empty_classes(dataset: EvalDataset) -> EvalDataset:
    """Return the dataset without the classes that have no examples."""
    present = np.unique(dataset.labels())
    rows = np.full(len(dataset.label_names), -1, np.int32)
    rows[present] = np.arange(len(present))
    return dataset.relabelled(tuple(dataset.label_names[label] for label in present), rows)
