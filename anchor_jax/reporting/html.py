"""The report of an evaluation: a page to look at, and the same numbers for programs.

`report.html` needs nothing beside itself: pictures are inside, no script, no address. `report.json` and `report.csv`
hold every number. All of it is made anew from what the suites left in the folder.
"""

import base64
import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from PIL import Image

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import storage
from anchor_jax.evaluation.storage import REPORT, writing
from anchor_jax.reporting import figures
from anchor_jax.reporting.figures import Picture, SuiteResult, base_suite, by_suite, format_num_references
from anchor_jax.reporting.plots import DPI
from anchor_jax.runtime.atomic_files import atomic_write

CSS_DPI = 96
NO_BREAK = "\N{NO-BREAK SPACE}"
PREDICTION = ("accuracy", "nll", "brier", "ece", "rms_ece", "smooth_ece")
MEANS = ("corruptions", "shift", "ood")  # suites that average over their members
# facts that make rows of one table answers to different questions where they differ
QUESTION = ("source", "members", "groups", "averages", "num_examples", "severities", "seed", "in_distribution")
NAMES = {"mean15": "15 corruptions", "mean19": "19 corruptions", "cbar": "C̄", "near": "near sets", "far": "far sets"}
GLANCE = {"clean": ("accuracy", "ece"), "corruptions": ("accuracy", "ece"), "shift": ("accuracy",)}


class Metric(NamedTuple):
    """How a metric is shown."""

    heading: str
    better: int  # 1 where higher is better, -1 where lower is, 0 where neither
    form: str  # of `format`; "%" for a fraction


# last part of a name -> how it is shown
METRICS = {
    "accuracy": Metric("accuracy", 1, "%"),
    "top5_accuracy": Metric("top-5", 1, "%"),
    "nll": Metric("NLL", -1, ".4f"),
    "brier": Metric("Brier", -1, ".4f"),
    "ece": Metric("ECE", -1, "%"),
    "rms_ece": Metric("RMS ECE", -1, "%"),
    "adaptive_ece": Metric("adaptive ECE", -1, "%"),
    "smooth_ece": Metric("smoothed ECE", -1, "%"),
    "aurc": Metric("AURC", -1, "%"),
    "entropy": Metric("entropy", 0, ".4f"),
    "mutual_information": Metric("mutual information", 0, ".4f"),
    "agreement": Metric("agreement", 0, "%"),
    "temperature": Metric("temperature", 0, ".3f"),
    "mce": Metric("mCE", -1, "%"),
    "auroc": Metric("AUROC", 1, "%"),
    "aupr_in": Metric("AUPR in", 1, "%"),
    "aupr_out": Metric("AUPR out", 1, "%"),
    "fpr95": Metric("FPR at 95 % TPR", -1, "%"),
    "seconds_per_1000": Metric("seconds per 1,000", -1, ".3g"),
    "num_examples": Metric("examples", 0, ",.0f"),
}


class Cell(NamedTuple):
    """A number as it is shown."""

    text: str
    best: bool


class Table(NamedTuple):
    """Some of a suite's numbers."""

    caption: str
    headings: Sequence[str]  # of the columns, with an arrow towards what is better
    rows: Sequence[tuple[str, Sequence[Cell]]]


class Section(NamedTuple):
    """What the page says of a suite before its numbers."""

    title: str
    question: str
    reading: str
    tables: Callable[[SuiteResult], Iterator[Table]]


class Average(NamedTuple):
    """What a mean is the mean of."""

    name: str
    members: Sequence[str]


def write_report(folder: Path, run_facts: dict[str, Any]) -> Path:
    """Draw all pictures and write `report.html`, `report.json` and `report.csv` from what suites left in a folder.

    Args:
      folder: of the checkpoint, `<workdir>/eval/step{S}-bins{B}`.
      run_facts: JSON values about the run, shown as they are. Known keys: "title" heads the page, "label_names"
        are the names of the classes. A dict within becomes a table of its own.

    Returns:
      The path of `report.html`.

    Raises:
      UserError: the folder holds no results or damaged ones, or cannot be written to.
    """
    results = by_suite(storage.read(folder))
    if not results:
        raise UserError(f"no results in '{folder}'; run eval.py first")
    results = {suite: results[suite] for suite in sorted(results, key=place_of)}
    with writing(folder):
        pictures = figures.draw(results, run_facts.get("label_names", ()), folder / "pictures")
        _write_json(folder / REPORT, results, run_facts)
        _write_csv(folder / "report.csv", results)
        page = _page(folder, results, run_facts, pictures)
        with atomic_write(folder / "report.html") as file:
            file.write_text(page, encoding="utf-8")
    return folder / "report.html"


