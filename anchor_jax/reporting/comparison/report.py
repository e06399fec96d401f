"""The report of a comparison: an HTML page, the same numbers as JSON and CSV, and tables on the terminal."""

import json
import string
import tempfile
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import suites
from anchor_jax.evaluation.results import Score
from anchor_jax.evaluation.storage import writing
from anchor_jax.metrics import specs
from anchor_jax.metrics.specs import MetricSpec
from anchor_jax.reporting.comparison import paper
from anchor_jax.reporting.comparison.comparison import Comparison, Entry, PaperRow, SuiteTable
from anchor_jax.reporting.comparison.figures import suite_figures
from anchor_jax.reporting.comparison.labels import score_title, suite_title
from anchor_jax.reporting.comparison.statistics import Difference, Summary
from anchor_jax.reporting.html import draw_figures, frame_html, render
from anchor_jax.runtime.atomic_files import atomic_write, is_incomplete

KIND = "anchor_jax comparison"  # by which the JSON of a comparison is recognized
JSON, CSV, HTML = "compare.json", "compare.csv", "compare.html"
_DASH = "–"
_COLUMNS = ["suite", "metric", "method", "num_references", "statistic", "seed", "value", "low", "high", "num"]
_HIGHLIGHTS = (
    ("clean", {"metric": "accuracy"}),
    ("clean", {"metric": "ece"}),
    ("corruptions", {"metric": "accuracy"}),
    ("corruptions", {"metric": "accuracy", "severity": 5}),
    ("corruptions", {"metric": "ece"}),
    ("shift", {"metric": "accuracy"}),
    ("ood", {"metric": "auroc", "score": "entropy"}),
)


