"""Which pictures of a suite there are, from what it found.

A picture is drawn when the arrays or numbers that it shows are there. Lines stand for numbers of references where
several fit into one picture; else the picture is of the largest number, and its caption says so.
"""

import dataclasses
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.evaluation import results as results_lib
from anchor_jax.evaluation.results import BLT_SUFFIX, Results
from anchor_jax.reporting import plots
from anchor_jax.reporting.plots import HIGHER_IS_BETTER, LOWER_IS_BETTER, Judged, Protocol, Sheet, Strip

UNCERTAINTIES = {
    "entropy": "predictive entropy (nats)",
    "mutual_information": "mutual information (nats)",
    "spread": "spread over references",
}
GROUPS = ("near", "far")  # of anomaly sets
SHOWN = 10  # of the most and of the least certain images
SAMPLES = 60  # images of anomalies in one picture


Found = results_lib.SuiteResult


class SuiteResult(NamedTuple):
    """What a suite has found so far on one checkpoint."""

    suite: str
    facts: Mapping[str, Any]
    results: dict[int, Found]
    facts_of: dict[int, Mapping[str, Any]]


def by_suite(results: Mapping[str, Results]) -> dict[str, SuiteResult]:
    """The results of all suites."""
    return {
        name: SuiteResult(name, list(of.values())[-1].facts, dict(of), {num: one.facts for num, one in of.items()})
        for name, of in results.items()
    }


def base_suite(name: str) -> str:
    """The suite, whatever the protocol."""
    return name.removesuffix(BLT_SUFFIX)


class Picture(NamedTuple):
    """A picture and what stands beneath it."""

    file: Path
    title: str
    caption: str


def draw(results: Mapping[str, SuiteResult], label_names: Sequence[str], folder: Path) -> dict[str, list[Picture]]:
    """Draw all pictures of all suites.

    Args:
      results: what `found.read` gives.
      label_names: of the classes; where a label has none, its number stands for it.
      folder: for the PNG files.

    Returns:
      Suite -> its pictures, in the order of reading.
    """
    pages = {suite: _Page(result, label_names, folder, results.get("clean")) for suite, result in results.items()}
    return {
        suite: list(PICTURES[base_suite(suite)](page)) if base_suite(suite) in PICTURES else []
        for suite, page in pages.items()
    }


def format_num_references(num_references: int) -> str:
    """A number of references in words."""
    return {0: "standard network", 1: "1 reference"}.get(num_references, f"{num_references:,} references")


def by_severity(metrics: Mapping[str, float], quantity: str) -> dict[str, dict[int, float]]:
    """Corruption -> severity -> value, from names such as "fog/3/accuracy"."""
    curves = {}
    for name, value in metrics.items():
        if match := re.fullmatch(f"(.+)/([1-9])/{quantity}", name):
            curves.setdefault(match[1], {})[int(match[2])] = value
    return curves


def by_set(metrics: Mapping[str, float], quantity: str) -> dict[str, float]:
    """Set -> value, from names such as "sketch/accuracy"; the mean over sets, "accuracy", is left out."""
    end = f"/{quantity}"
    return {name.removesuffix(end): value for name, value in metrics.items() if name.endswith(end)}


def by_set_and_score(metrics: Mapping[str, float], quantity: str) -> dict[str, dict[str, float]]:
    """Set, "near" or "far" -> score -> value, from names such as "svhn/energy/auroc"; "" is the mean over sets."""
    table = {}
    for name, value in by_set(metrics, quantity).items():
        of, _, score = name.rpartition("/")
        table.setdefault(of, {})[score] = value
    return table


def by_draw(metrics: Mapping[str, float], quantity: str) -> dict[int, np.ndarray]:
    """Number of references -> values of its draws, from names such as "draws/3/10/accuracy"."""
    draws = {}
    for name, value in by_set(metrics, quantity).items():
        if name.startswith("draws/"):
            draws.setdefault(int(name.rpartition("/")[2]), []).append(value)
    return {num: np.array(values) for num, values in sorted(draws.items())}


