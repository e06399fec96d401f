"""Single classes: a table of each, and which are taken for which."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import confusion_matrix

from anchor_jax.evaluation.intervals import Interval, of_fraction
from anchor_jax.evaluation.presentation import Column, Confusion, Figure, Table, format_num_references
from anchor_jax.evaluation.results import SuiteResult
from anchor_jax.evaluation.suites import common
from anchor_jax.metrics import specs

MAX_MATRIX = 100  # classes of a legible confusion matrix
_ENDS = 20  # rows at both ends of a long table


class _Predictions(NamedTuple):
    label: np.ndarray  # int [N]
    predicted: np.ndarray  # int [N]
    names: list[str]  # of all classes


def class_tables(result: SuiteResult) -> list[Table]:
    """Return a table of all classes, and one of the pairs that are confused where there are too many for a matrix."""
    rows, confidence = _predictions(result), result.column("confidence")
    if rows is None or confidence is None:
        return []
    num_classes = len(rows.names)
    num, guessed = np.bincount(rows.label, minlength=num_classes), np.bincount(rows.predicted, minlength=num_classes)
    right = np.bincount(rows.label[rows.label == rows.predicted], minlength=num_classes)
    certainty = np.bincount(rows.label, confidence, num_classes)
    columns = [
        _fraction("accuracy = recall", "accuracy", right, num),
        _fraction(specs.get("precision").title, "precision", right, guessed),
        Column(specs.get("confidence").title, specs.get("confidence"), _ratios(certainty, num)),
        Column("images", specs.get("num_examples"), num.tolist()),
    ]
    notes = ["The accuracy on the images of a class is its recall; its precision is that of the predictions of it."]
    shown = None
    if num_classes > 2 * _ENDS:
        known = np.flatnonzero(num)
        ranked = known[np.argsort(right[known] / num[known], kind="stable")].tolist()
        shown = ranked[:_ENDS] + ranked[_ENDS:][-_ENDS:]
        notes.insert(0, f"The {_ENDS} classes with the lowest accuracy, then the {_ENDS} with the highest.")
    references = format_num_references(result.num_references)
    table = Table(f"Each class, {references}", rows.names, columns, False, notes, "classes", shown)
    pairs = _confused_pairs(rows, confidence, num, references) if num_classes > MAX_MATRIX else []
    return [table, *pairs]


def confusion_figures(result: SuiteResult) -> list[Figure]:
    """Return the confusion matrix, unless there are more classes than it can show."""
    rows = _predictions(result)
    if rows is None or len(rows.names) > MAX_MATRIX:
        return []
    caption = (
        f"{common.with_references(result)}: rows are true classes, columns predicted ones, numbers percent of the row; "
        "blue is right, vermilion is wrong."
    )
    counts = confusion_matrix(rows.label, rows.predicted, labels=np.arange(len(rows.names)))
    return [Figure("confusion", "Confusion matrix", caption, Confusion(counts, rows.names))]


def _predictions(result: SuiteResult) -> _Predictions | None:
    """Return labels, predictions and names; None if they are not stored."""
    label, predicted = result.column("label"), result.column("predicted")
    if label is None or predicted is None or not len(label):
        return None
    names = common.class_names(result)
    names += [str(row) for row in range(len(names), int(max(label.max(), predicted.max())) + 1)]
    return _Predictions(label.astype(np.int64), predicted.astype(np.int64), names)


def _confused_pairs(rows: _Predictions, confidence: np.ndarray, num: np.ndarray, references: str) -> list[Table]:
    wrong = rows.label != rows.predicted
    places = rows.label[wrong] * len(rows.names) + rows.predicted[wrong]
    pairs, place, count = np.unique(places, return_inverse=True, return_counts=True)
    if not len(pairs):
        return []
    order = np.argsort(-count, kind="stable")
    certainty = np.bincount(place, confidence[wrong])[order] / count[order]
    label, guess = divmod(pairs[order], len(rows.names))
    columns = [
        Column("images", specs.get("num_examples"), count[order].tolist()),
        Column(specs.get("share").title, specs.get("share"), (count[order] / num[label]).tolist()),
        Column(specs.get("confidence").title, specs.get("confidence"), certainty.tolist()),
    ]
    titles = [f"{rows.names[true]} → {rows.names[taken]}" for true, taken in zip(label, guess, strict=True)]
    num_shown = min(_ENDS, len(pairs))
    notes = [f"The {num_shown} most frequent of {len(pairs):,} pairs: true class → wrongly predicted class."]
    caption = f"Most confused classes, {references}"
    return [Table(caption, titles, columns, False, notes, "confusions", range(num_shown))]


def _fraction(title: str, metric: str, part: np.ndarray, whole: np.ndarray) -> Column:
    """Return a column of fractions; those of nothing are None."""
    values = _ratios(part, whole)

    def intervals() -> Sequence[Interval | None]:
        return [None if of is None else of_fraction(of, int(num)) for of, num in zip(values, whole, strict=True)]

    return Column(title, specs.get(metric), values, intervals)


def _ratios(part: np.ndarray, whole: np.ndarray) -> list[float | None]:
    return [float(a / b) if b else None for a, b in zip(part, whole, strict=True)]
