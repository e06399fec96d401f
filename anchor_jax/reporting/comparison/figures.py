"""The figures of a comparison."""

from collections.abc import Iterator, Mapping

import numpy as np

from anchor_jax import metrics
from anchor_jax.evaluation import presentation
from anchor_jax.metrics import specs
from anchor_jax.reporting.comparison.comparison import Comparison, SuiteTable
from anchor_jax.reporting.comparison.labels import score_title
from anchor_jax.reporting.comparison.statistics import Difference, Summary

# suite -> the metrics that get a panel each
_METRICS = {
    "clean": ("accuracy", "nll", "brier", "ece", "smooth_ece", "aurc"),
    "corruptions": ("accuracy", "nll", "brier", "ece", "smooth_ece"),
    "ood": ("auroc",),
    "protocols": ("accuracy", "ece", "seconds_per_1000"),
}
_MAX_PANELS = 9
_GROUPS = {None: "mean of all sets", "near": "mean of the near sets", "far": "mean of the far sets"}


def suite_figures(comparison: Comparison, table: SuiteTable) -> Iterator[presentation.Figure]:
    """Yield the figures of one suite, in reading order."""
    if table.base_suite == "corruptions":
        yield from _severity_curves(comparison, table)
    if table.base_suite == "ood":
        yield from _auroc_bars(comparison, table)
    yield from _dot_plots(comparison, table)
    if table.base_suite == "clean":
        yield from _reliability(comparison, table)


def _panel_names(table: SuiteTable) -> list[str]:
    """Return the names of the scores that get a panel each."""
    names = []
    for name in table.headlines:
        score = table.scores[name]
        is_member = score.group is not None or (score.severity or 5) != 5
        if score.prediction == "mean_probs" and not is_member and score.metric in _METRICS.get(
            table.base_suite, (score.metric,)
        ):  # fmt: skip
            names.append(name)
    return names[:_MAX_PANELS]


def _dot_plots(comparison: Comparison, table: SuiteTable) -> Iterator[presentation.Figure]:
    methods, names = [method.name for method in comparison.methods], _panel_names(table)
    if not names:
        return
    values = [
        presentation.DotPanel(
            score_title(table.scores[name]),
            {method: [seed_dots(entry.summary)] for method, entry in table.entries[name].items()},
            specs.get(table.scores[name].metric),
        )
        for name in names
    ]
    yield presentation.Figure(
        "values",
        "Every method over its seeds",
        "The dot is the mean, each tick a seed, the line one standard deviation to both sides. Arrows point to better "
        "values.",
        presentation.DotPlots(methods, values, color_rows=True),
    )
    differences = [
        presentation.DotPanel(
            score_title(table.scores[name]),
            {
                method: [_difference_dots(entry.over_seeds), _difference_dots(entry.over_examples)]
                for method, entry in table.entries[name].items()
            },
            specs.get(table.scores[name].metric),
            signed=True,
        )
        for name in names
        if any(entry.over_seeds or entry.over_examples for entry in table.entries[name].values())
    ]
    if differences:
        yield presentation.Figure(
            "differences",
            f"Difference to {methods[0]}",
            "In points where the metric is in percent. Lines are 95% intervals of the paired difference: circles over "
            "seeds, for retraining; diamonds over test examples, for other images. If a line excludes 0, chance of "
            "that kind hardly explains the difference. A mark without a line has no spread to estimate one from.",
            presentation.DotPlots(
                methods[1:], differences, ("over seeds", "over test examples"), color_rows=True, skip_colors=1
            ),
        )


def seed_dots(summary: Summary) -> presentation.Dots:
    """Return the mean, a tick per seed, and one standard deviation to both sides."""
    if summary.std is None:
        return presentation.Dots(summary.mean)
    return presentation.Dots(
        summary.mean, list(summary.values.values()), (summary.mean - summary.std, summary.mean + summary.std)
    )


