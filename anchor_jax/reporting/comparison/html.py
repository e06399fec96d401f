"""The report of a comparison: a page to look at, the same numbers as JSON and CSV, and a table on the terminal."""

import csv
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import suites
from anchor_jax.evaluation.storage import writing
from anchor_jax.reporting.comparison import figures, paper
from anchor_jax.reporting.comparison.labels import metric_of, suite_title, title
from anchor_jax.reporting.comparison.statistics import Difference, Summary
from anchor_jax.reporting.comparison.table import Comparison, Entry, PaperRow, SuiteTable
from anchor_jax.reporting.html import EmbeddedFigure, embed, render
from anchor_jax.runtime.atomic_files import atomic_write, is_incomplete

KIND = "anchor_jax comparison"  # how a comparison's JSON is known again
JSON, CSV, HTML = "compare.json", "compare.csv", "compare.html"
_AT_A_GLANCE = (
    ("clean", "accuracy"),
    ("clean", "ece"),
    ("corruptions", "accuracy"),
    ("corruptions", "severity5/accuracy"),
    ("corruptions", "ece"),
    ("shift", "accuracy"),
    ("ood", "entropy/auroc"),
)
# of the headlines, by pattern
_ON_TERMINAL = (
    r"accuracy|nll|ece|mean15/accuracy|cbar/accuracy|severity5/accuracy|[^/]+/auroc|(random1|randomK|blt)/accuracy"
)


