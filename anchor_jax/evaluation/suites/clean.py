"""Clean: accuracy, likelihood, calibration and selective prediction on the test set."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from anchor_jax import metrics
from anchor_jax.data import EvalDataset
from anchor_jax.evaluation.context import EvalContext
from anchor_jax.evaluation.known_sets import KnownSet, open_known_sets
from anchor_jax.evaluation.options import TemperatureOption
from anchor_jax.evaluation.predictions import METRICS, all_scores, to_arrays
from anchor_jax.evaluation.presentation import (
    Figure,
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
from anchor_jax.evaluation.results import Results, Score, SuiteResult, storage_name
from anchor_jax.evaluation.suite import Suite
from anchor_jax.evaluation.suites import classes, common

_STORED, _SHOWN = 12, 10  # images of the most and of the least certain predictions
_UNCERTAINTIES = {
    "entropy": "predictive entropy (nats)",
    "mutual_information": "mutual information (nats)",
    "spread": "spread over references",
}


class PreparedClean(NamedTuple):
    """What is evaluated: the test set, or another one."""

    context: EvalContext
    of: KnownSet
    dataset: str | None = None  # name of the other one


class Clean(Suite[PreparedClean]):
    """Evaluate the test set as it is, or other labeled sets."""

    name = "clean"
    title = "Clean test set"
    title_of_other = "Clean metrics"
    question = "How often is the model right on images like those of training, and does it know when it is wrong?"
    reading = (
        "NLL and Brier also judge the probabilities. The calibration errors (ECE) measure the gap between confidence "
        "and accuracy. AURC is low if mistakes have low confidence."
    )
    options = TemperatureOption
    supports_blt = True
    records_predictions = True

    def prepare(self, context: EvalContext) -> PreparedClean:
        """Open the test set."""
        return PreparedClean(context, KnownSet(context.test, None))

    def prepare_all(self, context: EvalContext) -> dict[str, PreparedClean]:
        """Open the test set, or what the option `data` names in its place."""
        if not context.options.data:
            return {self.name: self.prepare(context)}
        given = open_known_sets(context, context.options.data)
        return {
            storage_name(self.name, dataset=each.stream.name): PreparedClean(context, each, each.stream.name)
            for each in given
        }

    def datasets(self, context: EvalContext, prepared: PreparedClean) -> list[EvalDataset]:
        """Return the set."""
        return [prepared.of.stream]

    def num_predictions(self, prepared: PreparedClean, num_references: int) -> int:
        """Return the number of images, once per reference."""
        return max(num_references, 1) * prepared.of.stream.num_examples

    def measure(self, prepared: PreparedClean, num_references: int) -> SuiteResult:
        """Score all predictions, and keep the images of the most and the least certain ones."""
        context, (stream, classes), dataset = prepared
        temperature = context.temperature(num_references)
        table = context.predict_recorded(stream, num_references, classes=classes, temperature=temperature)
        scores = all_scores(table, context.num_bins)
        scores += [] if temperature is None else [Score("temperature", temperature)]
        by_certainty = np.argsort(np.asarray(table.entropy), kind="stable")
        most, least = by_certainty[:_STORED], by_certainty[::-1][:_STORED]
        images, _ = stream.take(np.concatenate([most, least]))
        arrays = to_arrays(table) | {
            "most_certain_rows": most,
            "most_certain_images": images[: len(most)],
            "least_certain_rows": least,
            "least_certain_images": images[len(most) :],
        }
        facts = {"num_examples": len(table.label)}
        facts |= {} if classes is None else {"classes": [context.run.label_names[row] for row in classes]}
        return SuiteResult(self.name, num_references, tuple(scores), arrays, facts, dataset=dataset)

    def tables(self, results: Results) -> list[Table]:
        """Return all metrics, then uncertainty, other predictions, and single classes."""
        names = ("accuracy", "top5_accuracy", "nll", "brier", "ece", "rms_ece", "adaptive_ece", "smooth_ece", "aurc")
        uncertainty = common.quantities(("entropy", "mutual_information", "agreement"))
        mean_logits = common.quantities(METRICS, prediction="mean_logits")
        scaled = [*common.quantities(("temperature",)), *common.quantities(METRICS, prediction="scaled")]
        return [
            *common.by_references("", results, common.quantities(names)),
            *common.by_references("Uncertainty", results, uncertainty),
            *common.by_references("Softmax of the mean logits, as the released code reports", results, mean_logits),
            *common.by_references("After temperature scaling", results, scaled),
            *classes.class_tables(common.newest(results)),
        ]

    def highlights(self, result: SuiteResult) -> list[Highlight]:
        """Return accuracy and calibration error."""
        return common.highlights(result.dataset or self.title, result)

    def figures(self, results: Results, clean: Results) -> list[Figure]:
        """Return reliability, risk and coverage, uncertainty of mistakes, confusions, and some images."""
        result = common.newest(results)
        judged = {format_num_references(num): common.judged(each) for num, each in results.items()}
        judged = {title: columns for title, columns in judged.items() if columns}
        correct = result.column("correct")
        uncertainties = {title: result.column(name) for name, title in _UNCERTAINTIES.items() if correct is not None}
        uncertainties = {
            title: scores for title, scores in uncertainties.items() if scores is not None and common.varies(scores)
        }
        figures = []
        if judged:
            few = dict(common.select_few(list(judged.items())))
            figures += [common.reliability_figure(few, result.facts["num_bins"])]
            figures += [_risk_coverage(judged, uncertainties, result)]
        if uncertainties and correct is not None:
            figures += [_uncertainty_of_mistakes(uncertainties, correct, result)]
        return [*figures, *classes.confusion_figures(result), *_certain_images(result)]


def _risk_coverage(
    judged: Mapping[str, tuple[np.ndarray, np.ndarray]], uncertainties: Mapping[str, np.ndarray], result: SuiteResult
) -> Figure:
    by_uncertainty = {
        title.removesuffix(" (nats)"): (-scores, list(judged.values())[-1][1])
        for title, scores in uncertainties.items()
    }
    panels = [_risk_panel("by confidence", judged, "ordered")]
    if len(by_uncertainty) > 1:
        title = f"by uncertainty, {format_num_references(result.num_references)}"
        panels.append(_risk_panel(title, by_uncertainty, "category"))
    highest = max(top for panel in panels for _, top in [panel.limits[1] or (0, 1)])
    panels = [dataclasses.replace(panel, limits=((0, 1), (0, highest))) for panel in panels]
    return Figure(
        "risk-coverage",
        "Risk and coverage",
        "Only the most certain predictions are accepted: the further left, the fewer. Lower is better; the dotted line "
        "is the lowest risk that any order of the predictions could reach.",
        LinePlots(panels, shared_legend=False),
    )


def _risk_panel(
    title: str, judged: Mapping[str, tuple[np.ndarray, np.ndarray]], style: Literal["ordered", "category"]
) -> LinePanel:
    correct = list(judged.values())[-1][1]
    optimum = map(np.asarray, metrics.risk_coverage(correct.astype(np.float32), correct))
    curves = {label: tuple(map(np.asarray, metrics.risk_coverage(*columns))) for label, columns in judged.items()}
    lines = [Line(label, *curve, style=style) for label, curve in curves.items()]
    # the first few accepted predictions are noise
    highest = max(float(risk[len(risk) // 20 :].max()) for _, risk in curves.values())
    return LinePanel(
        title,
        [*lines, Line("optimal order", *optimum, style="guide")],
        xlabel="coverage: fraction of predictions accepted",
        ylabel="risk: error rate among them",
        percent="xy",
        limits=((0, 1), (0, 1.05 * max(highest, 0.01))),
    )


def _uncertainty_of_mistakes(
    uncertainties: Mapping[str, np.ndarray], correct: np.ndarray, result: SuiteResult
) -> Figure:
    panels = []
    for title, scores in uncertainties.items():
        groups = [
            Histogram(f"right ({correct.sum():,})", scores[correct], "right"),
            Histogram(f"wrong ({(~correct).sum():,})", scores[~correct], "wrong"),
        ]
        panels.append(HistogramPanel("", title, [group for group in groups if len(group.values)]))
    return Figure(
        "uncertainty",
        "Uncertainty of right and wrong predictions",
        f"{common.with_references(result)}; each histogram sums to 100%. Wrong predictions should lie further right.",
        Histograms(panels),
    )


def _certain_images(result: SuiteResult) -> list[Figure]:
    needed = ("label", "predicted", "entropy", "most_certain_images", "least_certain_images")
    if any(result.column(name) is None for name in needed):
        return []
    strips = {f"{which} certain": _strip(result, which) for which in ("most", "least")}
    caption = (
        f"{common.with_references(result)}: predicted class and predictive entropy in nats; blue is right, vermilion "
        "is wrong, followed by the true class."
    )
    return [Figure("certain", "Most and least certain images", caption, ImageGrid(strips, _SHOWN))]


def _strip(result: SuiteResult, which: str) -> ImageStrip:
    names = dict(enumerate(common.class_names(result)))
    rows = result.arrays[f"{which}_certain_rows"][:_SHOWN]
    label, predicted, entropy = (result.arrays[name][rows] for name in ("label", "predicted", "entropy"))
    captions = [
        "\n".join([names.get(guess, str(guess)), *([] if guess == truth else [f"not {names.get(truth, truth)}"]), text])
        for truth, guess, text in zip(label.tolist(), predicted.tolist(), map("{:.3f}".format, entropy), strict=True)
    ]
    images = result.arrays[f"{which}_certain_images"][:_SHOWN]
    return ImageStrip(images, captions, (label == predicted).tolist())