def _difference_dots(difference: Difference | None) -> presentation.Dots | None:
    if difference is None:
        return None
    if difference.low is None or difference.high is None:
        return presentation.Dots(difference.mean)
    return presentation.Dots(difference.mean, interval=(difference.low, difference.high))


def _severity_curves(comparison: Comparison, table: SuiteTable) -> Iterator[presentation.Figure]:
    clean = next((each for each in comparison.suites if each.suite == "clean"), None)
    panels = []
    for metric in ("accuracy", "ece"):
        curves = {method.name: _curve(table, clean, metric, method.name) for method in comparison.methods}
        if any(curves.values()):
            panels.append(severity_panel(specs.get(metric).title, curves))
    if panels:
        yield presentation.Figure(
            "severity",
            "By severity",
            "Mean over the corruptions at each severity; bands are one standard deviation over seeds.",
            presentation.LinePlots(panels),
        )


def severity_panel(title: str, curves: Mapping[str, Mapping[int, Summary]]) -> presentation.LinePanel:
    """Return a panel with one line per method, the baseline first: method -> severity -> score, 0 is the clean set."""
    lines = [
        presentation.Line(
            method,
            list(curve),
            [of.mean for of in curve.values()],
            "category" if place else "baseline",
            markers=True,
            band=np.array([of.std or 0 for of in curve.values()]),
        )
        for place, (method, curve) in enumerate(curves.items())
        if curve
    ]
    severities = sorted({severity for curve in curves.values() for severity in curve})
    ticks = {severity: str(severity) if severity else "clean" for severity in severities}
    return presentation.LinePanel(title, lines, "severity", percent="y", xticks=ticks)


def _curve(table: SuiteTable, clean: SuiteTable | None, metric: str, method: str) -> dict[int, Summary]:
    """Return severity -> the score of a method; severity 0 is the clean test set."""
    entries = {0: clean.entry(method, metric=metric) if clean else None}
    entries |= {severity: table.entry(method, metric=metric, severity=severity) for severity in range(1, 6)}
    return {severity: entry.summary for severity, entry in entries.items() if entry}


def _auroc_bars(comparison: Comparison, table: SuiteTable) -> Iterator[presentation.Figure]:
    names = [method.name for method in comparison.methods]
    for group, title in _GROUPS.items():
        summaries = {
            score.score.replace("_", " "): {
                method: table.entries[name][method].summary for method in names if method in table.entries[name]
            }
            for name, score in table.scores.items()
            if score.metric == "auroc" and score.score and score.group == group and score.dataset is None
        }
        if summaries:
            values = {label: {method: of.mean for method, of in row.items()} for label, row in summaries.items()}
            errors = {label: {method: of.std or 0 for method, of in row.items()} for label, row in summaries.items()}
            yield presentation.Figure(
                f"auroc-{group or 'all'}",
                f"Area under the ROC curve, {title}",
                "For each anomaly score; 50% is chance. Whiskers are one standard deviation over seeds. A standard "
                "network has no references that could disagree.",
                presentation.Bars(values, "AUROC", errors),
            )


def _reliability(comparison: Comparison, table: SuiteTable) -> Iterator[presentation.Figure]:
    panels = {}
    for method in comparison.methods:
        results = [run.result(table.suite, table.num_references) for run in method.runs]
        columns = [(result.column("confidence"), result.column("correct")) for result in results]
        if all(confidence is not None and correct is not None for confidence, correct in columns):
            confidence, correct = (np.concatenate(column) for column in zip(*columns, strict=True))
            panels[method.name] = metrics.reliability_bins(confidence, correct, table.num_bins)
    if panels:
        yield presentation.Figure(
            "reliability",
            "Reliability",
            "Bars on the dashed line: calibrated; below it: overconfident. All seeds of a method are pooled, so the "
            "ECE above each diagram is that of the pool, not the mean over seeds.",
            presentation.ReliabilityDiagrams(panels),
        )
