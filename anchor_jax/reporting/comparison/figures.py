"""Which pictures a comparison has."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anchor_jax import metrics
from anchor_jax.evaluation import suites
from anchor_jax.evaluation.presentation import ReliabilityDiagrams
from anchor_jax.reporting.comparison import plots
from anchor_jax.reporting.comparison.labels import metric_of, title
from anchor_jax.reporting.comparison.plots import Panel
from anchor_jax.reporting.comparison.runs import Method
from anchor_jax.reporting.comparison.statistics import Summary
from anchor_jax.reporting.comparison.table import Comparison, SuiteTable
from anchor_jax.reporting.plots import save

# of a suite, the headlines that get a panel each, by pattern
_PANELS = {
    "clean": "accuracy|nll|brier|ece|smooth_ece|aurc",
    "corruptions": "accuracy|severity5/accuracy|nll|brier|ece|smooth_ece",
    "ood": "[^/]+/auroc",
    "protocols": ".+/(accuracy|ece|seconds_per_1000)",
}
_MOST_PANELS = 9
_GROUPS = {"": "mean of all sets", "near/": "mean of the near sets", "far/": "mean of the far sets"}


class Picture(NamedTuple):
    """A figure's file, title and caption."""

    file: Path
    title: str
    caption: str


def draw(comparison: Comparison, folder: Path) -> dict[str, list[Picture]]:
    """Draw all pictures.

    Args:
      comparison: what is drawn.
      folder: for the PNG files.

    Returns:
      Suite -> its pictures, in the order of reading.
    """
    return {table.suite: list(_of_suite(comparison, table, folder)) for table in comparison.suites}


def _of_suite(comparison: Comparison, table: SuiteTable, folder: Path) -> Iterator[Picture]:
    if suites.find(table.suite).name == "corruptions":
        yield from _severity(comparison, table, folder)
    if suites.find(table.suite).name == "ood":
        yield from _areas(comparison, table, folder)
    if metrics := _panels(table):
        panels = {metric: Panel(title(metric), metric_of(metric).is_fraction) for metric in metrics}
        yield from _dots(comparison, table, panels, folder)
    if suites.find(table.suite).name == "clean":
        yield from _reliability(comparison, table, folder)


def _panels(table: SuiteTable) -> list[str]:
    pattern = _PANELS.get(suites.find(table.suite).name, ".+")
    return [metric for metric in table.headlines if re.fullmatch(pattern, metric)][:_MOST_PANELS]


def _dots(comparison: Comparison, table: SuiteTable, panels: dict[str, Panel], folder: Path) -> Iterator[Picture]:
    names = [method.name for method in comparison.methods]
    values = {
        panel: {method: entry.summary for method, entry in table.entries[metric].items()}
        for metric, panel in panels.items()
    }
    plots.values(values, names, path := folder / f"{table.suite}-values.png")
    yield Picture(
        path,
        "Every method over its seeds",
        "The dot is the mean, each tick a seed, the line one standard deviation to both sides. Arrows point to what is "
        "better.",
    )
    differences = {
        panel: {
            method: (entry.over_seeds, entry.over_examples)
            for method, entry in table.entries[metric].items()
            if entry.over_seeds or entry.over_examples
        }
        for metric, panel in panels.items()
    }
    if differences := {panel: of for panel, of in differences.items() if of}:
        path = folder / f"{table.suite}-differences.png"
        plots.differences(differences, names[1:], path)
        yield Picture(
            path,
            f"Difference to {names[0]}",
            "In points where the metric is in per cent. Lines are 95 % intervals of the paired difference: circles "
            "over seeds, for training anew; diamonds over test examples, for other images. Where a line leaves 0 out, "
            "chance of that kind hardly explains the difference. A mark without a line has no spread to take one from.",
        )


def _severity(comparison: Comparison, table: SuiteTable, folder: Path) -> Iterator[Picture]:
    clean = next((each for each in comparison.suites if each.suite == "clean"), None)
    curves = {}
    for metric, quantity in (("accuracy", "accuracy"), ("ece", "expected calibration error")):
        by_method = {method.name: _curve(table, clean, metric, method) for method in comparison.methods}
        if by_method := {method: curve for method, curve in by_method.items() if curve}:
            curves[quantity] = by_method
    if curves:
        names = [method.name for method in comparison.methods]
        plots.severity(curves, names, path := folder / "corruptions-severity.png")
        yield Picture(
            path,
            "Against severity",
            "Mean over the corruptions at each severity; bands are one standard deviation over seeds.",
        )


def _curve(table: SuiteTable, clean: SuiteTable | None, metric: str, method: Method) -> dict[int, Summary]:
    found = {} if clean is None else {0: clean.entries.get(metric, {}).get(method.name)}
    found |= {
        severity: table.entries.get(f"severity{severity}/{metric}", {}).get(method.name) for severity in range(1, 6)
    }
    return {severity: entry.summary for severity, entry in found.items() if entry}


def _areas(comparison: Comparison, table: SuiteTable, folder: Path) -> Iterator[Picture]:
    groups = {}
    for prefix, group in _GROUPS.items():
        areas = {
            metric.removeprefix(prefix).removesuffix("/auroc"): {
                method: entry.summary for method, entry in entries.items()
            }
            for metric, entries in table.entries.items()
            if metric.startswith(prefix) and metric.endswith("/auroc") and metric.removeprefix(prefix).count("/") == 1
        }
        if areas:
            groups[group] = areas
    if groups:
        names = [method.name for method in comparison.methods]
        plots.areas(groups, names, path := folder / "ood-areas.png")
        yield Picture(
            path,
            "Areas under the ROC curves",
            "In per cent, for every score; 50 is chance (dotted). Whiskers are one standard deviation over seeds. A "
            "standard network has no references, so there is nothing that could disagree.",
        )


def _reliability(comparison: Comparison, table: SuiteTable, folder: Path) -> Iterator[Picture]:
    judged = {}
    for method in comparison.methods:
        arrays = [one.found(table.suite, table.num_references).arrays for one in method.runs]
        if all({"confidence", "correct"} <= each.keys() for each in arrays):
            confidence, correct = (
                np.concatenate([each[name] for each in arrays]) for name in ("confidence", "correct")
            )
            judged[method.name] = metrics.reliability_bins(confidence, correct, table.num_bins)
    if judged:
        save(ReliabilityDiagrams(judged), path := folder / "clean-reliability.png")
        yield Picture(
            path,
            "Reliability",
            "How often predictions of a confidence are right; on the diagonal they keep what they promise. All seeds "
            "of a method together, so the ECE above each diagram is of them together, not the mean over seeds.",
        )