@dataclasses.dataclass(frozen=True)
class _Page:
    """What the pictures of one suite are made from."""

    result: SuiteResult
    label_names: Sequence[str]
    folder: Path
    clean: SuiteResult | None

    @property
    def largest(self) -> int:
        return max(self.result.results)

    @property
    def found(self) -> Found:
        return self.result.results[self.largest]

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.result.facts_of[self.largest]

    @property
    def groups(self) -> dict[str, list[str]]:
        """Near and far sets of anomalies, as far as there are such groups."""
        return {group: self.facts["groups"][group] for group in GROUPS if group in self.facts.get("groups", {})}

    def clean_metrics(self, num: int) -> Mapping[str, float]:
        """Of the clean test set, if they are there."""
        return self.clean.results[num].metrics if self.clean and num in self.clean.results else {}

    def path(self, name: str) -> Path:
        return self.folder / f"{self.result.suite}-{name}.png"

    def with_arrays(self, *names: str) -> dict[int, Found]:
        return {num: found for num, found in self.result.results.items() if set(names) <= found.arrays.keys()}

    def has(self, *names: str) -> bool:
        return self.largest in self.with_arrays(*names)

    def names(self, labels: np.ndarray) -> list[str]:
        known = dict(enumerate(self.label_names))
        return [known.get(label, str(label)) for label in labels.tolist()]


def _clean(page: _Page) -> Iterator[Picture]:
    judged = {
        format_num_references(num): Judged(found.arrays["confidence"], found.arrays["correct"])
        for num, found in page.with_arrays("confidence", "correct").items()
    }
    if judged:
        yield _reliability(page, dict(_few(list(judged.items()))))
    arrays = page.found.arrays
    scores = {text: arrays[name] for name, text in UNCERTAINTIES.items() if page.has(name, "correct")}
    scores = {name: score for name, score in scores.items() if _varies(score)}
    if judged:
        yield _risk_coverage(page, judged, scores)
    if scores:
        plots.uncertainty_histograms(scores, arrays["correct"], path := page.path("uncertainty"))
        yield Picture(
            path,
            "Uncertainty of right and of wrong predictions",
            f"{_sentence(page.largest)}: each outline adds up to 100 %. The wrong ones should lie further right.",
        )
    if page.has("label", "predicted", "entropy", "most_certain_images", "least_certain_images"):
        strips = {title: _certain(page, which) for which, title in _CERTAIN.items()}
        plots.image_strips(strips, SHOWN, path := page.path("certain"))
        yield Picture(
            path,
            "Most and least certain images",
            f"{_sentence(page.largest)}: predicted class and predictive entropy in nats; blue is right, vermilion is "
            "wrong, with the true class after “not”.",
        )


def _risk_coverage(page: _Page, judged: Mapping[str, Judged], scores: Mapping[str, np.ndarray]) -> Picture:
    panels = {"by confidence": judged}
    if page.has("confidence", "correct") and len(scores) > 1:
        correct = page.found.arrays["correct"]
        panels[f"by uncertainty, {format_num_references(page.largest)}"] = {
            name.removesuffix(" (nats)"): Judged(-score, correct) for name, score in scores.items()
        }
    plots.risk_coverage_curves(panels, path := page.path("risk-coverage"))
    return Picture(
        path,
        "Risk and coverage",
        "Only the predictions that the model is surest of are accepted: the further left, the fewer. The lower the "
        "line the better; the dotted one is the least that these mistakes allow.",
    )


_CERTAIN = {"most_certain": "most certain", "least_certain": "least certain"}


def _certain(page: _Page, which: str) -> Strip:
    arrays = page.found.arrays
    rows = arrays[f"{which}_rows"][:SHOWN]
    label, predicted, entropy = (arrays[name][rows] for name in ("label", "predicted", "entropy"))
    return plots.certain_strip(
        arrays[f"{which}_images"][:SHOWN], page.names(label), page.names(predicted), entropy, label == predicted
    )


