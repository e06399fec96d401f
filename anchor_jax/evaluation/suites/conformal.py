"""Conformal: sets of classes that contain the true one at a chosen rate, on the test set and under shift."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from anchor_jax.contrib import conformal
from anchor_jax.core.errors import UserError
from anchor_jax.data import EvalDataset
from anchor_jax.data.corruptions import SEVERITIES
from anchor_jax.data.files import warn_once
from anchor_jax.evaluation.conformal_sets import (
    SCORES,
    Contained,
    calibrate,
    contained,
    names_for,
    stratified_halves,
)
from anchor_jax.evaluation.context import EvalContext
from anchor_jax.evaluation.options import CorruptedSetsOption, SeedOption, ShiftedSetsOption, option
from anchor_jax.evaluation.presentation import (
    Figure,
    Highlight,
    Line,
    LinePanel,
    LinePlots,
    Table,
    format_num_references,
)
from anchor_jax.evaluation.results import Results, Score, SuiteResult, column_name
from anchor_jax.evaluation.suite import Suite
from anchor_jax.evaluation.suites import common
from anchor_jax.evaluation.suites.corruptions import Corruptions, PreparedCorruptions
from anchor_jax.evaluation.suites.shift import PreparedShift, Shift
from anchor_jax.evaluation.temperature import require_held_out
from anchor_jax.metrics import specs

TEST, HELD_OUT = CALIBRATION_SETS = ("test", "held_out")
_LEVELS = tuple(round(0.5 + 0.025 * step, 3) for step in range(20))  # of the curves, besides the target
_METRICS = ("coverage", "set_size", "singletons", "empty_sets", "hard_coverage")
_GROUPS = ("corruptions", "shift")


@dataclasses.dataclass(frozen=True)
class ConformalOptions(CorruptedSetsOption, ShiftedSetsOption, SeedOption):
    """The target, the examples that calibrate, which are never evaluated, and the severities of corruptions."""

    conformal_coverage: float = option(0.9, "Target coverage of 'conformal'.")
    conformal_calibration: str = option(
        TEST,
        "What calibrates 'conformal': half of the test set, or held-out training data.",
        choices=CALIBRATION_SETS,
    )
    conformal_severities: tuple[str, ...] = option(("1", "3", "5"), "Severities in the suite 'conformal'.")

    def __post_init__(self):
        super().__post_init__()
        given = tuple(map(str, self.conformal_severities))
        known = {str(severity): severity for severity in SEVERITIES}
        if not given or len({*given}) < len(given) or not {*given} <= known.keys():
            raise UserError(f"conformal_severities must be some of {', '.join(known)}; got {','.join(given) or 'none'}")
        object.__setattr__(self, "conformal_severities", tuple(sorted(known[severity] for severity in given)))
        if not 0 < self.conformal_coverage < 1:
            raise UserError(f"conformal_coverage must be above 0 and below 1; got {self.conformal_coverage:g}")


@dataclasses.dataclass(frozen=True)
class PreparedConformal:
    """The opened datasets.

    Attributes:
      context: what is evaluated.
      options: of the suite.
      calibration: examples that calibrate.
      test: test examples that are evaluated.
      rows: of these in the test set; None for all.
      corrupted: corrupted versions of the test set; None without.
      shifted: other datasets; None without.
    """

    context: EvalContext
    options: ConformalOptions
    calibration: EvalDataset
    test: EvalDataset
    rows: np.ndarray | None
    corrupted: PreparedCorruptions | None
    shifted: PreparedShift | None

    @property
    def corruptions(self) -> list[str]:
        """Names of the corruptions."""
        return list(self.corrupted.members) if self.corrupted else []

    @property
    def severities(self) -> list[int]:
        """Severities of the corruptions that are evaluated."""
        return [int(severity) for severity in self.options.conformal_severities]

    @property
    def shifts(self) -> list[str]:
        """Names of the other datasets."""
        return [each.stream.name for each in self.shifted.sets] if self.shifted else []

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """The target coverage, then those of the curves, as far as the calibration examples reach."""
        target, num = self.options.conformal_coverage, self.calibration.num_examples
        return (target, *(level for level in _LEVELS if level / (1 - level) <= num))

    def corrupted_stream(self, member: str, severity: int) -> EvalDataset:
        """Return the test examples that are evaluated, corrupted."""
        assert self.corrupted is not None
        corrupted = self.corrupted.members[member]
        stream = corrupted.stream(member, severity)
        if self.rows is None:
            return stream
        if not np.array_equal(stream.labels(), self.context.test.labels()):
            warn_once(
                f"'{corrupted.name}' has its images in another order than the test set, so all of them are evaluated, "
                "also corrupted versions of those that calibrate; avoid this by --conformal_calibration=held_out"
            )
            return stream
        return stream.subset(self.rows)


class Conformal(Suite[PreparedConformal]):
    """Evaluate sets of classes whose thresholds are calibrated on other examples."""

    name = "conformal"
    title = "Conformal sets"
    question = "How many classes must a prediction name so that the true one is among them as often as promised?"
    reading = (
        "The coverage is the fraction of images whose set contains the true class. On images like those that calibrate "
        "it is the target, up to chance, for every network and score, so compare the sizes of the sets: smaller is "
        "better. "
        "Under shift the promise is lost: compare the coverage, which should stay near the target. A score divided by "
        "the spread gives larger sets to images on which the references disagree."
    )
    options = ConformalOptions
    supports_blt = True

    def prepare(self, context: EvalContext) -> PreparedConformal:
        """Open the datasets, and divide the test set.

        Raises:
          UserError: a dataset cannot be read, the run held out nothing though that calibrates, or there are too few
            examples for the target coverage.
        """
        options = context.options_of(ConformalOptions)
        corrupted = Corruptions().prepare(context) if options.corruptions else None
        shifted = Shift().prepare(context) if options.shift else None
        prepared = PreparedConformal(context, options, *_divided(context, options), corrupted, shifted)
        conformal.rank(prepared.calibration.num_examples, options.conformal_coverage)  # raises for too few
        _check_names(prepared)
        return prepared

    def datasets(self, context: EvalContext, prepared: PreparedConformal) -> Sequence[Any]:
        """Return the test set, the published corrupted sets and the shifted sets."""
        corrupted, shifted = prepared.corrupted, prepared.shifted
        others = [*(Corruptions().datasets(context, corrupted) if corrupted else [])]
        others += Shift().datasets(context, shifted) if shifted else []
        return [context.test, *(other for other in others if not context.is_test(other))]

    def num_predictions(self, prepared: PreparedConformal, num_references: int) -> int:
        """Return the number of images that calibrate and that are evaluated, once per reference."""
        num = prepared.calibration.num_examples + prepared.test.num_examples
        num += len(prepared.corruptions) * len(prepared.severities) * prepared.test.num_examples
        num += sum(each.stream.num_examples for each in prepared.shifted.sets) if prepared.shifted else 0
        return max(num_references, 1) * num

    def measure(self, prepared: PreparedConformal, num_references: int) -> SuiteResult:
        """Calibrate each score, and measure its sets on each dataset."""
        context, levels = prepared.context, prepared.levels
        thresholds = calibrate(context, prepared.calibration, num_references, levels)
        test = contained(context, prepared.test, num_references, thresholds)
        scores, arrays = test.scores(), _curves(test) | _columns(test, prepared)
        for member in prepared.corruptions:
            for severity in prepared.severities:
                stream = prepared.corrupted_stream(member, severity)
                found = contained(context, stream, num_references, thresholds)
                scores += found.scores(corruption=member, severity=severity)
        for stream, classes in prepared.shifted.sets if prepared.shifted else ():
            found = contained(context, stream, num_references, thresholds, classes)
            scores += found.scores(dataset=stream.name)
            arrays |= _curves(found, stream.name)
        scores += _means(scores)
        arrays["levels"] = np.array(levels, np.float32)
        groups = zip(_GROUPS, (prepared.corruptions, prepared.shifts), strict=True)
        facts = {
            "num_examples": prepared.test.num_examples,
            "calibration_examples": prepared.calibration.num_examples,
            "calibrated_on": prepared.options.conformal_calibration,
            "target": prepared.options.conformal_coverage,
            "thresholds": {name: float(values[0]) for name, values in thresholds.items()},
            "scores": {name: SCORES[name] for name in names_for(num_references)},
            "members": [*prepared.corruptions, *prepared.shifts],
            "severities": prepared.severities if prepared.corruptions else [],
            "groups": {name: members for name, members in groups if members},
        }
        return SuiteResult(self.name, num_references, tuple(scores), arrays, facts)

    def tables(self, results: Results) -> list[Table]:
        """Return all metrics of each score on the test set, then coverage and size of each score on each dataset."""
        rows = {
            ", ".join([title_of(name), *([format_num_references(num)] if len(results) > 1 else [])]): (
                result,
                {"score": name},
            )
            for num, result in results.items()
            for name in result.facts["scores"]
        }
        result = common.newest(results)
        caption = f"Test set, for a target of {result.facts['target']:.4g}"
        tables = common.score_table(caption, rows, common.quantities(_METRICS), mark_best=False, notes=_notes(result))
        datasets = _datasets(result)
        if len(datasets) > 1:
            of_datasets = {title: (result, fields) for title, fields in datasets.items()}
            for metric in ("coverage", "set_size"):
                columns = [common.Quantity(title_of(name), metric, {"score": name}) for name in result.facts["scores"]]
                title = f"{specs.get(metric).title.capitalize()} under shift, "
                title += format_num_references(result.num_references)
                tables += common.score_table(title, of_datasets, columns, mark_best=False)
        return tables

    def highlights(self, result: SuiteResult) -> list[Highlight]:
        """Return the set size of the score with the smallest sets on the test set."""
        sizes = {name: result.value("set_size", score=name) for name in result.facts["scores"]}
        found = {name: size for name, size in sizes.items() if size is not None}
        if not found:
            return []
        best, spec = min(found, key=lambda name: found[name]), specs.get("set_size")
        remark = (
            f"{title_of(best)}, target {result.facts['target']:.4g}, {format_num_references(result.num_references)}"
        )
        return [Highlight(f"{self.title}: {spec.title}", spec, found[best], remark)]

    def figures(self, results: Results, clean: Results) -> list[Figure]:
        """Return the set size against the coverage on each dataset, and both against the severity of corruptions."""
        result = common.newest(results)
        return [*_size_against_coverage(result), *_against_severity(result)]


def title_of(score: str) -> str:
    """Return the name of a score as papers write it.

    >>> title_of("raps"), title_of("lac_spread")
    ('RAPS', 'LAC / spread')
    """
    method, _, divisor = score.partition("_")
    return " / ".join(filter(None, [method.upper(), divisor]))


def _divided(context: EvalContext, options: ConformalOptions) -> tuple[EvalDataset, EvalDataset, np.ndarray | None]:
    """Return the examples that calibrate, the test examples that are evaluated, and the rows of these."""
    if options.conformal_calibration == HELD_OUT:
        instead = "--conformal_calibration=test"
        held_out = require_held_out(context.train, "--conformal_calibration=held_out", f"set {instead}")
        return context.limited(held_out), context.test, None
    first, second = stratified_halves(context.test.labels(), options.seed)
    return context.test.subset(first), context.test.subset(second), second


def _check_names(prepared: PreparedConformal) -> None:
    content = prepared.context.test.content()
    for stream, _ in prepared.shifted.sets if prepared.shifted else ():
        if stream.name in (*prepared.corruptions, *_GROUPS):
            raise UserError(f"dataset names must differ from corruptions and groups; got '{stream.name}'; rename it")
        if prepared.rows is not None and content and stream.content() == content:
            raise UserError(
                f"'{stream.name}' is the test set of the run, half of which calibrates; leave it out of --shift, or "
                "set --conformal_calibration=held_out"
            )


def _curves(found: Contained, dataset: str | None = None) -> dict[str, np.ndarray]:
    """Return coverage and set size at each level, float32 `[L]`, by the name of their array."""
    curves = {f"{name}_coverage": covered.mean(0) for name, covered in found.covered.items()}
    curves |= {f"{name}_set_size": size.mean(0) for name, size in found.size.items()}
    return {column_name(name, dataset): np.asarray(values, np.float32) for name, values in curves.items()}


def _columns(found: Contained, prepared: PreparedConformal) -> dict[str, np.ndarray]:
    """Return for each test example that is evaluated whether its sets cover it, and how large they are."""
    columns = {f"{name}_covered": covered[:, 0] for name, covered in found.covered.items()}
    columns |= {f"{name}_size": size[:, 0] for name, size in found.size.items()}
    return columns | {"row": np.arange(len(found.entropy)) if prepared.rows is None else prepared.rows}


def _means(scores: Sequence[Score]) -> list[Score]:
    """Average over corruptions and severities, over the severities of each, the corruptions of each, and datasets."""
    found: dict[tuple[str, str | None], list[Score]] = {}
    for score in scores:
        found.setdefault((score.metric, score.score), []).append(score)
    means = []
    for (metric, name), same in found.items():
        corrupted, shifted = [s for s in same if s.corruption], [s for s in same if s.dataset]

        def mean(of: Sequence[Score], metric=metric, name=name, **fields: Any) -> list[Score]:
            return [Score(metric, float(np.mean([s.value for s in of])), score=name, **fields)] if of else []

        means += mean(corrupted, group="corruptions") + mean(shifted, group="shift")
        for member in dict.fromkeys(s.corruption for s in corrupted):
            means += mean([s for s in corrupted if s.corruption == member], corruption=member)
        for severity in dict.fromkeys(s.severity for s in corrupted):
            means += mean([s for s in corrupted if s.severity == severity], severity=severity)
    return means


def _datasets(result: SuiteResult) -> dict[str, dict[str, Any]]:
    """Return the datasets of a result and means over some: title -> fields of their scores."""
    groups = result.facts["groups"]
    rows: dict[str, dict[str, Any]] = {"test set": {}}
    if "corruptions" in groups:
        severities = _severities(result)
        rows |= {f"corruptions, severity {severity}": {"severity": severity} for severity in severities}
        rows["corruptions, mean"] = {"group": "corruptions"}
    return rows | {name: {"dataset": name} for name in groups.get("shift", ())}


def _severities(result: SuiteResult) -> list[int]:
    return sorted({score.severity for score in result.scores if score.severity})


def _notes(result: SuiteResult) -> list[str]:
    facts = result.facts
    source = {TEST: "test images, the other half", HELD_OUT: "training images that the run held out"}
    notes = [
        f"Calibrated on {facts['calibration_examples']:,} {source[facts['calibrated_on']]}; evaluated on "
        f"{facts['num_examples']:,} test images. A set may be empty where the target is below the accuracy."
    ]
    if severities := ", ".join(map(str, _severities(result))):
        notes.append(f"Corruptions at severities {severities} (--conformal_severities).")
    return [*notes, *common.mean_notes(result)[1:]]


def _size_against_coverage(result: SuiteResult) -> list[Figure]:
    panels = []
    for dataset in (None, *result.facts["groups"].get("shift", ())):
        lines, top = [], 1.0
        for name in result.facts["scores"]:
            coverage, size = result.column(f"{name}_coverage", dataset), result.column(f"{name}_set_size", dataset)
            if coverage is None or size is None:
                continue
            top = max(top, float(size.max()))
            lines.append(Line(title_of(name), coverage[1:], size[1:]))
        if lines:
            target = result.facts["target"]
            lines.append(Line("target", (target, target), (0, top), style="guide"))
            panels.append(LinePanel(dataset or "test set", lines, "coverage", "mean set size", percent="x"))
    caption = (
        f"{common.with_references(result)}; each line goes through the targets from {_LEVELS[0]:.0%} to the highest "
        "that the calibration examples allow. Lower and further right is better."
    )
    return [Figure("set-size", "Set size against coverage", caption, LinePlots(panels))] if panels else []


def _against_severity(result: SuiteResult) -> list[Figure]:
    if "corruptions" not in result.facts["groups"]:
        return []
    severities, panels = _severities(result), []
    ticks = {s: str(s) if s else "clean" for s in (0, *severities)}
    for metric in ("coverage", "set_size"):
        lines = []
        for name in result.facts["scores"]:
            values: Mapping[int, float | None] = {0: result.value(metric, score=name)} | {
                s: result.value(metric, score=name, severity=s) for s in severities
            }
            known = {s: value for s, value in values.items() if value is not None}
            lines.append(Line(title_of(name), list(known), list(known.values()), markers=True))
        if metric == "coverage":
            lines.append(Line("target", (0, severities[-1]), (result.facts["target"],) * 2, style="guide"))
        spec = specs.get(metric)
        panels.append(LinePanel(spec.title, lines, "severity", percent="y" * spec.is_fraction, xticks=ticks))
    caption = f"{common.with_references(result)}, mean over corruptions; the dotted line is the target."
    return [Figure("severity", "Coverage and set size against severity", caption, LinePlots(panels))]