def averages(result: SuiteResult) -> list[Average]:
    """Which members each mean in the numbers of a suite has, as its facts say."""
    facts = result.facts
    everything = {"all": facts["members"]} if base_suite(result.suite) in MEANS and "members" in facts else {}
    means = everything | facts.get("groups", {}) | facts.get("averages", {})
    return [Average(_spoken(name), members) for name, members in means.items()]


def _clean_tables(result: SuiteResult) -> Iterator[Table]:
    names = ("accuracy", "top5_accuracy", "nll", "brier", "ece", "rms_ece", "adaptive_ece", "smooth_ece", "aurc")
    yield from _by_references("", result, _columns(names))
    yield from _by_references("Uncertainty", result, _columns(("entropy", "mutual_information", "agreement")))
    mean_logits = _columns(tuple(f"mean_logits_{name}" for name in PREDICTION))
    yield from _by_references("Softmax of the mean logits, as the released code reports", result, mean_logits)
    scaled = _columns(("temperature", *(f"scaled_{name}" for name in PREDICTION)))
    yield from _by_references("After temperature scaling", result, scaled)


def _corruption_tables(result: SuiteResult) -> Iterator[Table]:
    parts = {_spoken(part): f"{part}/accuracy" for part in ("mean15", "mean19", "cbar")}
    columns = _columns(("accuracy",)) | parts | _columns(("mce", *PREDICTION[1:]))
    yield from _by_references("Mean over corruptions and severities", result, columns)
    for quantity, title in (("accuracy", "Accuracy"), ("ece", "ECE")):
        columns = {f"severity {severity}": f"severity{severity}/{quantity}" for severity in range(1, 6)}
        yield from _by_references(f"{title} at each severity", result, columns)


def _shift_tables(result: SuiteResult) -> Iterator[Table]:
    yield from _by_references("Mean over sets", result, _columns(PREDICTION))
    num = max(result.results)
    metrics = result.results[num].metrics
    names = ("accuracy", "top5_accuracy", *PREDICTION[1:], "aurc", "num_examples")
    rows = {of: (metrics, _columns(names, f"{of}/")) for of in figures.by_set(metrics, "accuracy")}
    yield from _table(f"Each set, {format_num_references(num)}", rows, compare=False)


def _ood_tables(result: SuiteResult) -> Iterator[Table]:
    # the largest number has all scores: one reference cannot disagree with itself
    scores = figures.by_set_and_score(result.results[max(result.results)].metrics, "auroc").get("", {})
    for quantity, title in (("auroc", "AUROC"), ("fpr95", "FPR at 95 % TPR")):
        columns = {_spoken(score): f"{score}/{quantity}" for score in scores}
        yield from _by_references(f"{title}, mean over all sets", result, columns)


def _protocol_tables(result: SuiteResult) -> Iterator[Table]:
    names = (*PREDICTION, "seconds_per_1000")
    rows = {
        title: (metrics, _columns(names, f"{protocol}/"))
        for title, (protocol, _, metrics) in figures.protocol_rows(result).items()
    }
    yield from _table("", rows)


def _probe_tables(result: SuiteResult) -> Iterator[Table]:
    num = max(result.results)
    metrics = result.results[num].metrics
    columns = {name: f"{name}/accuracy" for name in figures.by_set(metrics, "accuracy")}
    yield from _by_references("Accuracy", result, columns)
    rows = {of: (metrics, _columns(PREDICTION, f"{of}/")) for of in columns}
    yield from _table(f"Each set, {format_num_references(num)}", rows, compare=False)


def _landscape_tables(result: SuiteResult) -> Iterator[Table]:
    yield from _by_references("At the centre", result, _columns(("accuracy",)))