def check_folder(folder: Path) -> None:
    """Raise a UserError if the folder is a file, or if it holds anything other than a comparison."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"--out '{folder}' is a file; give a folder")
    if not all(map(is_incomplete, folder.iterdir())) and not _holds_comparison(folder):
        raise UserError(f"--out '{folder}' holds something other than a comparison; give a new or an empty folder")


def _holds_comparison(folder: Path) -> bool:
    try:
        return json.loads((folder / JSON).read_text(encoding="utf-8"))["kind"] == KIND
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write(comparison: Comparison, folder: Path) -> Path:
    """Write `compare.json`, `compare.csv` and `compare.html`, each completely or not at all.

    Args:
      comparison: the content.
      folder: created if it does not exist; an earlier comparison in it is replaced.

    Returns:
      The path of `compare.html`.

    Raises:
      UserError: the folder holds something else, or is not writable.
    """
    check_folder(folder)
    page = _page(comparison)
    with writing(folder):
        # the JSON first: it marks the folder as that of a comparison, even if the rest is interrupted
        with atomic_write(folder / JSON) as file:
            file.write_text(json.dumps(_record(comparison), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        with atomic_write(folder / CSV) as file:
            integers = dict.fromkeys(("num_references", "seed", "num"), "Int64")
            pd.DataFrame(_rows(comparison), columns=_COLUMNS).astype(integers).to_csv(file, index=False)
        with atomic_write(folder / HTML) as file:
            file.write_text(page, encoding="utf-8")
    return folder / HTML


# terminal


def print_tables(comparison: Comparison, console: Console) -> None:
    """Print the methods, one table per suite with one line per method and score, and the notes."""
    letters = {method.name: letter for method, letter in zip(comparison.methods, _letters(), strict=False)}
    for name, letter in letters.items():
        console.print(f"{letter}  {name}", soft_wrap=True, highlight=False, markup=False)
    for table in comparison.suites:
        printed = Table(
            title=suite_title(table, comparison.methods), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        printed.add_column("metric", no_wrap=True, overflow="ellipsis", max_width=30)
        for name in ("", "mean ± std", "Δ seeds", "Δ examples"):
            printed.add_column(name, no_wrap=True, justify="right" if name else "left")
        for name in table.headlines:
            score, spec = table.scores[name], specs.get(table.scores[name].metric)
            if (score.severity or 5) != 5 or score.prediction != "mean_probs":
                continue  # in the report
            for index, (method, entry) in enumerate(table.entries[name].items()):
                cells = [_mean(spec, entry.summary), *(_half_width(spec, of) for of in entry[1:])]
                printed.add_row(score_title(score) if index == 0 else "", letters[method], *map(Text, cells))
        console.print(printed)
    console.print("Δ: difference to A ± half of its 95% interval", highlight=False)
    for note in comparison.notes:
        console.print(note, soft_wrap=True, highlight=False, markup=False)


def _letters() -> Iterator[str]:
    yield from string.ascii_uppercase
    for first in string.ascii_uppercase:
        yield from (first + second for second in string.ascii_uppercase)


def _half_width(spec: MetricSpec, difference: Difference | None) -> str:
    if difference is None:
        return ""
    text = spec.text(difference.mean, signed=True)
    if difference.low is None or difference.high is None:
        return text
    return f"{text} ± {spec.text((difference.high - difference.low) / 2)}"


# JSON and CSV


def _record(comparison: Comparison) -> dict[str, Any]:
    return {
        "kind": KIND,
        "baseline": comparison.baseline.name,
        "methods": {
            method.name: {
                "config": method.config,
                "runs": [
                    {"workdir": run.name, "seed": run.seed, "step": run.step, "num_bins": run.num_bins}
                    for run in method.runs
                ],
            }
            for method in comparison.methods
        },
        "suites": {
            table.suite: {
                "num_references": table.num_references,
                "facts": dict(table.facts),
                "metrics": {
                    name: {method: _entry_record(entry) for method, entry in entries.items()}
                    for name, entries in table.entries.items()
                },
            }
            for table in comparison.suites
        },
        "paper": {"source": paper.SOURCE, "figures": [_paper_record(row) for row in comparison.paper]},
        "not_as_the_paper": dict(comparison.mismatches),
        "notes": list(comparison.notes),
    }


def _entry_record(entry: Entry) -> dict[str, Any]:
    return {
        "mean": entry.summary.mean,
        "std": entry.summary.std,
        "seeds": {str(seed): value for seed, value in entry.summary.values.items()},
        "difference_over_seeds": entry.over_seeds and entry.over_seeds._asdict(),
        "difference_over_examples": entry.over_examples and entry.over_examples._asdict(),
    }


def _paper_record(row: PaperRow) -> dict[str, Any]:
    ours = row.ours and {"mean": row.ours.mean, "std": row.ours.std, "num_seeds": len(row.ours.values)}
    return {
        "method": row.method,
        "quantity": row.quantity,
        "paper": row.paper._asdict(),
        "ours": ours,
        "source": row.source,
        "lacking": row.missing,
    }


def _rows(comparison: Comparison) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the CSV: one per number, with its interval if it has one."""
    anchored = {method.name: method.anchored for method in comparison.methods}
    for table in comparison.suites:
        for name, entries in table.entries.items():
            for method, entry in entries.items():
                start = (table.suite, name, method, table.num_references if anchored[method] else 0)
                values = entry.summary.values
                for seed, value in values.items():
                    yield (*start, "value", seed, value, None, None, 1)
                yield (*start, "mean", None, entry.summary.mean, None, None, len(values))
                if entry.summary.std is not None:
                    yield (*start, "std", None, entry.summary.std, None, None, len(values))
                for over, difference in (("seeds", entry.over_seeds), ("examples", entry.over_examples)):
                    if difference:
                        yield (*start, f"difference_over_{over}", None, *difference)
    for row in comparison.paper:
        yield ("corruptions", row.quantity, row.method, None, "paper", None, row.paper.value, None, None, None)


# page


def _page(comparison: Comparison) -> str:
    return render(
        "compare.html.j2",
        "reporting/comparison",
        num_runs=sum(len(method.runs) for method in comparison.methods),
        comparison=comparison,
        highlights=_highlights(comparison),
        sections=[_section(comparison, table) for table in comparison.suites],
        paper_source=paper.SOURCE,
        paper_table=_paper_table(comparison),
        generated=any("generated" in row.source for row in comparison.paper),
        runs=_run_table(comparison),
    )


