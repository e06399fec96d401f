"""OOD: how well uncertainty separates anomalies from the test set."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from anchor_jax import metrics
from anchor_jax.core.errors import UserError
from anchor_jax.data import EvalDataset
from anchor_jax.data.class_mapping import warn_shared_classes
from anchor_jax.evaluation.anomaly_scores import HEADLINE, SCORES, SINGLE_PASS, anomaly_scores
from anchor_jax.evaluation.context import EvalContext
from anchor_jax.evaluation.options import SuiteOptions, option
from anchor_jax.evaluation.presentation import (
    Figure,
    HeatMap,
    HeatMaps,
    Highlight,
    Histogram,
    HistogramPanel,
    Histograms,
    ImageGrid,
    ImageStrip,
    Line,
    LinePanel,
    LinePlots,
    Table,
    format_num_references,
)
from anchor_jax.evaluation.results import Results, Score, SuiteResult, column_name, make_scores
from anchor_jax.evaluation.suite import Suite
from anchor_jax.evaluation.suites import common
from anchor_jax.metrics import specs

METRICS = ("auroc", "aupr_in", "aupr_out", "fpr95")
_GROUPS = ("near", "far")
_TEST_SET = "in"  # how the arrays of the test set are named
_STORED, _SHOWN = 12, 60  # images of each set that are stored, images of all sets that are shown
MEAN_TITLES = {"near": "mean of the near sets", "far": "mean of the far sets", None: "mean of all sets"}

Scores = Mapping[str, np.ndarray]  # anomaly score -> float32 [N]


@dataclasses.dataclass(frozen=True)
class OodOptions(SuiteOptions):
    """The anomaly datasets."""

    ood: tuple[str, ...] = option(
        (),
        "Anomalies of 'ood', such as near=tfds:cifar100,far=images:FOLDER.",
    )


class AnomalySet(NamedTuple):
    """A dataset of anomalies and its group, "near", "far" or None."""

    group: str | None
    stream: EvalDataset


class PreparedOod(NamedTuple):
    """The opened datasets."""

    context: EvalContext
    sets: list[AnomalySet]


class Ood(Suite[PreparedOod]):
    """Compare anomaly scores of the test set with those of datasets of anomalies."""

    name = "ood"
    title = "Anomalies"
    question = "Can the model distinguish images of unknown classes from those of its test set?"
    reading = (
        "All scores are higher for more anomalous images. AUROC is the probability that an anomaly scores above a test "
        "image; 50% is chance. FPR at 95% TPR is the fraction of test images rejected when 95% of the anomalies are. "
        "The energy, the score of the paper, comes first."
    )
    options = OodOptions
    supports_blt = True
    records_predictions = True

    def prepare(self, context: EvalContext) -> PreparedOod:
        """Open the anomaly datasets.

        Raises:
          UserError: there are none, or one cannot be read.
        """
        given = context.options_of(OodOptions).ood
        given = given or (("photographs",) if context.run.config.data.source == "digits" else ())
        if not given:
            raise UserError(
                "suite 'ood' needs anomaly datasets; give them as --ood, such as "
                "--ood=near=tfds:cifar100,far=images:FOLDER"
            )
        groups, names = zip(*map(_split_group, given), strict=True)
        streams = context.open_all(names)
        for stream in streams:
            warn_shared_classes(stream.label_names, context.run.label_names, f"'{stream.name}'")
        return PreparedOod(context, list(map(AnomalySet, groups, streams)))

    def datasets(self, context: EvalContext, prepared: PreparedOod) -> list[EvalDataset]:
        """Return the test set and the anomalies."""
        return [context.test, *(stream for _, stream in prepared.sets)]

    def num_predictions(self, prepared: PreparedOod, num_references: int) -> int:
        """Return the number of images in the test set and all datasets, once per reference."""
        streams = (prepared.context.test, *(of.stream for of in prepared.sets))
        return max(num_references, 1) * sum(stream.num_examples for stream in streams)

    def measure(self, prepared: PreparedOod, num_references: int) -> SuiteResult:
        """Measure how well each score separates each dataset from the test set; average over groups and over all."""
        context, sets = prepared
        names = tuple(SCORES) if num_references > 1 else SINGLE_PASS
        inside = anomaly_scores(context.predict_recorded(context.test, num_references, anomaly=False), names)
        scores: list[Score] = []
        arrays = {column_name(name, _TEST_SET): values for name, values in inside.items()}
        for _, stream in sets:
            table = context.predict_recorded(_unlabeled(stream), num_references, anomaly=True)
            outside = anomaly_scores(table, names)
            arrays |= {column_name(name, stream.name): values for name, values in outside.items()}
            arrays[column_name("sample_images", stream.name)] = stream.first(_STORED)[0]
            for name in names:
                scores += make_scores(detection(inside[name], outside[name]), dataset=stream.name, score=name)
        groups = {group: [of.stream.name for of in sets if of.group == group] for group in _GROUPS}
        groups = {group: members for group, members in groups.items() if members}
        members = [of.stream.name for of in sets]
        facts = {
            "num_examples": len(inside["entropy"]),
            "members": members,
            "groups": groups,
            "scores": {name: SCORES[name] for name in names},
            "direction": "higher is more anomalous; anomalies are the positive class of auroc, aupr_out and fpr95",
        }
        means = [
            mean for group, of_group in ((None, members), *groups.items()) for mean in _mean(scores, group, of_group)
        ]
        return SuiteResult(self.name, num_references, (*scores, *means), arrays, facts)

    def tables(self, results: Results) -> list[Table]:
        """Return AUROC and FPR of each score, averaged over the datasets."""
        newest = common.newest(results)  # it has all scores: one reference cannot disagree with itself
        notes, tables = common.mean_notes(newest), []
        for metric, title in (("auroc", "AUROC"), ("fpr95", specs.get("fpr95").title)):
            columns = [common.Quantity(common.plain(name), metric, {"score": name}) for name in _names(newest)]
            tables += common.by_references(f"{title}, mean over all sets", results, columns, notes=notes)
            notes = []
        return tables

    def highlights(self, result: SuiteResult) -> list[Highlight]:
        """Return the AUROC of the energy, or of another score if the energy was not measured."""
        for name in _names(result):
            if (area := result.value("auroc", score=name)) is not None:
                spec = specs.get("auroc")
                remark = f"{common.plain(name)}, {format_num_references(result.num_references)}"
                return [Highlight(f"{self.title}: {spec.title}", spec, area, remark)]
        return []

    def figures(self, results: Results, clean: Results) -> list[Figure]:
        """Return ROC curves, areas below them, histograms of the scores, and some anomalies."""
        result = common.newest(results)
        inside, outside = stored_scores(result)
        is_stored = inside and outside  # and not constant everywhere
        figures = [_roc_curves(result, inside, outside)] if is_stored else []
        figures += _areas(result) if len(outside) > 1 else []
        figures += [_histograms(result, inside, outside)] if is_stored else []
        images = {name: result.column("sample_images", name) for name in _sorted_members(result)}
        images = {name: sample for name, sample in images.items() if sample is not None}
        if images:
            num = int(np.clip(_SHOWN // len(images), 4, _STORED))
            strips = {name: ImageStrip(sample[:num]) for name, sample in images.items()}
            caption = "The first images of each dataset, as the network receives them."
            figures.append(Figure("samples", "Examples of the anomalies", caption, ImageGrid(strips, _STORED)))
        return figures


def detection(inside: np.ndarray, outside: np.ndarray) -> dict[str, float]:
    """Measure how well a score separates anomalies from known examples.

    Args:
      inside: floating `[N]`, score of the examples that are no anomalies.
      outside: floating `[M]`, score of the anomalies, which should be higher.

    Returns:
      `auroc`; `aupr_out`, with anomalies as the positive class; `aupr_in`, with the other examples as the positive
      class and the score negated; `fpr95`, the smallest fraction of the other examples classified as anomalies at a
      threshold that detects at least 95% of the anomalies. All are in [0, 1]; lower is better for `fpr95` alone.
    """
    is_anomaly = np.repeat((False, True), (len(inside), len(outside)))
    score = np.concatenate([inside, outside])
    found = {
        "auroc": metrics.auroc(score, is_anomaly),
        "aupr_in": metrics.aupr(-score, ~is_anomaly),
        "aupr_out": metrics.aupr(score, is_anomaly),
        "fpr95": metrics.fpr_at_tpr(score, is_anomaly, 0.95),
    }
    return {name: float(value) for name, value in found.items()}


def stored_scores(result: SuiteResult) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]:
    """Return the scores of the test set and of each dataset, without those that are constant everywhere."""
    inside = {name: result.column(name, _TEST_SET) for name in SCORES}
    inside = {name: values for name, values in inside.items() if values is not None}
    outside = {}
    for dataset in _sorted_members(result):
        columns = {name: result.column(name, dataset) for name in inside}
        if columns := {name: values for name, values in columns.items() if values is not None}:
            outside[dataset] = columns
    varying = {
        name: values
        for name, values in inside.items()
        if common.varies(np.concatenate([values, *(of[name] for of in outside.values() if name in of)]))
    }
    outside = {dataset: {name: of[name] for name in of if name in varying} for dataset, of in outside.items()}
    return varying, outside


def _split_group(spec: str) -> tuple[str | None, str]:
    """Return group and dataset of "near=tfds:cifar100"."""
    group, equals, rest = spec.partition("=")
    return (group, rest) if equals and group in _GROUPS else (None, spec)


def _unlabeled(stream: EvalDataset) -> EvalDataset:
    """Return the dataset with the label 0 throughout: the network has none of the classes of anomalies."""
    return stream.relabelled(("anomaly",), np.zeros(len(stream.label_names), np.int32))


def _mean(scores: list[Score], group: str | None, members: list[str]) -> list[Score]:
    values: dict[tuple[str | None, str], list[float]] = {}
    for each in scores:
        if each.dataset in members:
            values.setdefault((each.score, each.metric), []).append(each.value)
    return [Score(metric, float(np.mean(found)), score=score, group=group) for (score, metric), found in values.items()]


def _names(result: SuiteResult) -> list[str]:
    """Return the names of the scores in a result, `HEADLINE` first."""
    names = dict.fromkeys(score.score for score in result.scores if score.score)
    return sorted(names, key=lambda name: name != HEADLINE)


def _sorted_members(result: SuiteResult) -> list[str]:
    """Return the datasets, near ones first."""
    grouped = [name for group in _GROUPS for name in result.facts.get("groups", {}).get(group, ())]
    return grouped + [name for name in common.members(result) if name not in grouped]


def _roc_curves(result: SuiteResult, inside: Scores, outside: Mapping[str, Scores]) -> Figure:
    panels = []
    for dataset, scores in outside.items():
        lines = []
        for name, values in scores.items():
            is_anomaly = np.repeat((0, 1), (len(inside[name]), len(values)))
            both = np.concatenate([inside[name], values])
            false_alarms, hits, _ = roc_curve(is_anomaly, both)
            lines.append(Line(f"{roc_auc_score(is_anomaly, both):.1%} {common.plain(name)}", false_alarms, hits))
        lines.append(Line("", (0, 1), (0, 1), style="guide"))
        panel = LinePanel(
            dataset,
            lines,
            "false alarms: fraction of the test set",
            "detected: fraction of the anomalies",
            percent="xy",
        )
        panels.append(dataclasses.replace(panel, limits=((0, 1), (0, 1.01)), square=True))
    caption = (
        f"{common.with_references(result)}: the further up and left a curve, the more anomalies are detected at the "
        "same rate of false alarms. Legends show the area below each curve; 50% is chance."
    )
    return Figure("roc", "ROC curves", caption, LinePlots(panels, shared_legend=False))


def _areas(result: SuiteResult) -> list[Figure]:
    names = _names(result)
    rows = {name: {"dataset": name} for name in _sorted_members(result)}
    rows |= {title: {"group": group} for group, title in MEAN_TITLES.items()}
    values = {title: [result.value("auroc", score=name, **fields) for name in names] for title, fields in rows.items()}
    values = {title: row for title, row in values.items() if any(value is not None for value in row)}
    heat_map = HeatMap("area under the ROC curve", np.array(list(values.values()), np.float64))
    columns = [common.plain(name).replace(" ", "\n") for name in names]
    caption = f"{common.with_references(result)}, in percent; 50 is chance."
    return [Figure("auroc", "Areas under the ROC curves", caption, HeatMaps([heat_map], list(values), columns))]


def _histograms(result: SuiteResult, inside: Scores, outside: Mapping[str, Scores]) -> Figure:
    formulas, panels = result.facts.get("scores", {}), []
    for name, values in inside.items():
        anomalies = [Histogram(dataset, scores[name]) for dataset, scores in outside.items() if name in scores]
        groups = [Histogram("test set", values, "known"), *anomalies]
        panels.append(HistogramPanel(common.plain(name), formulas.get(name, ""), groups))
    caption = f"{common.with_references(result)}; further right is more anomalous. Less overlap is better."
    return Figure("scores", "Anomaly scores of the test set and of the anomalies", caption, Histograms(panels))