SECTIONS = {
    "clean": Section(
        "Clean test set",
        "How often is the model right on images like those of training, and does it know when it is not?",
        "Accuracy counts right answers; NLL and Brier also judge the probabilities; the calibration errors (ECE) say "
        "how far confidence and accuracy are apart; AURC is low when mistakes come with low confidence.",
        _clean_tables,
    ),
    "corruptions": Section(
        "Corruptions",
        "How much is lost when images are noisy, blurred, foggy or compressed?",
        "Severity 1 is mild and 5 is harsh. A robust model falls slowly, and an honest one keeps its calibration error "
        "low while it falls.",
        _corruption_tables,
    ),
    "shift": Section(
        "Shifted sets",
        "Does what was learned carry over to the same classes in other pictures?",
        "Compare with the clean test set: the difference is what the shift costs.",
        _shift_tables,
    ),
    "ood": Section(
        "Anomalies",
        "Can the model tell images of none of its classes from those of its test set?",
        "Every score is higher for what looks more anomalous. AUROC is the chance that an anomaly scores above a test "
        "image, 50 % is guessing; FPR at 95 % TPR is the share of test images rejected when 95 % of the anomalies are.",
        _ood_tables,
    ),
    "protocols": Section(
        "Protocols",
        "How much do the number and the choice of references matter, and what do they cost?",
        "One random reference, K random ones, or for each image the one that transduction picks (BLT): rows that "
        "hardly differ mean that the cheap one will do.",
        _protocol_tables,
    ),
    "probe": Section(
        "Linear probe",
        "How good are the features for another task, with a linear classifier on top?",
        "The network is frozen; only the linear layer is fitted, on one set, and tested on each of them.",
        _probe_tables,
    ),
    "landscape": Section(
        "Landscape",
        "How fast is accuracy lost as the parameters move away from where training ended?",
        "Along two random directions, scaled filter by filter, so that models can be compared.",
        _landscape_tables,
    ),
}


def place_of(suite: str) -> tuple[int, str]:
    """By which suites are sorted."""
    known, kind = list(SECTIONS), base_suite(suite)
    return (known.index(kind) if kind in known else len(known), suite)


def section_of(suite: str) -> Section:
    """What the page says of a suite; of one that it does not know, its name alone."""
    section = SECTIONS.get(base_suite(suite), Section(suite, "", "", lambda _: iter(())))
    return section if base_suite(suite) == suite else section._replace(title=f"{section.title}, by transduction (BLT)")


def _columns(names: Sequence[str], prefix: str = "") -> dict[str, str]:
    """Heading -> name in the numbers."""
    return {metric_of(name).heading: prefix + name for name in names}


def _by_references(caption: str, result: SuiteResult, columns: Mapping[str, str]) -> Iterator[Table]:
    """A row for each number of references; no table where there is none of these numbers."""
    return _table(
        caption, {format_num_references(num): (each.metrics, columns) for num, each in result.results.items()}
    )


def _table(
    caption: str, rows: Mapping[str, tuple[Mapping[str, float], Mapping[str, str]]], *, compare: bool = True
) -> Iterator[Table]:
    """A table of rows, each of numbers and of heading -> name in them; columns without any number are left out."""
    columns = {}
    for title, (metrics, names) in rows.items():
        for heading, name in names.items():
            if name in metrics:
                columns.setdefault((heading, metric_of(name)), {})[title] = metrics[name]
    if not columns:
        return
    best = {key: _best(key[1], list(column.values())) if compare else None for key, column in columns.items()}
    cells = [
        (title, [_cell(key[1], column.get(title), best[key]) for key, column in columns.items()]) for title in rows
    ]
    yield Table(caption, [signed(heading, metric) for heading, metric in columns], cells)


def _best(metric: Metric, values: Sequence[float]) -> float | None:
    if not metric.better or len(values) < 2 or min(values) == max(values):
        return None
    return max(values) if metric.better > 0 else min(values)


def _cell(metric: Metric, value: float | None, best: float | None) -> Cell:
    return Cell("–", False) if value is None else Cell(_form(metric, value), value == best)


def _form(metric: Metric, value: float) -> str:
    return format(100 * value if metric.form == "%" else value, ".2f" if metric.form == "%" else metric.form)


def signed(heading: str, metric: Metric) -> str:
    """With its unit, and an arrow towards what is better."""
    signs = "%" * (metric.form == "%"), "↑" * (metric.better > 0), "↓" * (metric.better < 0)
    return f"{heading} {NO_BREAK.join(filter(None, signs))}".rstrip()


def metric_of(name: str) -> Metric:
    """How a metric is shown, by the last part of its name."""
    last = name.rpartition("/")[2].removeprefix("mean_logits_").removeprefix("scaled_")
    return METRICS.get(last, Metric(_spoken(last), 0, ".4g"))


def _spoken(name: str) -> str:
    return NAMES.get(name, name.replace("_", " "))


def _glance(results: Mapping[str, SuiteResult]) -> list[tuple[str, str, str]]:
    """The numbers that stand on top: title, value, remark; each with the largest number of references."""
    shown = []
    for suite, result in results.items():
        num = max(result.results)
        metrics = result.results[num].metrics
        remarks = {name: format_num_references(num) for name in GLANCE.get(base_suite(suite), ()) if name in metrics}
        areas = figures.by_set_and_score(metrics, "auroc").get("", {}) if base_suite(suite) == "ood" else {}
        if areas:
            best = max(areas, key=areas.__getitem__)
            remarks[f"{best}/auroc"] = f"best score: {_spoken(best)}, {format_num_references(num)}"
        for name, remark in remarks.items():
            metric = metric_of(name)
            shown.append((f"{section_of(suite).title}: {metric.heading}", f"{_form(metric, metrics[name])} %", remark))
    return shown


