"""The numbers of a comparison: for each suite and metric every method over its seeds, and beside the baseline."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import suites
from anchor_jax.evaluation.suite import DATA_FACTS
from anchor_jax.reporting.comparison import paper
from anchor_jax.reporting.comparison.paper import Figure, Quantity
from anchor_jax.reporting.comparison.runs import EvaluatedRun, Method, evaluating
from anchor_jax.reporting.comparison.statistics import Difference, Summary, difference_over_seeds, paired, summary

_PROTOCOLS = ("random1", "randomK", "blt")

# what of a suite stands in tables and pictures, in this order; files have all
_HEADLINES = {
    "clean": (
        "accuracy", "top5_accuracy", "nll", "brier", "ece", "rms_ece", "adaptive_ece", "smooth_ece", "aurc",
        "scaled_nll", "scaled_ece",
    ),
    "corruptions": (
        "accuracy", "mean19/accuracy", "mean15/accuracy", "cbar/accuracy", "severity[1-5]/accuracy", "ece",
        "smooth_ece", "nll", "brier", "mce",
    ),
    "shift": ("accuracy", "ece", "smooth_ece", "nll", "brier", "(?!mean_logits).+/accuracy"),
    "ood": ("[^/]+/auroc", "near/[^/]+/auroc", "far/[^/]+/auroc", "[^/]+/fpr95"),
    "protocols": tuple(
        f"{protocol}/{metric}"
        for protocol in _PROTOCOLS
        for metric in ("accuracy", "ece", "smooth_ece", "nll", "seconds_per_1000")
    ),
    "probe": ("accuracy", ".+/accuracy"),
    "landscape": ("accuracy",),
}  # fmt: skip

# facts that must be equal for numbers to be about the same data
_SAME_FACTS = (*DATA_FACTS, "fitted_to")


class Entry(NamedTuple):
    """One metric of one method."""

    summary: Summary
    over_seeds: Difference | None  # to the baseline; None for the baseline itself, and without a shared seed
    over_examples: Difference | None  # likewise; None where there is no number for each example


@dataclasses.dataclass(frozen=True)
class SuiteTable:
    """What a suite says of all methods.

    Attributes:
      suite: its name.
      num_references: K of the anchored methods; 0 where there is none.
      facts: of the first run.
      num_bins: of the calibration errors.
      entries: metric -> method -> entry; a method may lack a metric.
    """

    suite: str
    num_references: int
    facts: Mapping[str, Any]
    num_bins: int
    entries: Mapping[str, Mapping[str, Entry]]

    @property
    def headlines(self) -> list[str]:
        """The metrics that stand in tables and pictures."""
        names = {}
        for pattern in _HEADLINES.get(suites.find(self.suite).name, ("accuracy",)):
            names |= dict.fromkeys(name for name in self.entries if re.fullmatch(pattern, name))
        same = f"mean{len(self.facts.get('members', ()))}/accuracy"  # the mean over all members has that name too
        return [name for name in names if name != same]


class PaperRow(NamedTuple):
    """A figure of the paper and ours."""

    method: str
    quantity: str
    paper: Figure
    ours: Summary | None
    source: str  # of the corruptions
    lacking: str  # why there is none of ours, and how to get it


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods side by side.

    Attributes:
      methods: the baseline first.
      suites: those that all runs have.
      paper: figures of the methods that are the paper's.
      departures: method -> the first thing in which it is not the paper's.
      notes: what a reader must know, such as what was left out.
    """

    methods: tuple[Method, ...]
    suites: tuple[SuiteTable, ...]
    paper: tuple[PaperRow, ...]
    departures: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def baseline(self) -> Method:
        """What all others are compared with."""
        return self.methods[0]


def tabulated(methods: Sequence[Method], names: Sequence[str] = (), num_references: int | None = None) -> Comparison:
    """Compare methods on the suites that all their runs have.

    Args:
      methods: the baseline first.
      names: of suites; all that the runs have in common by default.
      num_references: K of the anchored runs; for each suite the largest that all have by default.

    Raises:
      UserError: a run lacks a suite that was asked for, or the references; runs share no suite; their suites were
        about other data.
    """
    runs = [one for method in methods for one in method.runs]
    tables, left_out = [], []
    for suite in names or sorted({suite for one in runs for suite in one.suites}, key=suites.report_order):
        try:
            num = _common_references(runs, suite, num_references)
        except UserError as error:
            if names:
                raise
            left_out.append(f"{suite} is left out: {error}")
        else:
            tables.append(_suite_table(methods, runs, suite, num))
    if not tables:
        raise UserError(f"the runs have no suite in common; {left_out[0]}")
    rows, departures = _beside_paper(methods, tables)
    notes = (*left_out, *_notes(methods, runs))
    return Comparison(tuple(methods), tuple(tables), tuple(rows), departures, notes)


