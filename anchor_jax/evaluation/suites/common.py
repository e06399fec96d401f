"""Tables and figures that several suites have."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from anchor_jax import metrics
from anchor_jax.evaluation import intervals
from anchor_jax.evaluation.predictions import METRICS
from anchor_jax.evaluation.presentation import (
    GROUP_TITLES,
    Bars,
    Column,
    Figure,
    Highlight,
    ReliabilityDiagrams,
    Table,
    format_num_references,
)
from anchor_jax.evaluation.results import Results, SuiteResult
from anchor_jax.metrics import specs

_Item = TypeVar("_Item")


class Quantity(NamedTuple):
    """A column of a table: a metric, and the other fields of its `Score`."""

    title: str
    metric: str
    fields: Mapping[str, Any] = {}


def quantities(names: Sequence[str] = METRICS, **fields: Any) -> list[Quantity]:
    """Return one column per metric, under its title."""
    return [Quantity(specs.get(name).title, name, fields) for name in names]


def newest(results: Results) -> SuiteResult:
    """Return the result with the most references."""
    return results[max(results)]


def members(result: SuiteResult) -> list[str]:
    """Return the names of the datasets or corruptions of a suite."""
    return list(result.facts.get("members", ()))


def score_table(
    caption: str, rows: Mapping[str, tuple[SuiteResult, Mapping[str, Any]]], columns: Sequence[Quantity], **options: Any
) -> list[Table]:
    """Return a table without its empty columns; no table if all are empty.

    Args:
      caption: of the table.
      rows: title -> result, and the fields of `Score` that make the row.
      columns: of the table.
      **options: of `Table`.
    """
    filled = []
    for title, metric, fields in columns:
        values = [result.value(metric, **of_row, **fields) for result, of_row in rows.values()]
        if any(value is not None for value in values):
            filled.append(Column(title, specs.get(metric), values, partial(_intervals, rows, metric, fields)))
    return [Table(caption, list(rows), filled, **options)] if filled else []


def _intervals(
    rows: Mapping[str, tuple[SuiteResult, Mapping[str, Any]]], metric: str, fields: Mapping[str, Any]
) -> list[intervals.Interval | None]:
    return [intervals.interval(result, metric, **of_row, **fields) for result, of_row in rows.values()]


def by_references(caption: str, results: Results, columns: Sequence[Quantity], **options: Any) -> list[Table]:
    """Return a table with one row per number of references."""
    rows = {format_num_references(num): (result, {}) for num, result in results.items()}
    return score_table(caption, rows, columns, **options)


def by_dataset(result: SuiteResult, columns: Sequence[Quantity]) -> list[Table]:
    """Return a table with one row per dataset."""
    rows = {name: (result, {"dataset": name}) for name in members(result)}
    caption = f"Each set, {format_num_references(result.num_references)}"
    return score_table(caption, rows, columns, mark_best=False)


def class_names(result: SuiteResult) -> list[str]:
    """Return the names of the classes that stored labels and predictions refer to: all, or those of another set."""
    return list(result.facts.get("classes") or result.facts.get("label_names", ()))


def mean_notes(result: SuiteResult) -> list[str]:
    """Return sentences that name the members of each mean."""
    facts = result.facts
    means = {"all": members(result), **facts.get("groups", {}), **facts.get("averages", {})}
    notes = []
    for name, of_mean in means.items():
        title = GROUP_TITLES.get(name) or name
        count = "" if title[0].isdigit() else f" ({len(of_mean)})"
        notes.append(f"Mean over {title}{count}: {', '.join(of_mean)}.")
    return notes if means["all"] else notes[1:]


def highlights(
    title: str, result: SuiteResult, names: Sequence[str] = ("accuracy", "ece"), mean: str = ""
) -> list[Highlight]:
    """Return some metrics of a suite for the top of the report; `mean` says what they are means over."""
    found = [(specs.get(name), result.value(name)) for name in names]
    remark = ", ".join(filter(None, [mean, format_num_references(result.num_references)]))
    return [Highlight(f"{title}: {spec.title}", spec, value, remark) for spec, value in found if value is not None]


def reliability_figure(panels: Mapping[str, tuple[np.ndarray, np.ndarray]], num_bins: int, note: str = "") -> Figure:
    """Return reliability diagrams.

    Args:
      panels: title -> confidence `[N]` and whether the prediction is right `[N]`.
      num_bins: of equal width, as those of the calibration errors.
      note: sentences that end the caption.
    """
    bins = {title: metrics.reliability_bins(*judged, num_bins) for title, judged in panels.items()}
    return Figure(
        "reliability",
        "Reliability",
        "Bars on the dashed line: calibrated; below it: overconfident. The lower panels show the fraction of "
        f"predictions in each bin.{note and ' '}{note}",
        ReliabilityDiagrams(bins),
    )


def accuracy_bars(results: Results, title: str, caption: str, xlabel: str, suffixes: Mapping[str, str]) -> list[Figure]:
    """Return bars of the accuracy on each dataset, one per number of references.

    Args:
      results: of a suite with datasets.
      title: of the figure.
      caption: of the figure.
      xlabel: of the axis.
      suffixes: dataset -> what follows its name.
    """
    groups = {}
    for name in members(newest(results)):
        values = {num: result.value("accuracy", dataset=name) for num, result in results.items()}
        named = {format_num_references(num): value for num, value in values.items() if value is not None}
        groups |= {name + suffixes.get(name, ""): named} if named else {}
    return [Figure("accuracy", title, caption, Bars(groups, xlabel))] if groups else []


def judged(result: SuiteResult, dataset: str | None = None) -> tuple[np.ndarray, np.ndarray] | None:
    """Return confidence `[N]` and correctness `[N]`, if both are stored."""
    confidence, correct = result.column("confidence", dataset), result.column("correct", dataset)
    return None if confidence is None or correct is None else (confidence, correct)


def select_few(items: Sequence[_Item]) -> list[_Item]:
    """Return the first, the middle and the last of more than three items, else all."""
    return list(items) if len(items) <= 3 else [items[0], items[len(items) // 2], items[-1]]


def with_references(result: SuiteResult) -> str:
    """Return the beginning of a caption, such as "With 10 references"."""
    num = result.num_references
    return f"With {format_num_references(num)}" if num else "The standard network"


def plain(name: str) -> str:
    """Return a name with spaces for underscores."""
    return name.replace("_", " ")


def varies(values: np.ndarray) -> bool:
    """Return whether not all values are the same."""
    return bool(np.ptp(values) > 0)