def _corruptions(page: _Page) -> Iterator[Picture]:
    metrics = page.found.metrics
    members = {title: by_severity(metrics, name) for name, title in _SHIFTED.items()}
    means = {title: _means_by_severity(page, name) for name, title in _SHIFTED.items()}
    means = {title: curves for title, curves in means.items() if curves}
    if page.has("entropy"):
        means["predictive entropy (nats)"] = _entropy_by_severity(page, metrics)
    if means:
        plots.severity_curves(means, members, path := page.path("severity"))
        yield Picture(
            path,
            "Against severity",
            "Mean over the corruptions, one line for each number of references; thin lines are single corruptions "
            f"with {format_num_references(page.largest)}. An honest model loses confidence as it loses accuracy: its error of "
            "calibration stays low.",
        )
    if members["accuracy"]:
        yield _heat_map(page, members)
    if page.has("confidence", "correct") and members["accuracy"]:
        yield _reliability(page, _judged_by_severity(page, metrics))
    if page.has("sample_images"):
        yield _corrupted_samples(page)


_SHIFTED = {"accuracy": "accuracy", "ece": "expected calibration error"}


def _means_by_severity(page: _Page, quantity: str) -> dict[str, dict[int, float]]:
    curves = {}
    for num, found in page.result.results.items():
        names = {severity: f"severity{severity}/{quantity}" for severity in range(1, 6)}
        curve = {severity: found.metrics[name] for severity, name in names.items() if name in found.metrics}
        if quantity in page.clean_metrics(num):
            curve = {0: page.clean_metrics(num)[quantity], **curve}
        curves |= {format_num_references(num): curve} if curve else {}
    return curves


def _severities(metrics: Mapping[str, float]) -> list[int]:
    return sorted({severity for curve in by_severity(metrics, "accuracy").values() for severity in curve})


def _entropy_by_severity(page: _Page, metrics: Mapping[str, float]) -> dict[str, dict[int, float]]:
    return {
        format_num_references(num): dict(
            zip(_severities(metrics), found.arrays["entropy"].mean((0, 2), dtype=np.float64).tolist(), strict=True)
        )
        for num, found in page.with_arrays("entropy").items()
    }


def _judged_by_severity(page: _Page, metrics: Mapping[str, float]) -> dict[str, Judged]:
    confidence, correct = page.found.arrays["confidence"], page.found.arrays["correct"]
    return {
        f"severity {severity}": Judged(confidence[:, place].ravel(), correct[:, place].ravel())
        for place, severity in _few(list(enumerate(_severities(metrics))))
    }


def _heat_map(page: _Page, members: Mapping[str, Mapping[str, Mapping[int, float]]]) -> Picture:
    rows, severities = list(members["accuracy"]), _severities(page.found.metrics)
    sheets = []
    for (title, curves), colours in zip(members.items(), (HIGHER_IS_BETTER, LOWER_IS_BETTER), strict=True):
        if curves:
            values = np.array([[curves.get(row, {}).get(each, np.nan) for each in severities] for row in rows])
            sheets.append(Sheet(title, np.column_stack([values, values.mean(1)]), colours))
    columns = [*map(str, severities), "mean"]
    plots.heat_maps(sheets, [_plain(row) for row in rows], columns, path := page.path("heat-map"))
    return Picture(
        path,
        "Every corruption at every severity",
        f"{_sentence(page.largest)}, in per cent: strong blue is good, strong orange is bad.",
    )


def _corrupted_samples(page: _Page) -> Picture:
    images = page.found.arrays["sample_images"]
    names = [textwrap.fill(_plain(name), 14) for name in page.facts["members"]]
    plots.image_strips({"severity 3": Strip(images, names)}, 10, path := page.path("samples"))
    return Picture(path, "What the corruptions look like", "One test image under each of them, at severity 3.")


