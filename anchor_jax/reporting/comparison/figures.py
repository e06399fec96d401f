"""The figures of a comparison."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from anchor_jax.evaluation import presentation
from anchor_jax.evaluation.question import same_images
from anchor_jax.evaluation.results import parse_storage_name, storage_name
from anchor_jax.evaluation.suites import common
from anchor_jax.evaluation.suites.ood import MEAN_TITLES
from anchor_jax.metrics import specs
from anchor_jax.reporting.comparison.comparison import ANY, Comparison, Entry, SuiteTable, score_title
from anchor_jax.reporting.comparison.methods import Method
from anchor_jax.reporting.comparison.statistics import Summary, shown, summary

# suite -> the metrics that get a panel each
_METRICS = {
    "clean": ("accuracy", "nll", "brier", "ece", "smooth_ece", "aurc"),
    "corruptions": ("accuracy", "nll", "brier", "ece", "smooth_ece"),
    "ood": ("auroc",),
    "conformal": ("coverage", "set_size"),
    "protocols": ("accuracy", "ece", "seconds_per_1000"),
}
_MAX_PANELS = 9


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

    def panels(dots: Callable[[Entry], list[presentation.Dots | None]], *, signed: bool) -> list[presentation.DotPanel]:
        """Return the panels that have any dots."""
        found = {name: {method: dots(entry) for method, entry in table.entries[name].items()} for name in names}
        return [
            presentation.DotPanel(
                score_title(table.scores[name]), rows, specs.get(table.scores[name].metric), signed=signed
            )
            for name, rows in found.items()
            if any(dot for of_method in rows.values() for dot in of_method)
        ]

    yield presentation.Figure(
        "values",
        "Every method over its seeds",
        "The dot is the mean, each tick a seed, the line one standard deviation to both sides. Arrows point to better "
        "values.",
        presentation.DotPlots(methods, panels(lambda entry: [seed_dots(entry.summary)], signed=False), color_rows=True),
    )
    differences = panels(
        lambda entry: [
            each and presentation.Dots(each.mean, interval=each.interval)
            for each in shown(entry.over_seeds, entry.over_examples)
        ],
        signed=True,
    )
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


def seed_dots(of_seeds: Summary) -> presentation.Dots:
    """Return the mean, a tick per seed, and one standard deviation to both sides."""
    mean, std = of_seeds.mean, of_seeds.std
    if std is None:
        return presentation.Dots(mean)
    return presentation.Dots(mean, list(of_seeds.values.values()), (mean - std, mean + std))


def _severity_curves(comparison: Comparison, table: SuiteTable) -> Iterator[presentation.Figure]:
    name = storage_name("clean", parse_storage_name(table.suite).protocol)
    clean = name if any(each.suite == name for each in comparison.suites) else ""
    panels = []
    for metric in ("accuracy", "ece"):
        curves = {method.name: _curve(table, clean, metric, method) for method in comparison.methods}
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


def _curve(table: SuiteTable, clean: str, metric: str, method: Method) -> dict[int, Summary]:
    """Return severity -> the score of a method; severity 0 is the clean test set, with as many references."""
    entries = {severity: table.entry(method.name, metric=metric, severity=severity) for severity in range(1, 6)}
    curves = {0: _clean_summary(table, clean, metric, method)}
    curves |= {severity: entry.summary for severity, entry in entries.items() if entry}
    return {severity: of for severity, of in curves.items() if of}


def _clean_summary(table: SuiteTable, clean: str, metric: str, method: Method) -> Summary | None:
    """Return a score on the clean test set over the seeds of a method; None if a run lacks it."""
    values = {}
    for run in method.runs:
        result = run.suites.get(clean, {}).get(run.key(table.num_references))
        if result is None or not same_images(result.facts, run.facts(table.suite, table.num_references)):
            return None
        values[run.seed] = result.value(metric)
    return None if None in values.values() else summary(values)


def _auroc_bars(comparison: Comparison, table: SuiteTable) -> Iterator[presentation.Figure]:
    names = [method.name for method in comparison.methods]
    for group, title in MEAN_TITLES.items():
        summaries = {
            common.plain(table.scores[name].score or ""): {
                method: table.entries[name][method].summary for method in names if method in table.entries[name]
            }
            for name in table.select(metric="auroc", score=ANY, group=group)
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
        judged = [common.judged(run.result(table.suite, table.num_references)) for run in method.runs]
        if all(judged):
            confidence, correct = map(np.concatenate, zip(*filter(None, judged), strict=True))
            panels[method.name] = confidence, correct
    if panels:
        note = (
            "All seeds of a method are pooled: the ECE above each diagram is that of the pool, not the mean over seeds."
        )
        yield common.reliability_figure(panels, table.num_bins, note)
