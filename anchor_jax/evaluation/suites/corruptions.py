"""Corruptions: accuracy and calibration for each corruption and severity."""

import dataclasses
import re
import textwrap
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.data import CorruptedSet, EvalDataset, check_differs, corruptions, open_corrupted
from anchor_jax.data.corruptions import SEVERITIES
from anchor_jax.evaluation.context import EvalContext
from anchor_jax.evaluation.generated_corruptions import generated
from anchor_jax.evaluation.options import GENERATED, CorruptedSetsOption, SeedOption, TemperatureOption
from anchor_jax.evaluation.predictions import METRICS, main_scores
from anchor_jax.evaluation.presentation import (
    GROUP_TITLES,
    Figure,
    HeatMap,
    HeatMaps,
    Highlight,
    ImageGrid,
    ImageStrip,
    Line,
    LinePanel,
    LinePlots,
    Table,
    format_num_references,
)
from anchor_jax.evaluation.results import Results, Score, SuiteResult
from anchor_jax.evaluation.suite import Suite
from anchor_jax.evaluation.suites import common
from anchor_jax.runtime import mesh as mesh_lib

GENERATED_C_BAR = "generated-c-bar"
_MADE = GENERATED, GENERATED_C_BAR
_SAMPLE_SEVERITY = 3
_RESERVED = r"severity\d|mean15|mean19|cbar"
_NUM_IMAGENET_CLASSES = 1_000
_POOLED = (
    "All corruptions of a severity are pooled, so that overconfidence on one and underconfidence on another cancel: "
    "the ECE of the pool, above each diagram, is at most the mean over the corruptions in the tables."
)
_SHOWN = {"accuracy": "accuracy", "ece": "expected calibration error"}

# top-1 errors of AlexNet, mean over severities, by which mCE divides (hendrycks/robustness)
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


@dataclasses.dataclass(frozen=True)
class CorruptionsOptions(CorruptedSetsOption, SeedOption, TemperatureOption):
    """The corrupted test sets, and how they are evaluated."""


@dataclasses.dataclass(frozen=True)
class PreparedCorruptions:
    """The opened corrupted sets."""

    context: EvalContext
    options: CorruptionsOptions
    sets: list[CorruptedSet]

    @cached_property
    def members(self) -> dict[str, CorruptedSet]:
        """Corruption -> the set that contains it."""
        return {member: corrupted for corrupted in self.sets for member in corrupted.members}

    def dataset_of(self, corrupted: CorruptedSet) -> str:
        """Return the name of the dataset whose images are in a set: the test set, or a published one."""
        spec = self.options.corruptions[self.sets.index(corrupted)]
        return self.context.test_name if spec in _MADE else corrupted.name

    @cached_property
    def sample_images(self) -> np.ndarray:
        """The first test image under each corruption, uint8 `[members, H, W, C]`."""
        size = self.context.predictor.size_for(self.context.test.num_examples)
        batches = (of.stream(member, _SAMPLE_SEVERITY).first(size)[0] for member, of in self.members.items())
        return np.stack([mesh_lib.device_get_global(images)[0] for images in batches])


