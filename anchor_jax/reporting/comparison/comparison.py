"""The numbers of a comparison: for every suite and score, each method over its seeds and next to the baseline."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.evaluation import conformal_sets, suites
from anchor_jax.evaluation.predictions import METRICS
from anchor_jax.evaluation.presentation import GROUP_TITLES, describe_transduction, format_num_references
from anchor_jax.evaluation.results import Score, SuiteResult, flat_name, parse_storage_name
from anchor_jax.evaluation.same_data import compare_data
from anchor_jax.evaluation.suites.common import plain
from anchor_jax.evaluation.suites.conformal import title_of
from anchor_jax.evaluation.suites.ood import HEADLINE
from anchor_jax.evaluation.suites.reference_use import INPUTS
from anchor_jax.metrics import specs
from anchor_jax.reporting.comparison.methods import EvaluatedRun, Method
from anchor_jax.reporting.comparison.next_to_paper import PaperRow, next_to_paper
from anchor_jax.reporting.comparison.statistics import Difference, Summary, difference_over_seeds, paired, summary

PROTOCOLS = {"random1": "1 random reference", "randomK": "K random references", "blt": "BLT"}
ANY = object()  # in `select`: every value but None

_AVERAGES = [{"metric": "accuracy", "group": group} for group in ("mean19", "mean15", "cbar")]
# suite -> the scores of tables and figures, in this order; files hold all
_HEADLINES: dict[str, list[dict[str, Any]]] = {
    "clean": [
        *({"metric": name} for name in (*METRICS, "top5_accuracy", "adaptive_ece", "aurc")),
        {"metric": "nll", "prediction": "scaled"},
        {"metric": "ece", "prediction": "scaled"},
    ],
    "corruptions": [
        {"metric": "accuracy"},
        *_AVERAGES,
        {"metric": "accuracy", "severity": ANY},
        *({"metric": name} for name in ("ece", "smooth_ece", "nll", "brier", "mce")),
    ],
    "shift": [*({"metric": name} for name in METRICS), {"metric": "accuracy", "dataset": ANY}],
    "ood": [
        {"metric": "auroc", "score": HEADLINE},
        {"metric": "auroc", "score": HEADLINE, "group": ANY},
        {"metric": "auroc", "score": ANY},
        {"metric": "auroc", "score": ANY, "group": ANY},
        {"metric": "fpr95", "score": ANY},
    ],
    "conformal": [
        {"metric": name, "score": ANY, **fields} for fields in ({}, {"group": ANY}) for name in ("coverage", "set_size")
    ],
    "protocols": [
        {"metric": name, "protocol": protocol}
        for protocol in PROTOCOLS
        for name in ("accuracy", "ece", "smooth_ece", "nll", "seconds_per_1000")
    ],
    "reference_use": [
        {"metric": name, "protocol": protocol} for name in ("accuracy", "nll", "ece") for protocol in INPUTS
    ],
    "probe": [{"metric": "accuracy"}, {"metric": "accuracy", "dataset": ANY}],
}


_PREDICTION_TITLES = {"mean_logits": "mean logits", "scaled": "after temperature scaling"}


def score_title(score: Score) -> str:
    """Return a score in words, with its unit and an arrow towards better values.

    >>> score_title(Score("accuracy", 0, severity=5)).replace("\N{NO-BREAK SPACE}", " ")
    'accuracy, severity 5 % ↑'
    >>> score_title(Score("coverage", 0, score="lac_spread")).replace("\N{NO-BREAK SPACE}", " ")
    'coverage, LAC / spread %'
    """
    spec = specs.get(score.metric)
    parts = [
        (PROTOCOLS | INPUTS).get(score.protocol or "", score.protocol),
        GROUP_TITLES.get(score.group or "", score.group),
        score.dataset,
        plain(score.corruption or ""),
        score.severity and f"severity {score.severity}",
        title_of(score.score) if score.score in conformal_sets.SCORES else plain(score.score or ""),
        _PREDICTION_TITLES.get(score.prediction),
    ]
    return spec.headed(", ".join([spec.title, *filter(None, parts)]))


class Entry(NamedTuple):
    """One score of one method."""

    summary: Summary
    over_seeds: Difference | None  # to the baseline; None for the baseline, and if no seed is shared
    over_examples: Difference | None  # same as above; None if the score is not a mean over examples


@short_repr
@dataclasses.dataclass(frozen=True)
class SuiteTable:
    """One suite of all methods.

    Attributes:
      suite: storage name, such as "clean" or "clean-blt".
      num_references: K of the anchored methods; 0 if there are none.
      facts: of the first run.
      num_bins: of the calibration errors.
      scores: name in `metrics.json` -> the score, whose value does not matter.
      entries: name in `metrics.json` -> method -> entry; a method may lack a score.
    """

    suite: str
    num_references: int
    facts: Mapping[str, Any]
    num_bins: int
    scores: Mapping[str, Score]
    entries: Mapping[str, Mapping[str, Entry]]

    @property
    def base_suite(self) -> str:
        """The suite, whichever protocol chose the references."""
        return parse_storage_name(self.suite).suite

    @property
    def title(self) -> str:
        """The title of the suite, with the number of references if there are any."""
        references = [format_num_references(self.num_references)] if self.num_references else []
        return ", ".join([suites.title(self.suite), *references])

    @property
    def headlines(self) -> list[str]:
        """The names of the scores that are shown in tables and figures; of other suites, their means."""
        patterns = _HEADLINES.get(self.base_suite, [{"metric": "accuracy"}])
        names = dict.fromkeys(name for pattern in patterns for name in self.select(**pattern))
        if not names:
            metrics = dict.fromkeys(score.metric for score in self.scores.values())
            names = [name for metric in metrics for name in self.select(metric=metric)] or list(self.scores)
        same = f"mean{len(self.facts.get('members', ()))}"  # the mean over all members has this name too
        return [name for name in names if self.scores[name].group != same]

    def select(self, **fields: Any) -> list[str]:
        """Return the names of the scores with these fields; fields that are left out must have their default.

        Args:
          **fields: of `Score`; `ANY` stands for every value but None.
        """
        expected = {field.name: field.default for field in dataclasses.fields(Score)} | fields
        del expected["value"]
        return [name for name, score in self.scores.items() if _matches(score, expected)]

    def entry(self, method: str, **fields: Any) -> Entry | None:
        """Return the entry of one score, None if there is none."""
        names = self.select(**fields)
        return self.entries[names[0]].get(method) if names else None


def _matches(score: Score, expected: Mapping[str, Any]) -> bool:
    given = {name: getattr(score, name) for name in expected}
    return all(given[name] is not None if value is ANY else given[name] == value for name, value in expected.items())


@short_repr
@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods next to each other.

    Attributes:
      methods: the baseline first.
      suites: those that all runs have.
      paper: published results next to ours, for methods trained as published.
      mismatches: method -> the first difference to the published configuration.
      remarks: other method -> what readers of its published results must know.
      notes: what readers must know, such as suites that are left out.
    """

    methods: tuple[Method, ...]
    suites: tuple[SuiteTable, ...]
    paper: tuple[PaperRow, ...]
    mismatches: Mapping[str, str]
    remarks: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def limit(self) -> int:
        """The limit of the images that were evaluated; 0 if there was none."""
        return self.baseline.runs[0].limit

    @property
    def baseline(self) -> Method:
        """The method that all others are compared with."""
        return self.methods[0]