def _section(comparison: Comparison, table: SuiteTable) -> dict[str, Any]:
    suite = suites.find(table.suite)
    with tempfile.TemporaryDirectory() as scratch:
        figures = draw_figures(suite_figures(comparison, table), Path(scratch))
    return {
        "id": table.suite,
        "heading": suites.title(table.suite),
        "title": suite_title(table, comparison.methods),
        "question": suite.question,
        "reading": suite.reading,
        "members": [member.replace("_", " ") for member in table.facts.get("members", [])],
        "sources": table.facts.get("source", []),
        "table": _score_table(table),
        "figures": figures,
    }


def _score_table(table: SuiteTable) -> str:
    rows = {
        (score_title(table.scores[name]), method): _cells(table.scores[name], entry)
        for name in table.headlines
        for method, entry in table.entries[name].items()
    }
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=_HEADINGS)
    frame.index = pd.MultiIndex.from_tuples(list(rows))
    return frame_html(frame.loc[:, (frame != "").any()], str)


_HEADINGS = ["mean ± std", "seeds", "difference over seeds", "over test examples"]


def _cells(score: Score, entry: Entry) -> list[str]:
    spec = specs.get(score.metric)
    differences = [_difference_html(spec, difference) for difference in (entry.over_seeds, entry.over_examples)]
    return [_mean(spec, entry.summary), str(len(entry.summary.values)), *differences]


def _mean(spec: MetricSpec, summary: Summary) -> str:
    return spec.text(summary.mean) + (f" ± {spec.text(summary.std)}" if summary.std is not None else "")


def _difference_html(spec: MetricSpec, difference: Difference | None) -> str:
    """Return the difference and its interval, colored as better or worse if the interval excludes 0."""
    if difference is None:
        return ""
    text = spec.text(difference.mean, signed=True)
    if difference.low is None or difference.high is None:
        return text
    if (difference.low > 0 or difference.high < 0) and spec.higher_is_better is not None:
        verdict = "better" if (difference.mean > 0) == spec.higher_is_better else "worse"
        text = f'<span class="{verdict}">{text}</span>'
    low, high = spec.text(difference.low, signed=True), spec.text(difference.high, signed=True)
    return f'{text} <span class="soft">[{low}, {high}]</span>'


def _highlights(comparison: Comparison) -> str:
    tables = {table.suite: table for table in comparison.suites}
    columns = {}
    for suite, fields in _HIGHLIGHTS:
        if suite not in tables:
            continue
        table = tables[suite]
        for name in table.select(**fields):
            spec, entries = specs.get(table.scores[name].metric), table.entries[name]
            columns[f"{suites.title(suite)}: {score_title(table.scores[name])}"] = {
                method.name: _mean(spec, entries[method.name].summary) if method.name in entries else _DASH
                for method in comparison.methods
            }
    return frame_html(pd.DataFrame(columns, index=[method.name for method in comparison.methods]), str)


def _paper_table(comparison: Comparison) -> str:
    accuracy = specs.get("accuracy")
    rows = []
    for row in comparison.paper:
        std = f" ± {100 * row.paper.std:.2f}" if row.paper.std is not None else ""
        rows.append(
            {
                "quantity": escape(row.quantity),
                "paper": f"{100 * row.paper.value:.{2 if row.paper.std else 1}f}{std}",
                "ours": _mean(accuracy, row.ours) if row.ours else _DASH,
                "seeds": str(len(row.ours.values)) if row.ours else "",
                "our corruptions": escape(row.missing or row.source),
            }
        )
    if not rows:
        return ""
    index = pd.MultiIndex.from_tuples([(row.method, str(place)) for place, row in enumerate(comparison.paper, 1)])
    return frame_html(pd.DataFrame(rows, index=index), str)


def _run_table(comparison: Comparison) -> str:
    rows = {
        (method.name, run.name): {"seed": run.seed, "step": f"{run.step:,}", "calibration bins": run.num_bins}
        for method in comparison.methods
        for run in method.runs
    }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index = pd.MultiIndex.from_tuples(list(rows))
    return frame_html(frame, str)