class Corruptions(Suite[PreparedCorruptions]):
    """Evaluate corrupted versions of the test set."""

    name = "corruptions"
    title = "Corruptions"
    question = "How much accuracy is lost when images are noisy, blurred, foggy or compressed?"
    reading = (
        "Severity 1 is mild and 5 is strong. The accuracy of a robust model drops slowly, and the calibration error of "
        "an honest model stays low while its accuracy drops."
    )
    options = CorruptionsOptions
    supports_blt = True
    records_predictions = True

    def prepare(self, context: EvalContext) -> PreparedCorruptions:
        """Open the corrupted sets.

        Raises:
          UserError: there are none, they are incomplete, share a corruption, or equal the clean test set.
        """
        options = context.options_of(CorruptionsOptions)
        if not options.corruptions:
            raise UserError(f"suite 'corruptions' needs a set; give one as --corruptions, such as {GENERATED}")
        sets = _open_all(context, options)
        for spec, corrupted in zip(options.corruptions, sets, strict=True):
            if spec in (GENERATED, GENERATED_C_BAR):
                images = jax.ShapeDtypeStruct((1, *context.run.image_shape), np.uint8)
                jax.eval_shape(lambda images: corruptions.corrupt(jax.random.key(0), images, "contrast", 1), images)
            else:
                check_differs(
                    context.known_clean, *(corrupted.stream(name, SEVERITIES[-1]) for name in corrupted.members)
                )
        return PreparedCorruptions(context, options, sets)

    def datasets(self, context: EvalContext, prepared: PreparedCorruptions) -> list[EvalDataset | CorruptedSet]:
        """Return the published sets, and the test set if corruptions are generated from it."""
        pairs = list(zip(prepared.options.corruptions, prepared.sets, strict=True))
        published: list[EvalDataset | CorruptedSet] = [corrupted for spec, corrupted in pairs if spec not in _MADE]
        return published + ([context.test] if len(published) < len(pairs) else [])

    def num_predictions(self, prepared: PreparedCorruptions, num_references: int) -> int:
        """Return the number of images under all corruptions at all severities, once per reference."""
        return max(num_references, 1) * len(SEVERITIES) * len(prepared.members) * prepared.sets[0].num_examples

    def measure(self, prepared: PreparedCorruptions, num_references: int) -> SuiteResult:
        """Score each corruption and severity, and average over them."""
        context, members = prepared.context, prepared.members
        temperature = context.temperature(num_references)
        scores: list[Score] = []
        columns = {"correct": [], "confidence": [], "entropy": []}
        num_examples = prepared.sets[0].num_examples
        for name, corrupted in members.items():
            for severity in SEVERITIES:
                stream = corrupted.stream(name, severity)
                table = context.predict_recorded(
                    stream,
                    num_references,
                    temperature=temperature,
                    dataset=prepared.dataset_of(corrupted),
                    corruption=name,
                    severity=severity,
                )
                scores += main_scores(table, context.num_bins, corruption=name, severity=severity)
                columns["correct"].append(table.mean_probs.correct)
                columns["confidence"].append(table.mean_probs.confidence)
                columns["entropy"].append(table.entropy)
        means = mean_scores(scores)
        is_imagenet = len(context.run.label_names) == _NUM_IMAGENET_CLASSES
        if (
            is_imagenet
            and not corruptions.is_small(context.run.image_shape)
            and members.keys() >= ALEXNET_ERRORS.keys()
        ):
            means.append(Score("mce", mean_corruption_error(means)))
        shape = (len(members), len(SEVERITIES), -1)
        arrays = {name: np.reshape(parts, shape) for name, parts in columns.items()}
        arrays["sample_images"] = prepared.sample_images
        return SuiteResult(self.name, num_references, (*scores, *means), arrays, _facts(prepared, num_examples))

    def tables(self, results: Results) -> list[Table]:
        """Return the means over corruptions and severities, then accuracy and ECE at each severity."""
        groups = [common.Quantity(GROUP_TITLES[g], "accuracy", {"group": g}) for g in ("mean15", "mean19", "cbar")]
        columns = [*common.quantities(("accuracy",)), *groups, *common.quantities(("mce", *METRICS[1:]))]
        notes = common.mean_notes(common.newest(results))
        tables = common.by_references("Mean over corruptions and severities", results, columns, notes=notes)
        for metric, title in (("accuracy", "Accuracy"), ("ece", "ECE")):
            columns = [common.Quantity(f"severity {s}", metric, {"severity": s}) for s in SEVERITIES]
            tables += common.by_references(f"{title} at each severity, mean over corruptions", results, columns)
        return tables

    def highlights(self, result: SuiteResult) -> list[Highlight]:
        """Return accuracy and calibration error."""
        return common.highlights(self.title, result, mean="mean over corruptions")

    def figures(self, results: Results, clean: Results) -> list[Figure]:
        """Return curves against severity, a heat map, reliability diagrams and example images."""
        result = common.newest(results)
        by_severity = {metric: _by_corruption(result, metric) for metric in _SHOWN}
        figures = [*_severity_curves(results, clean, by_severity), *_heat_maps(result, by_severity)]
        if common.judged(result) and by_severity["accuracy"]:
            severities = common.select_few(list(enumerate(SEVERITIES)))
            confidence, correct = result.arrays["confidence"], result.arrays["correct"]
            panels = {
                f"severity {s}, corruptions pooled": (confidence[:, i].ravel(), correct[:, i].ravel())
                for i, s in severities
            }
            figures.append(common.reliability_figure(panels, result.facts["num_bins"], _POOLED))
        if (images := result.column("sample_images")) is not None:
            captions = [textwrap.fill(common.plain(name), 14) for name in common.members(result)]
            strips = {f"severity {_SAMPLE_SEVERITY}": ImageStrip(images, captions)}
            caption = f"The first test image under each corruption, at severity {_SAMPLE_SEVERITY}."
            figures.append(Figure("samples", "Examples of the corruptions", caption, ImageGrid(strips, 10)))
        return figures


