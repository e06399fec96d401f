"""The report of a comparison: an HTML page, the same numbers as JSON and CSV, and tables on the terminal."""

import itertools
import json
import string
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import suites
from anchor_jax.evaluation.results import Score
from anchor_jax.evaluation.storage import writing
from anchor_jax.evaluation.suites.ood import HEADLINE
from anchor_jax.metrics import specs
from anchor_jax.metrics.specs import MetricSpec
from anchor_jax.reporting.comparison.comparison import Comparison, Entry, SuiteTable, score_title
from anchor_jax.reporting.comparison.figures import suite_figures
from anchor_jax.reporting.comparison.methods import differing_keys
from anchor_jax.reporting.comparison.next_to_paper import PaperRow
from anchor_jax.reporting.comparison.paper_results import SOURCE
from anchor_jax.reporting.comparison.statistics import Difference, Summary, shown
from anchor_jax.reporting.html import draw_figures, render, rows_html
from anchor_jax.reporting.style import shortened
from anchor_jax.reporting.terminal import print_lines, print_table
from anchor_jax.runtime.atomic_files import is_incomplete, write_texts
from anchor_jax.runtime.paths import printable

KIND = "anchor_jax comparison"  # by which the JSON of a comparison is recognized
JSON, CSV, HTML = "compare.json", "compare.csv", "compare.html"
_DASH = "–"
_COLUMNS = ["suite", "metric", "method", "num_references", "statistic", "seed", "value", "low", "high", "num", "limit"]
_LETTERS = 24  # of the value of a config key on the terminal
_SHORTER = {
    "FPR at 95% TPR": "FPR95",
    "mutual information": "mutual inf.",
    "seconds per 1,000": "s per 1,000",
    "1 random reference": "1 reference",
    "K random references": "K references",
    "smoothed": "smooth",
    " sets": "",
    ", corruptions": ", corrupted",
    " / ": "/",
}
_HIGHLIGHTS = (
    ("clean", {"metric": "accuracy"}),
    ("clean", {"metric": "ece"}),
    ("corruptions", {"metric": "accuracy"}),
    ("corruptions", {"metric": "accuracy", "severity": 5}),
    ("corruptions", {"metric": "ece"}),
    ("shift", {"metric": "accuracy"}),
    ("ood", {"metric": "auroc", "score": HEADLINE}),
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
      folder: created if it does not exist; another comparison in it moves to `earlier/1`, `earlier/2`, ...

    Returns:
      The path of `compare.html`.

    Raises:
      UserError: the folder holds something else, or is not writable.
    """
    check_folder(folder)
    integers = dict.fromkeys(("num_references", "seed", "num", "limit"), "Int64")
    rows = [(*row, comparison.limit or None) for row in _rows(comparison)]
    rows = [tuple(printable(of) if isinstance(of, str) else of for of in row) for row in rows]
    texts = {  # the JSON first: it marks the folder as that of a comparison, even if the rest is interrupted
        folder / JSON: json.dumps(_record(comparison), indent=2, allow_nan=False) + "\n",
        folder / CSV: pd.DataFrame(rows, columns=_COLUMNS).astype(integers).to_csv(index=False),
        folder / HTML: _page(comparison),
    }
    with writing(folder):
        write_texts(texts)
    return folder / HTML


# terminal


def print_tables(comparison: Comparison, *lines: str) -> None:
    """Print the methods, one table per suite with one line per method and score, the notes and other lines."""
    letters = [*string.ascii_uppercase, *map("".join, itertools.product(string.ascii_uppercase, repeat=2))]
    letter_of = dict(zip((method.name for method in comparison.methods), letters, strict=False))
    print_lines(*(f"{letter}  {name}" for name, letter in letter_of.items()))
    differing = differing_keys(comparison.methods)
    values = [[key, *(shortened(of[name], _LETTERS) for name in letter_of)] for key, of in differing.items()]
    if values:
        print_table(["differing config keys", *letter_of.values()], values)
    for table in comparison.suites:
        rows = []
        for name in table.headlines:
            score, spec = table.scores[name], specs.get(table.scores[name].metric)
            if (score.severity or 5) != 5 or score.prediction != "mean_probs":
                continue  # in the report
            for method, entry in table.entries[name].items():
                cells = {"mean ± std": _mean(spec, entry.summary)}
                cells |= {f"Δ{of}": _half_width(spec, each) for of, each in _differences(table, entry).items()}
                rows.append({"metric": _short_title(score), "": letter_of[method]} | cells)
        if not rows:
            continue  # all are in the report alone
        names = [name for name in rows[0] if not name.startswith("Δ") or any(row[name] for row in rows)]
        headings = [name.replace(" over", "") for name in names]
        print_table(headings, [[row[name] for name in names] for row in rows], table.title, 2)
    delta = "Δ: difference to A ± half of its 95% interval, over seeds or over test images."
    print_lines(*([delta] if len(letter_of) > 1 else []), *_without_interval(comparison), *comparison.notes, *lines)


def _differences(table: SuiteTable, entry: Entry) -> dict[str, Difference | None]:
    """Return heading -> difference; there is a single one if none of the table has an interval over seeds."""
    every = [of.over_seeds for entries in table.entries.values() for of in entries.values()]
    over_seeds, over_examples = shown(entry.over_seeds, entry.over_examples)
    if any(each and each.interval for each in every):
        return {" over seeds": over_seeds, " over images": over_examples}
    return {"": over_examples or over_seeds}


def _short_title(score: Score) -> str:
    """Return the title of a score as it fits a line of 80 columns next to its numbers."""
    title = score_title(score)
    for long, short in _SHORTER.items():
        title = title.replace(long, short)
    return title


def _half_width(spec: MetricSpec, difference: Difference | None) -> str:
    if difference is None:
        return ""
    text, interval = spec.text(difference.mean, signed=True), difference.interval
    return f"{text}±{spec.text((interval[1] - interval[0]) / 2)}" if interval else text


def _without_interval(comparison: Comparison) -> list[str]:
    """Return a sentence that says why some differences have no interval, if any has none."""
    entries = [entry for table in comparison.suites for of in table.entries.values() for entry in of.values()]
    differences = [each for entry in entries for each in shown(*entry[1:]) if each]
    if all(each.interval for each in differences):
        return []
    is_single = {each.num for entry in entries if (each := entry.over_seeds)} <= {1}
    reason = "one shared seed" if is_single else "no spread over seeds"
    return [f"Without an interval: {reason}, and no spread over images is known."]


# JSON and CSV


def _record(comparison: Comparison) -> dict[str, Any]:
    return {
        "kind": KIND,
        "baseline": comparison.baseline.name,
        "limit": comparison.limit or None,
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
        "paper": {
            "source": SOURCE,
            "figures": [_paper_record(row) for row in comparison.paper],
            "remarks": dict(comparison.remarks),
        },
        "not_as_the_paper": dict(comparison.mismatches),
        "differing_config": differing_keys(comparison.methods),
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
    content = row._asdict() | {"paper": row.paper._asdict(), "ours": ours, "lacking": row.missing}
    del content["missing"]
    return content


def _rows(comparison: Comparison) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the CSV without the limit: one per number, with its interval if it has one."""
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
        yield (row.suite, row.quantity, row.method, None, row.paper.source, None, row.paper.value, None, None, None)


# page


def _page(comparison: Comparison) -> str:
    seeds = {method.name: len(method.runs) for method in comparison.methods}
    parts = [f"{name} ({num} seed{'s' if num > 1 else ''})" for name, num in seeds.items()]
    parts += [f"at most {comparison.limit:,} images of each dataset"] if comparison.limit else []
    return render(
        "compare.html.j2",
        title=f"Comparison of {sum(seeds.values())} runs",
        subtitle=" · ".join(parts),
        after={"paper": "The paper", "reading": "How to read it", "runs": "The runs"},
        comparison=comparison,
        highlights=_highlights(comparison),
        sections=[_section(comparison, table) for table in comparison.suites],
        paper_source=SOURCE,
        paper_table=_paper_table(comparison),
        paper_notes=list(dict.fromkeys(row.note for row in comparison.paper if row.note)),
        generated=any("generated" in row.source for row in comparison.paper),
        runs=_run_table(comparison),
        differing=rows_html(differing_keys(comparison.methods)),
        without_interval=_without_interval(comparison),
    )


def _section(comparison: Comparison, table: SuiteTable) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        figures = draw_figures(suite_figures(comparison, table), Path(scratch))
    return {
        "id": table.suite,
        "heading": suites.title(table.suite),
        "title": table.title,
        "suite": suites.find(table.suite),
        "members": [member.replace("_", " ") for member in table.facts.get("members", [])],
        "sources": table.facts.get("source", []),
        "table": _score_table(table),
        "figures": figures,
    }


def _score_table(table: SuiteTable) -> Markup:
    return rows_html(
        {
            (score_title(table.scores[name]), method): _cells(table, specs.get(table.scores[name].metric), entry)
            for name in table.headlines
            for method, entry in table.entries[name].items()
        }
    )


def _cells(table: SuiteTable, spec: MetricSpec, entry: Entry) -> dict[str, str | int]:
    differences = {f"difference{of}": _difference_html(spec, each) for of, each in _differences(table, entry).items()}
    return {"mean ± std": _mean(spec, entry.summary), "seeds": len(entry.summary.values), **differences}


def _mean(spec: MetricSpec, summary: Summary) -> str:
    return spec.text(summary.mean) + (f" ± {spec.text(summary.std)}" if summary.std is not None else "")


def _difference_html(spec: MetricSpec, difference: Difference | None) -> str:
    """Return the difference and its interval, colored as better or worse if the interval excludes 0."""
    if difference is None:
        return ""
    text = spec.text(difference.mean, signed=True)
    if not difference.interval:
        return text
    low, high = difference.interval
    if (low > 0 or high < 0) and spec.higher_is_better is not None:
        verdict = "better" if (difference.mean > 0) == spec.higher_is_better else "worse"
        text = Markup('<span class="{}">{}</span>').format(verdict, text)
    bounds = ", ".join(spec.text(bound, signed=True) for bound in difference.interval)
    return Markup('{} <span class="soft">[{}]</span>').format(text, bounds)


def _highlights(comparison: Comparison) -> Markup:
    tables = {table.suite: table for table in comparison.suites}
    rows: dict[str, dict[str, str]] = {method.name: {} for method in comparison.methods}
    for suite, fields in _HIGHLIGHTS:
        for name in tables[suite].select(**fields) if suite in tables else ():
            score, entries = tables[suite].scores[name], tables[suite].entries[name]
            for method, cells in rows.items():
                text = _mean(specs.get(score.metric), entries[method].summary) if method in entries else _DASH
                cells[f"{suites.title(suite)}: {score_title(score)}"] = text
    return rows_html(rows)


def _paper_table(comparison: Comparison) -> Markup | None:
    rows = {}
    for place, row in enumerate(comparison.paper, 1):
        std = f" ± {100 * row.paper.std:.2f}" if row.paper.std is not None else ""
        rows[row.method, str(place)] = {
            "quantity": row.quantity,
            "published": f"{100 * row.paper.value:.{2 if row.paper.std else 1}f}{std}",
            "in": row.paper.source,
            "ours": _mean(specs.get(row.metric), row.ours) if row.ours else _DASH,
            "seeds": len(row.ours.values) if row.ours else "",
            "our data": row.missing or row.source,
        }
    return rows_html(rows) if rows else None


def _run_table(comparison: Comparison) -> Markup:
    return rows_html(
        {
            (method.name, run.name): {"seed": run.seed, "step": f"{run.step:,}", "calibration bins": run.num_bins}
            for method in comparison.methods
            for run in method.runs
        }
    )