def _shift(page: _Page) -> Iterator[Picture]:
    accuracies = _by_set_and_references(page)
    if accuracies:
        plots.bars(accuracies, path := page.path("accuracy"), quantity="accuracy")
        yield Picture(path, "Accuracy of each set", "One bar for each number of references.")
    sets = [name for name in accuracies if page.has(f"{name}/confidence", f"{name}/correct")]
    arrays = page.found.arrays
    if sets:
        judged = {name: Judged(arrays[f"{name}/confidence"], arrays[f"{name}/correct"]) for name in sets}
        yield _reliability(page, judged)


def _by_set_and_references(page: _Page) -> dict[str, dict[str, float]]:
    table = {}
    for num, found in page.result.results.items():
        for name, value in by_set(found.metrics, "accuracy").items():
            table.setdefault(name, {})[format_num_references(num)] = value
    return table


def _ood(page: _Page) -> Iterator[Picture]:
    inside, outside = _scores(page)
    if outside:
        plots.roc_curves(inside, outside, path := page.path("roc"))
        yield Picture(
            path,
            "ROC curves",
            f"{_sentence(page.largest)}: the higher and further left the line, the more anomalies are found for the "
            "same false alarms; areas under the curves in the legends, 50 % is chance.",
        )
    if len(outside) > 1:
        yield _areas(page, by_set_and_score(page.found.metrics, "auroc"))
    if outside:
        plots.score_histograms(inside, outside, page.facts.get("scores", {}), path := page.path("scores"))
        yield Picture(
            path,
            "Scores of the test set and of the anomalies",
            f"{_sentence(page.largest)}; further right is more anomalous. The less the outlines overlap the better.",
        )
    samples = {name: Strip(page.found.arrays[f"{name}/sample_images"], ()) for name in _sets(page, "sample_images")}
    if samples:
        shown = int(np.clip(SAMPLES // len(samples), 4, 12))
        strips = {name: Strip(strip.images[:shown], ()) for name, strip in samples.items()}
        plots.image_strips(strips, 12, path := page.path("samples"))
        yield Picture(path, "What the anomalies look like", "The first images of each set, as the network gets them.")


def _sets(page: _Page, column: str) -> list[str]:
    """Those that have a column; near ones first, as far as the facts say which they are."""
    end = f"/{column}"
    sets = [name.removesuffix(end) for name in page.found.arrays if name.endswith(end) and name != f"in{end}"]
    known = [name for members in page.groups.values() for name in members if name in sets]
    return known + [name for name in sets if name not in known]


def _scores(page: _Page) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]:
    """Of the test set and of each set of anomalies, but for scores that are the same everywhere."""
    arrays = page.found.arrays
    inside = {name.removeprefix("in/"): arrays[name] for name in arrays if name.startswith("in/")}
    outside = {}
    for score in inside:
        for name in _sets(page, score):
            outside.setdefault(name, {})[score] = arrays[f"{name}/{score}"]
    varying = {
        score
        for score, known in inside.items()
        if _varies(np.concatenate([known, *(scores[score] for scores in outside.values() if score in scores)]))
    }
    return (
        {score: values for score, values in inside.items() if score in varying},
        {name: {score: scores[score] for score in scores if score in varying} for name, scores in outside.items()},
    )


def _areas(page: _Page, areas: Mapping[str, Mapping[str, float]]) -> Picture:
    scores = list(dict.fromkeys(score for row in areas.values() for score in row))
    means = [name for name in (*GROUPS, "") if name in areas]
    grouped = [name for members in page.groups.values() for name in members if name in areas]
    rows = [*grouped, *(name for name in areas if name not in (*grouped, *means)), *means]
    titles = {"near": "mean of the near sets", "far": "mean of the far sets", "": "mean of all sets"}
    values = np.array([[areas[row].get(score, np.nan) for score in scores] for row in rows])
    columns = [_plain(score).replace(" ", "\n") for score in scores]
    sheet = Sheet("area under the ROC curve", values, HIGHER_IS_BETTER)
    plots.heat_maps([sheet], [titles.get(row, row) for row in rows], columns, path := page.path("auroc"))
    return Picture(path, "Areas under the ROC curves", f"{_sentence(page.largest)}, in per cent; 50 is chance.")


def _protocols(page: _Page) -> Iterator[Picture]:
    metrics = {name: value for found in page.result.results.values() for name, value in found.metrics.items()}
    draws = by_draw(metrics, "accuracy")
    rows = {
        title: Protocol(
            metrics[f"{protocol}/accuracy"],
            draws.get(num, np.empty(0)),
            metrics.get(f"{protocol}/seconds_per_1000"),
        )
        for title, (protocol, num, metrics) in protocol_rows(page.result).items()
    }
    if rows:
        plots.protocols(rows, draws, path := page.path("accuracy"))
        yield Picture(
            path,
            "What the choice of references changes",
            "Each grey mark is one draw of as many references, the dot is their mean; where the marks lie close "
            "together, the choice hardly matters. BLT takes for each image the reference whose residual is most like "
            "those of training.",
        )


def protocol_rows(result: SuiteResult) -> dict[str, tuple[str, int, dict[str, float]]]:
    """The rows of the paper's table: title -> name of the protocol, references, and the numbers it is found in."""
    rows = {}
    newest = result.results[max(result.results)].metrics
    for title, name, num in (("no reference", "standard", 0), ("1 random", "random1", 1)):
        if f"{name}/accuracy" in newest:
            rows[title] = name, num, newest
    for num, found in result.results.items():
        if "randomK/accuracy" in found.metrics and num > 1:
            rows[f"{num:,} random"] = "randomK", num, found.metrics
    if "blt/accuracy" in newest:
        rows["BLT"] = "blt", 0, newest  # no draws
    return rows


def _probe(page: _Page) -> Iterator[Picture]:
    accuracies = _by_set_and_references(page)
    inside = page.facts.get("in_distribution")
    if accuracies:
        plots.bars(
            {name + " (in distribution)" * (name == inside): row for name, row in accuracies.items()},
            path := page.path("accuracy"),
            quantity="accuracy of the linear probe",
        )
        yield Picture(
            path, "Accuracy of the probe", "One bar for each number of references that features average over."
        )


def _landscape(page: _Page) -> Iterator[Picture]:
    names = ("alphas", "betas", "accuracy", "loss")
    if page.has(*names):
        alphas, betas, accuracy, loss = (page.found.arrays[name] for name in names)
        plots.landscape(alphas, betas, accuracy, loss, path := page.path("contours"))
        yield Picture(
            path,
            "Around the trained parameters",
            f"{_sentence(page.largest)}: the cross is the trained model; a step of 1 is as long as each filter itself. "
            "A wide even plateau is a flat optimum.",
        )


PICTURES: dict[str, Callable[[_Page], Iterator[Picture]]] = {
    "clean": _clean,
    "corruptions": _corruptions,
    "shift": _shift,
    "ood": _ood,
    "protocols": _protocols,
    "probe": _probe,
    "landscape": _landscape,
}


def _reliability(page: _Page, panels: Mapping[str, Judged]) -> Picture:
    plots.reliability_diagrams(panels, page.facts["num_bins"], path := page.path("reliability"))
    return Picture(
        path,
        "Reliability",
        "Bars on the dashed line: as often right as claimed. Below it the model is overconfident. Beneath, how many "
        "predictions have that confidence.",
    )


def _few(items: list) -> list:
    """The first, the one in the middle and the last, where there are more than three."""
    return items if len(items) <= 3 else [items[0], items[len(items) // 2], items[-1]]


def _varies(values: np.ndarray) -> bool:
    return bool(np.ptp(values) > 0)


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _sentence(num_references: int) -> str:
    return f"With {format_num_references(num_references)}" if num_references else "The standard network"