def mean_scores(scores: Sequence[Score]) -> list[Score]:
    """Average scores of single corruptions and severities.

    Args:
      scores: of every corruption and severity.

    Returns:
      For each metric the mean over all, over the severities of each corruption, over the corruptions of each severity,
      and over the groups of corruptions that papers report.
    """
    names = tuple(dict.fromkeys(score.corruption for score in scores if score.corruption))
    values = {(s.metric, s.prediction, s.corruption, s.severity): s.value for s in scores}
    means = []
    for metric, prediction in dict.fromkeys((s.metric, s.prediction) for s in scores):

        def mean(corruptions, severities, metric=metric, prediction: Any = prediction, **fields):
            found = [values[metric, prediction, c, s] for c in corruptions for s in severities]
            return Score(metric, float(np.mean(found)), prediction=prediction, **fields)

        means.append(mean(names, SEVERITIES))
        means += [mean((name,), SEVERITIES, corruption=name) for name in names]
        means += [mean(names, (severity,), severity=severity) for severity in SEVERITIES]
        means += [mean(of_group, SEVERITIES, group=group) for group, of_group in named_groups(names).items()]
    return means


def named_groups(members: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the groups of corruptions that papers average over, if all their members are present."""
    groups = (
        ("mean15", corruptions.CORRUPTIONS_15),
        ("mean19", corruptions.CORRUPTIONS_19),
        ("cbar", corruptions.C_BAR_CIFAR),
        ("cbar", corruptions.C_BAR_IMAGENET),
    )
    return {name: group for name, group in groups if set(group) <= set(members)}


def mean_corruption_error(means: Sequence[Score]) -> float:
    """Return the mCE: errors relative to AlexNet's, mean over 15 corruptions (Hendrycks & Dietterich 2019, sec. 4.1).

    Args:
      means: with the mean accuracy over the severities of each corruption.
    """
    accuracy = {
        s.corruption: s.value for s in means if (s.metric, s.prediction, s.severity) == ("accuracy", "mean_probs", None)
    }
    return float(np.mean([(1 - accuracy[name]) / error for name, error in ALEXNET_ERRORS.items()]))


def _open_all(context: EvalContext, options: CorruptionsOptions) -> list[CorruptedSet]:
    sets = [_open(context, spec, options.seed) for spec in options.corruptions]
    members = [member for corrupted in sets for member in corrupted.members]
    if len({corrupted.num_examples for corrupted in sets}) > 1:
        numbers = ", ".join(f"'{of.name}' has {of.num_examples:,}" for of in sets)
        raise UserError(f"corrupted sets must have the same number of images; {numbers}; evaluate them one by one")
    if reserved := [member for member in members if re.fullmatch(_RESERVED, member)]:
        raise UserError(
            f"a corruption must not have the name of an average, '{reserved[0]}'; rename its file or folder"
        )
    if repeated := sorted({member for member in members if members.count(member) > 1}):
        raise UserError(f"corrupted sets must differ in their corruptions; got twice: {', '.join(repeated)}")
    return sets


def _open(context: EvalContext, spec: str, seed: int) -> CorruptedSet:
    shape = context.run.image_shape
    if spec == GENERATED:
        return generated("generated on the device", corruptions.CORRUPTIONS_19, context.test, seed)
    if spec == GENERATED_C_BAR:
        members = corruptions.C_BAR_CIFAR if corruptions.is_small(shape) else corruptions.C_BAR_IMAGENET
        return generated("C-bar, generated on the device", members, context.test, seed)
    published = open_corrupted(
        spec,
        image_shape=shape,
        label_names=context.run.label_names,
        tfds_dir=context.tfds_dir,
        interpolation=context.run.config.data.interpolation,
        resizing=context.run.config.data.resizing,
        orientation=context.run.config.data.orientation,
        channels=context.run.config.data.channels,
    )
    return context.limited_corrupted(published)


def _facts(prepared: PreparedCorruptions, num_examples: int) -> dict[str, Any]:
    members, options = list(prepared.members), prepared.options
    facts = {
        "source": [corrupted.name for corrupted in prepared.sets],
        "members": members,
        "severities": list(SEVERITIES),
        "averages": {name: list(group) for name, group in named_groups(members).items()},
        "num_examples": num_examples,
    }
    if {GENERATED, GENERATED_C_BAR} & set(options.corruptions):
        approximations = {name: how for name, how in corruptions.APPROXIMATIONS.items() if name in members}
        facts |= {"seed": options.seed, "approximations": approximations}
    return facts


def _by_corruption(result: SuiteResult, metric: str) -> dict[str, dict[int, float]]:
    """Return corruption -> severity -> value."""
    values = {
        name: {s: result.value(metric, corruption=name, severity=s) for s in SEVERITIES}
        for name in common.members(result)
    }
    curves = {name: {s: value for s, value in curve.items() if value is not None} for name, curve in values.items()}
    return {name: curve for name, curve in curves.items() if curve}


def _severity_curves(
    results: Results, clean: Results, by_severity: Mapping[str, Mapping[str, Mapping[int, float]]]
) -> list[Figure]:
    panels, ticks = [], {s: str(s) if s else "clean" for s in (0, *SEVERITIES)}
    for metric, title in _SHOWN.items():
        faint = [
            Line("" if place else "single corruption", list(curve), list(curve.values()), style="faint")
            for place, curve in enumerate(by_severity[metric].values())
        ]
        lines = []
        for num, result in results.items():
            curve = {0: clean[num].value(metric)} if num in clean else {}
            curve |= {s: result.value(metric, severity=s) for s in SEVERITIES}
            curve = {s: value for s, value in curve.items() if value is not None}
            if curve:
                lines.append(_ordered(num, list(curve), list(curve.values())))
        if lines:
            panels.append(LinePanel(title, [*lines, *faint], xlabel="severity", percent="y", xticks=ticks))
    entropies = {num: result.column("entropy") for num, result in results.items()}
    lines = [
        _ordered(num, SEVERITIES, entropy.mean((0, 2), dtype=np.float64))
        for num, entropy in entropies.items()
        if entropy is not None
    ]
    if lines:
        panels.append(LinePanel("predictive entropy (nats)", lines, xlabel="severity"))
    caption = (
        "Mean over the corruptions, one line per number of references; thin lines are single corruptions with "
        f"{format_num_references(max(results))}. An honest model loses confidence as it loses accuracy, so that its "
        "calibration error stays low."
    )
    return (
        [Figure("severity", "Accuracy and calibration against severity", caption, LinePlots(panels))] if panels else []
    )


def _ordered(num_references: int, x: Sequence[float], y: Sequence[float] | np.ndarray) -> Line:
    return Line(format_num_references(num_references), x, y, style="ordered", markers=True)


def _heat_maps(result: SuiteResult, by_severity: Mapping[str, Mapping[str, Mapping[int, float]]]) -> list[Figure]:
    rows = list(by_severity["accuracy"])
    panels = []
    for metric, title in _SHOWN.items():
        if curves := by_severity[metric]:
            values = np.array([[curves.get(row, {}).get(s, np.nan) for s in SEVERITIES] for row in rows])
            values = np.column_stack([values, values.mean(1)])
            panels.append(HeatMap(title, values, higher_is_better=metric == "accuracy"))
    if not rows:
        return []
    caption = f"{common.with_references(result)}, in percent: dark blue is good, dark orange is bad."
    columns = [*map(str, SEVERITIES), "mean"]
    plot = HeatMaps(panels, [common.plain(row) for row in rows], columns)
    return [Figure("heat-map", "Each corruption at each severity", caption, plot)]