def _page(
    folder: Path, results: Mapping[str, SuiteResult], run_facts: dict[str, Any], pictures: Mapping[str, list[Picture]]
) -> str:
    loader = jinja2.PackageLoader("anchor_jax", "reporting")
    options = {"autoescape": True, "undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    template = jinja2.Environment(loader=loader, **options).get_template("page.html.j2")
    return template.render(
        title=run_facts.get("title", folder.resolve().parents[1].name),
        subtitle=_subtitle(results),
        glance=_glance(results),
        suites=[_suite(result, pictures[suite], run_facts) for suite, result in results.items()],
        run=_run_tables(run_facts),
    )


def _subtitle(results: Mapping[str, SuiteResult]) -> str:
    numbers = sorted({num for result in results.values() for num in result.results})
    facts = next(iter(results.values())).facts
    return f"step {facts['step']:,} · {', '.join(map(format_num_references, numbers))} · {facts['num_bins']} calibration bins"


def _suite(result: SuiteResult, pictures: Sequence[Picture], run_facts: Mapping[str, Any]) -> dict[str, Any]:
    section = section_of(result.suite)
    return {
        "id": result.suite,
        "section": section,
        "tables": list(section.tables(result)),
        "averages": averages(result),
        "pictures": [embedded(picture) for picture in pictures],
        "numbers": _all_numbers(result),
        "headings": [format_num_references(num) for num in result.results],
        "facts": _suite_facts(result, run_facts),
        "unlike": _unlike(result),
    }


def embedded(picture: Picture) -> dict[str, Any]:
    """A picture as a page holds it: its bytes in its address, and its size."""
    with Image.open(picture.file) as image:
        width, height = (round(pixels * CSS_DPI / DPI) for pixels in image.size)
    source = f"data:image/png;base64,{base64.b64encode(picture.file.read_bytes()).decode()}"
    return {"source": source, "width": width, "height": height, "title": picture.title, "caption": picture.caption}


def _all_numbers(result: SuiteResult) -> list[tuple[str, list[str]]]:
    names = dict.fromkeys(name for each in result.results.values() for name in each.metrics)
    found_in = [each.metrics for each in result.results.values()]
    return [(name, [f"{metrics[name]:.6g}" if name in metrics else "" for metrics in found_in]) for name in names]


def _suite_facts(result: SuiteResult, run_facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run's do not say; each once where it is the same for all numbers of references, else one by one."""
    shown = []
    for name in dict.fromkeys(name for facts in result.facts_of.values() for name in facts if name not in run_facts):
        texts = {num: _text(facts[name]) for num, facts in result.facts_of.items() if name in facts}
        if len(set(texts.values())) == 1:
            shown.append((name, next(iter(texts.values()))))
        else:
            shown += [(f"{name}, {format_num_references(num)}", text) for num, text in texts.items()]
    return shown


def _unlike(result: SuiteResult) -> list[str]:
    """The facts in which the rows of a table differ though they should not."""
    return [name for name in QUESTION if len({_text(facts.get(name)) for facts in result.facts_of.values()}) > 1]


def _run_tables(run_facts: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    plain = {name: value for name, value in run_facts.items() if name != "title" and not isinstance(value, dict)}
    tables = {"": plain, **{name: value for name, value in run_facts.items() if isinstance(value, dict)}}
    return [(name, [(key, _text(value)) for key, value in facts.items()]) for name, facts in tables.items() if facts]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _write_json(file: Path, results: Mapping[str, SuiteResult], run_facts: dict[str, Any]) -> None:
    suites = {
        suite: {"facts": result.facts, "results": {str(num): each.metrics for num, each in result.results.items()}}
        for suite, result in results.items()
    }
    with atomic_write(file) as new:
        new.write_text(json.dumps({"run": run_facts, "suites": suites}, indent=2, allow_nan=False) + "\n")


def _write_csv(file: Path, results: Mapping[str, SuiteResult]) -> None:
    with atomic_write(file) as new, new.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(("suite", "references", "name", "value"))
        for suite, result in results.items():
            for num, each in result.results.items():
                writer.writerows((suite, num, name, repr(value)) for name, value in each.metrics.items())