def compare_methods(
    methods: Sequence[Method], suite_names: Sequence[str] = (), num_references: int | None = None
) -> Comparison:
    """Compare methods on the suites that all their runs have.

    Args:
      methods: the baseline first.
      suite_names: by default all that the runs have in common.
      num_references: K of the anchored runs; by default, for each suite, the largest that all have.

    Raises:
      UserError: a run lacks a requested suite or number of references; the runs share no suite; the suites were
        evaluated on different data.
    """
    runs = [run for method in methods for run in method.runs]
    tables, left_out, data_notes = [], [], []
    for suite in suite_names or sorted({suite for run in runs for suite in run.suites}, key=suites.report_order):
        try:
            num = _common_references(runs, suite, num_references)
        except UserError as error:
            if suite_names:
                raise
            left_out.append(f"{suite} is left out: {error}")
        else:
            data = compare_data({run.name: run.result(suite, num) for run in runs})
            tables.append(_suite_table(methods, runs, suite, num, not data.differ))
            data_notes.append(data.note)
            of_anchored = (run.facts(suite, num) for run in runs if run.anchored)
            data_notes += [f"{suite}: {note}" for note in describe_transduction(next(of_anchored, {}))]
    if not tables:
        raise UserError(f"the runs have no suite in common; {left_out[0]}")
    published = next_to_paper(methods, suite_names, {table.suite: table.num_references for table in tables})
    notes = (*left_out, *_notes(methods, runs), *filter(None, data_notes))
    return Comparison(tuple(methods), tuple(tables), *published, notes)


def example_values(result: SuiteResult) -> dict[str, np.ndarray]:
    """Return what each test example adds to the scores that are means over examples: name -> floating `[N]`."""
    if result.suite == "corruptions" and (stored := result.column("correct")) is not None:
        correct = stored.astype(np.float64)  # [members, severities, N]
        values = {Score("accuracy", 0): correct.mean((0, 1))}
        for index, severity in enumerate(result.facts["severities"]):
            values[Score("accuracy", 0, severity=severity)] = correct[:, index].mean(0)
        for index, member in enumerate(result.facts["members"]):
            values[Score("accuracy", 0, corruption=member)] = correct[index].mean(0)
        return {flat_name(score): value for score, value in values.items()}
    datasets = {"clean": [None], "shift": result.facts.get("members", ())}.get(result.suite, [])
    stored = {"accuracy": "correct", "nll": "nll", "brier": "brier", "entropy": "entropy"}
    columns = {
        Score(metric, 0, dataset=dataset): result.column(column, dataset)
        for dataset in datasets
        for metric, column in stored.items()
    }
    if result.suite == "conformal":  # on the test set
        for name in result.facts["scores"]:
            columns[Score("coverage", 0, score=name)] = result.column(f"{name}_covered")
            columns[Score("set_size", 0, score=name)] = result.column(f"{name}_size")
    return {flat_name(score): column.astype(np.float64) for score, column in columns.items() if column is not None}