def example_columns(suite: str, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What each test example adds to the metrics that are means over examples: metric -> floating `[N]`."""
    if suites.find(suite).name == "corruptions" and "correct" in arrays:
        correct = arrays["correct"].astype(np.float64)  # [members, severities, N]
        columns = {"accuracy": correct.mean((0, 1))}
        columns |= {f"severity{s}/accuracy": correct[:, i].mean(0) for i, s in enumerate(facts["severities"])}
        return columns | {f"{member}/accuracy": correct[i].mean(0) for i, member in enumerate(facts["members"])}
    sets = {"clean": [""], "shift": [f"{member}/" for member in facts.get("members", ())]}.get(
        suites.find(suite).name, []
    )
    kept = {"accuracy": "correct", "nll": "nll", "brier": "brier", "entropy": "entropy"}
    return {
        of + metric: arrays[of + column].astype(np.float64)
        for of in sets
        for metric, column in kept.items()
        if of + column in arrays
    }


def _common_references(runs: Sequence[EvaluatedRun], suite: str, asked: int | None) -> int:
    """K of the anchored runs for a suite, 0 where there are none; refused if a run lacks it."""
    for one in runs:
        if suite not in one.suites:
            raise UserError(
                f"'{one.name}' was not evaluated on {suite} at step {one.step}; "
                f"run {evaluating(one.name, suite, one.key(asked or 0))}"
            )
    known = [set(one.suites[suite]) for one in runs if one.anchored]
    shared = set.intersection(*known) if known else {0}
    num = max(shared or known[0]) if asked is None else asked
    for one in runs:
        there = one.suites[suite]
        if one.key(num) not in there:
            raise UserError(
                f"'{one.name}' was evaluated on {suite} with {', '.join(map(str, there))} references, not with "
                f"{one.key(num)}; run {evaluating(one.name, suite, one.key(num))}"
            )
    return num if known else 0


class _Measured(NamedTuple):
    """What a suite found for one method."""

    values: dict[str, dict[int, float]]  # metric -> seed -> value
    columns: dict[str, np.ndarray]  # metric -> floating [N], of each test example, mean over the seeds


def _suite_table(methods: Sequence[Method], runs: Sequence[EvaluatedRun], suite: str, num: int) -> SuiteTable:
    _check_alike(runs, suite, num)
    measured = {method.name: _measured(method, suite, num) for method in methods}
    baseline = measured[methods[0].name]
    names = dict.fromkeys(name for each in measured.values() for name in each.values)
    entries = {
        name: {
            method: _entry(name, each, None if each is baseline else baseline)
            for method, each in measured.items()
            if name in each.values
        }
        for name in names
    }
    return SuiteTable(suite, num, runs[0].facts(suite, num), runs[0].num_bins, entries)


def _measured(method: Method, suite: str, num: int) -> _Measured:
    metrics = {one.seed: _metrics(one, suite, num) for one in method.runs}
    shared = [name for name in next(iter(metrics.values())) if all(name in each for each in metrics.values())]
    columns = [example_columns(suite, one.facts(suite, num), one.found(suite, num).arrays) for one in method.runs]
    return _Measured(
        {name: {seed: each[name] for seed, each in metrics.items()} for name in shared},
        {
            name: np.mean([each[name] for each in columns], axis=0)
            for name in columns[0]
            if all(name in each for each in columns)
        },
    )


def _metrics(one: EvaluatedRun, suite: str, num: int) -> Mapping[str, float]:
    metrics = one.found(suite, num).metrics
    if suite == "protocols" and not one.anchored:  # its one protocol stands beside each of an anchored network
        of_standard = {name.removeprefix("standard/"): value for name, value in metrics.items()}
        return {f"{protocol}/{name}": value for protocol in _PROTOCOLS for name, value in of_standard.items()}
    return metrics


def _entry(name: str, each: _Measured, baseline: _Measured | None) -> Entry:
    over_seeds = over_examples = None
    if baseline and name in baseline.values:
        over_seeds = difference_over_seeds(each.values[name], baseline.values[name])
        if name in each.columns and name in baseline.columns:
            over_examples = paired(each.columns[name], baseline.columns[name])
    return Entry(summary(each.values[name]), over_seeds, over_examples)


def _check_alike(runs: Sequence[EvaluatedRun], suite: str, num: int) -> None:
    """Refuse results of a suite that are about other data."""
    first, *others = runs
    for other in others:
        for fact in _SAME_FACTS:
            expected, given = (_in_any_order(one.facts(suite, num).get(fact)) for one in (first, other))
            if given != expected:
                raise UserError(
                    f"{suite} of '{first.name}' and of '{other.name}' are about other data: {fact} is {expected!r} and "
                    f"{given!r}; evaluate both with the same options of eval.py"
                )
        expected, given = first.found(suite, num).arrays, other.found(suite, num).arrays
        for name in expected.keys() & given.keys():
            column = name.rpartition("/")[2]
            if (column == "label" and not np.array_equal(expected[name], given[name])) or (
                column == "correct" and expected[name].shape != given[name].shape
            ):
                raise UserError(
                    f"{suite} of '{first.name}' and of '{other.name}' are about other test sets: the labels of their "
                    "examples differ; evaluate both on the same data"
                )


def _in_any_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_any_order(each) for key, each in value.items()}
    return sorted(value) if isinstance(value, list) else value


def _notes(methods: Sequence[Method], runs: Sequence[EvaluatedRun]) -> list[str]:
    notes = []
    if len(methods) == 1:
        notes.append("All runs are of one method, so there is nothing to compare it with.")
    if len({one.step for one in runs}) > 1:
        notes.append("The runs were evaluated at different steps, see “The runs”: some may have trained for longer.")
    if len({tuple(one.seed for one in method.runs) for method in methods}) > 1:
        notes.append("The methods have different seeds: differences over seeds take the shared ones alone.")
    return notes


def _beside_paper(methods: Sequence[Method], tables: Sequence[SuiteTable]) -> tuple[list[PaperRow], dict[str, str]]:
    departures = {method.name: reason for method in methods if (reason := paper.protocol_mismatch(method))}
    table = next((table for table in tables if table.suite == "corruptions"), None)
    if table is None:
        return [], departures
    rows = [
        _paper_row(method, methods[0], quantity, figure, table, departures)
        for method in methods
        if method.name not in departures
        for quantity, figure in paper.figures(method).items()
    ]
    return rows, departures


def _paper_row(
    method: Method,
    baseline: Method,
    quantity: Quantity,
    figure: Figure,
    table: SuiteTable,
    departures: Mapping[str, str],
) -> PaperRow:
    num = quantity.references or table.num_references
    try:
        if quantity.gain and (baseline.anchored or baseline.name in departures):
            raise UserError("needs the standard network of the paper among the runs")
        ours, sources = _on_corruptions(method, quantity, num)
        if quantity.gain:
            theirs, _ = _on_corruptions(baseline, quantity, num)
            ours = {seed: ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()}
            if not ours:
                raise UserError("needs a seed that the standard network has too")
    except UserError as error:
        return PaperRow(method.name, quantity.title, figure, None, "", str(error))
    return PaperRow(method.name, quantity.title, figure, summary(ours), ", ".join(sources), "")


def _on_corruptions(method: Method, quantity: Quantity, num: int) -> tuple[dict[int, float], list[str]]:
    """Seed -> accuracy, and the corrupted sets; refused where they are not as in the paper."""
    if quantity.references is None and num == 1:
        raise UserError("needs more than 1 reference, such as --num_references 10")
    values, sources = {}, []
    for one in method.runs:
        if one.key(num) not in one.suites["corruptions"]:
            raise UserError(f"run {evaluating(one.name, 'corruptions', num)}")
        facts, metrics = one.facts("corruptions", num), one.found("corruptions", num).metrics
        if len(facts["members"]) != paper.NUM_CORRUPTIONS or "mean19/accuracy" not in metrics:
            raise UserError(f"needs the {paper.NUM_CORRUPTIONS} corruptions of the paper and no others")
        values[one.seed] = metrics[quantity.metric]
        sources += [source for source in facts["source"] if source not in sources]
    return values, sources