def check_folder(folder: Path) -> None:
    """Refuse a folder in which something else would be overwritten.

    Raises:
      UserError: it is a file, or holds anything and no comparison.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"--out '{folder}' is a file; give a folder")
    if not all(map(is_incomplete, folder.iterdir())) and not _holds_comparison(folder):
        raise UserError(f"--out '{folder}' holds other things than a comparison; give a folder that is new or empty")


def write(comparison: Comparison, folder: Path) -> Path:
    """Write `compare.json`, `compare.csv` and `compare.html`, each whole or not at all.

    Args:
      comparison: what is told.
      folder: made if need be; an earlier comparison in it is replaced.

    Returns:
      The path of `compare.html`.

    Raises:
      UserError: the folder holds something else, or cannot be written to.
    """
    check_folder(folder)
    with tempfile.TemporaryDirectory() as scratch:
        pictures = figures.draw(comparison, Path(scratch))
        page = _page(
            comparison, {suite: [embed(*picture) for picture in of_suite] for suite, of_suite in pictures.items()}
        )
    with writing(folder):
        # the JSON first: by it the folder is known as a comparison's, should the rest be cut off
        with atomic_write(folder / JSON) as file:
            file.write_text(json.dumps(_record(comparison), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        with atomic_write(folder / CSV) as file, file.open("w", newline="", encoding="utf-8") as opened:
            csv.writer(opened).writerows(_lines(comparison))
        with atomic_write(folder / HTML) as file:
            file.write_text(page, encoding="utf-8")
    return folder / HTML


def terminal_tables(comparison: Comparison) -> Iterator[Table]:
    """A table for each suite, of its most important metrics."""
    for table in comparison.suites:
        shown = Table(title=suite_title(table, comparison.methods), title_justify="left", box=SIMPLE_HEAD)
        shown.add_column("metric")
        shown.add_column("method")
        for name in ("mean ± std", "seeds", "difference over seeds", "over test examples"):
            shown.add_column(name, justify="right")
        for metric in table.headlines:
            if re.fullmatch(_ON_TERMINAL, metric):
                for row in _rows(table, metric):
                    shown.add_row(*map(Text, [row["metric"], row["method"], row["mean"], row["seeds"], *_told(row)]))
        yield shown


def _holds_comparison(folder: Path) -> bool:
    try:
        return json.loads((folder / JSON).read_text(encoding="utf-8"))["kind"] == KIND
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _record(comparison: Comparison) -> dict[str, Any]:
    return {
        "kind": KIND,
        "baseline": comparison.baseline.name,
        "methods": {
            method.name: {
                "config": method.config,
                "runs": [
                    {"workdir": one.name, "seed": one.seed, "step": one.step, "num_bins": one.num_bins}
                    for one in method.runs
                ],
            }
            for method in comparison.methods
        },
        "suites": {
            table.suite: {
                "num_references": table.num_references,
                "facts": table.facts,
                "metrics": {
                    metric: {method: _entry_record(entry) for method, entry in entries.items()}
                    for metric, entries in table.entries.items()
                },
            }
            for table in comparison.suites
        },
        "paper": {"source": paper.SOURCE, "figures": [_paper_record(row) for row in comparison.paper]},
        "not_as_the_paper": dict(comparison.departures),
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
    return row._asdict() | {"paper": row.paper._asdict(), "ours": ours}


def _lines(comparison: Comparison) -> Iterator[Sequence[Any]]:
    """Of the CSV: a line for each number, with its interval where it has one."""
    yield ("suite", "metric", "method", "num_references", "statistic", "seed", "value", "low", "high", "num")
    anchored = {method.name: method.anchored for method in comparison.methods}
    for table in comparison.suites:
        for metric, entries in table.entries.items():
            for method, entry in entries.items():
                start = (table.suite, metric, method, table.num_references if anchored[method] else 0)
                values = entry.summary.values
                for seed, value in values.items():
                    yield (*start, "value", seed, value, "", "", 1)
                yield (*start, "mean", "", entry.summary.mean, "", "", len(values))
                if entry.summary.std is not None:
                    yield (*start, "std", "", entry.summary.std, "", "", len(values))
                for name, of in (("seeds", entry.over_seeds), ("examples", entry.over_examples)):
                    if of:
                        yield (*start, f"difference_over_{name}", "", *("" if part is None else part for part in of))
    for row in comparison.paper:
        yield ("corruptions", row.quantity, row.method, "", "paper", "", row.paper.value, "", "", "")


def _page(comparison: Comparison, pictures: Mapping[str, list[EmbeddedFigure]]) -> str:
    return render(
        "compare.html.j2",
        "reporting/comparison",
        num_runs=sum(len(method.runs) for method in comparison.methods),
        comparison=comparison,
        glance=_glance(comparison),
        suites=[_section(comparison, table, pictures[table.suite]) for table in comparison.suites],
        paper_source=paper.SOURCE,
        paper_rows=[_paper_cells(row) for row in comparison.paper],
        generated=any("generated" in row.source for row in comparison.paper),
    )


def _section(comparison: Comparison, table: SuiteTable, pictures: list[EmbeddedFigure]) -> dict[str, Any]:
    rows = [row for metric in table.headlines for row in _rows(table, metric)]
    return {
        "id": table.suite,
        "title": suite_title(table, comparison.methods),
        "section": {
            "title": suites.title(table.suite),
            "question": suites.find(table.suite).question,
            "reading": suites.find(table.suite).reading,
        },
        "members": table.facts.get("members", []),
        "sources": table.facts.get("source", []),
        "rows": rows,
        "has_examples": any(row["over_examples"]["text"] for row in rows),
        "pictures": pictures,
    }


def _glance(comparison: Comparison) -> dict[str, Any]:
    tables = {table.suite: table for table in comparison.suites}
    columns = [(suite, metric) for suite, metric in _AT_A_GLANCE if suite in tables and metric in tables[suite].entries]
    return {
        "headings": [f"{suites.title(suite)}: {title(metric)}" for suite, metric in columns],
        "rows": [
            (
                method.name,
                [_cells(metric, tables[suite].entries[metric].get(method.name)) for suite, metric in columns],
            )
            for method in comparison.methods
        ],
    }


def _rows(table: SuiteTable, metric: str) -> Iterator[dict[str, Any]]:
    """The cells of all methods for one metric; the first says how many there are."""
    entries = table.entries[metric]
    for place, (method, entry) in enumerate(entries.items()):
        heading = {"metric": title(metric) if place == 0 else "", "span": len(entries) if place == 0 else 0}
        yield heading | {"method": method} | _cells(metric, entry)


def _cells(metric: str, entry: Entry | None) -> dict[str, Any]:
    if entry is None:
        return {"mean": "–", "seeds": "", "over_seeds": _no_difference(), "over_examples": _no_difference()}
    return {
        "mean": _mean(metric, entry.summary),
        "seeds": str(len(entry.summary.values)),
        "over_seeds": _difference(metric, entry.over_seeds),
        "over_examples": _difference(metric, entry.over_examples),
    }


def _mean(metric: str, of: Summary) -> str:
    return _number(metric, of.mean) + (f" ± {_number(metric, of.std)}" if of.std is not None else "")


def _number(metric: str, value: float, sign: str = "") -> str:
    return metric_of(metric).text(value, signed=bool(sign))


def _no_difference() -> dict[str, str]:
    return {"text": "", "interval": "", "verdict": ""}


def _difference(metric: str, difference: Difference | None) -> dict[str, str]:
    """Its text, its interval, and "better" or "worse" where the interval leaves 0 out."""
    if difference is None:
        return _no_difference()
    text = _number(metric, difference.mean, "+")
    if difference.low is None or difference.high is None:
        return {"text": text, "interval": "no interval", "verdict": ""}
    interval = f"[{_number(metric, difference.low, '+')}, {_number(metric, difference.high, '+')}]"
    direction = {True: 1, False: -1, None: 0}[metric_of(metric).higher_is_better]
    certain = difference.low > 0 or difference.high < 0
    verdict = ("better" if difference.mean * direction > 0 else "worse") if certain and direction else ""
    return {"text": text, "interval": interval, "verdict": verdict}


def _told(row: Mapping[str, Any]) -> list[str]:
    return [f"{row[name]['text']} {row[name]['interval']}".strip() for name in ("over_seeds", "over_examples")]


def _paper_cells(row: PaperRow) -> dict[str, str]:
    std = f" ± {100 * row.paper.std:.2f}" if row.paper.std is not None else ""
    return {
        "method": row.method,
        "quantity": row.quantity,
        "paper": f"{100 * row.paper.value:.{1 if row.paper.std is None else 2}f}{std}",
        "ours": _mean("accuracy", row.ours) if row.ours else "–",
        "seeds": str(len(row.ours.values)) if row.ours else "",
        "remark": row.lacking or row.source,
    }