def _common_references(runs: Sequence[EvaluatedRun], suite: str, requested: int | None) -> int:
    """Return K of the anchored runs for a suite, 0 if there are none.

    Raises:
      UserError: a run lacks the suite or the number of references.
    """
    is_transduced = parse_storage_name(suite).protocol == "blt"
    requested = None if is_transduced else requested  # BLT has one reference per image, whichever number is compared
    for run in runs:
        if suite not in run.suites:
            if is_transduced and not run.anchored:
                raise UserError(
                    f"'{run.name}' is a standard network, which has no references that protocol 'blt' could choose; "
                    "compare the anchored runs with each other"
                )
            raise UserError(
                f"'{run.name}' was not evaluated on {suite} at step {run.step}; "
                f"run {run.command(suite, requested or 0)}"
            )
    known = [set(run.suites[suite]) for run in runs if run.anchored]
    shared = set.intersection(*known) if known else {0}
    num = max(shared or known[0]) if requested is None else requested
    for run in runs:
        available = run.suites[suite]
        if run.key(num) not in available:
            raise UserError(
                f"'{run.name}' was evaluated on {suite} with {', '.join(map(str, available))} references, not with "
                f"{run.key(num)}; run {run.command(suite, num)}"
            )
    return num if known else 0


def _suite_table(
    methods: Sequence[Method], runs: Sequence[EvaluatedRun], suite: str, num: int, is_same_data: bool
) -> SuiteTable:
    known = {flat_name(score): score for run in runs for score in _scores(run, suite, num)}
    baseline_scores, baseline_examples = _by_seed(methods[0], suite, num), _mean_examples(methods[0], suite, num)
    entries: dict[str, dict[str, Entry]] = {}
    for method in methods:
        examples = _mean_examples(method, suite, num)
        for name, values in _by_seed(method, suite, num).items():
            over_seeds = over_examples = None
            if method is not methods[0] and name in baseline_scores and is_same_data:
                over_seeds = difference_over_seeds(values, baseline_scores[name])
                if name in examples and name in baseline_examples:
                    over_examples = paired(examples[name], baseline_examples[name])
            entries.setdefault(name, {})[method.name] = Entry(summary(values), over_seeds, over_examples)
    facts, scores = runs[0].facts(suite, num), {name: known[name] for name in entries}
    return SuiteTable(suite, num, facts, runs[0].num_bins, scores, entries)


def _by_seed(method: Method, suite: str, num: int) -> dict[str, dict[int, float]]:
    """Return name -> seed -> value, of the scores that all runs of a method have."""
    found = {r.seed: {flat_name(s): s.value for s in _scores(r, suite, num)} for r in method.runs}
    first, *others = found.values()
    shared = [name for name in first if all(name in other for other in others)]
    by_name = {name: {seed: of[name] for seed, of in found.items()} for name in shared}
    return {name: values for name, values in by_name.items() if not np.isnan([*values.values()]).any()}


def _mean_examples(method: Method, suite: str, num: int) -> dict[str, np.ndarray]:
    """Return name -> floating `[N]`, of each test example, mean over the seeds."""
    first, *others = [example_values(run.result(suite, num)) for run in method.runs]
    shared = [name for name in first if all(name in other for other in others)]
    return {name: np.mean([first[name], *(other[name] for other in others)], axis=0) for name in shared}


def _scores(run: EvaluatedRun, suite: str, num: int) -> list[Score]:
    scores = list(run.result(suite, num).scores)
    if suite == "protocols" and not run.anchored:  # its one protocol is compared with each of an anchored network
        return [dataclasses.replace(score, protocol=protocol) for protocol in PROTOCOLS for score in scores]
    return scores


def _notes(methods: Sequence[Method], runs: Sequence[EvaluatedRun]) -> list[str]:
    notes = []
    if limit := runs[0].limit:
        notes.append(f"At most {limit:,} images of each dataset were evaluated (--limit), the same for all runs.")
    if len(methods) == 1:
        notes.append("All runs are of one method, so there is nothing to compare it with.")
    if len({run.step for run in runs}) > 1:
        notes.append("The runs were evaluated at different steps, see “The runs”: some may have trained for longer.")
    if len({tuple(run.seed for run in method.runs) for method in methods}) > 1:
        notes.append("The methods have different seeds: differences over seeds use only the shared ones.")
    return notes
