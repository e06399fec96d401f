"""Write the results of a study as a Markdown table, as JSON and as a figure."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from anchor_jax.evaluation.presentation import DotPanel, DotPlots, LinePlots
from anchor_jax.metrics import specs
from anchor_jax.reporting import plots
from anchor_jax.reporting.comparison.figures import seed_dots, severity_panel
from anchor_jax.reporting.comparison.statistics import Difference, Summary
from anchor_jax.runtime.atomic_files import write_texts
from studies.definitions import FULL
from studies.results import Entry, StudyResults
from studies.study import Size, Study

_SEVERITIES = {"clean": 0} | {f"severity {severity}": severity for severity in range(1, 6)}  # by title of the column


def write(name: str, study: Study, size: Size, results: StudyResults, folder: Path) -> list[Path]:
    """Write `NAME.md`, `NAME.json` and, if there is anything to plot, `NAME.png`; return their paths."""
    text = json.dumps(content(name, study, size, results), indent=1, ensure_ascii=False) + "\n"
    texts = {folder / f"{name}.md": markdown(study, results), folder / f"{name}.json": text}
    figure = folder / f"{name}.png"
    write_texts(texts, figure)
    if not _has_figure(study, results):
        return [*texts]
    _draw(study, results, figure)
    return [*texts, figure]


def content(name: str, study: Study, size: Size, results: StudyResults) -> dict[str, Any]:
    """Return the content of the JSON file; numbers are fractions, and seconds."""
    return {
        "study": name,
        "size": size.name,
        "runs": size.description,
        "changes": dict(size.changes),
        "environment": {
            "command": f"python -m studies {name}" + ("" if size == FULL or study.size else f" --{size.name}"),
            "measured_on": list(results.environments),
            "training_seconds": round(results.training_seconds),
            "evaluation_seconds": round(results.evaluation_seconds),
        },
        "rows": [
            {
                "name": row.name,
                "config": row.config,
                "changes": dict(row.changes),
                "paper": row.paper,
                "numbers": {title: _numbers(entry) for title, entry in results.entries[row.name].items()},
            }
            for row in study.rows
        ],
    }


def markdown(study: Study, results: StudyResults) -> str:
    """Return the table, in percent by default; the paper's values are next to the first column."""
    first, *others = study.columns
    headings = ["", "seeds", "paper", first.title, "over standard", *(_heading(column) for column in others)]
    lines = [headings, ["---"] * len(headings)]
    for row in study.rows:
        entries = results.entries[row.name]
        seeds = str(len(entries[first.title].summary.values) if first.title in entries else 0)
        cells = [_cell(entries.get(column.title), column.unit) for column in study.columns]
        gain = _gain(entries[first.title].difference) if first.title in entries else ""
        if study.shows_gains:
            cells[1:] = [_with_gain(cell, entries.get(of.title)) for cell, of in zip(cells[1:], others, strict=True)]
        lines.append([row.name, seeds, row.paper, cells[0], gain, *cells[1:]])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _numbers(entry: Entry) -> dict[str, Any]:
    numbers = entry.summary._asdict()
    return numbers | ({"over_standard": entry.difference._asdict()} if entry.difference else {})


def _heading(column) -> str:
    return column.title if column.unit == "%" else f"{column.title}, {column.unit}"


def _cell(entry: Entry | None, unit: str) -> str:
    """Return mean ± standard deviation over seeds."""
    if entry is None:
        return "not measured"
    scale = 100 if unit == "%" else 1
    mean, std = entry.summary.mean * scale, entry.summary.std
    return f"{mean:.2f}" + (f" ± {std * scale:.2f}" if std is not None else "")


def _gain(difference: Difference | None) -> str:
    """Return the mean difference, with its 95% interval if there are several seeds."""
    if difference is None:
        return ""
    interval = [f"{100 * end:+.2f}" for end in difference.interval or ()]
    return f"{100 * difference.mean:+.2f}" + (f" [{', '.join(interval)}]" if interval else "")


def _with_gain(cell: str, entry: Entry | None) -> str:
    return f"{cell} ({100 * entry.difference.mean:+.2f})" if entry and entry.difference else cell


def _has_figure(study: Study, results: StudyResults) -> bool:
    titles = set(study.figure.columns or _SEVERITIES)
    return any(titles & entries.keys() for entries in results.entries.values())


def _draw(study: Study, results: StudyResults, file: Path) -> None:
    if not study.figure.columns:
        panels = [severity_panel(title, curves) for title, curves in _severities(study, results)]
        plots.save(LinePlots(panels), file)
        return
    columns = {title: _summaries(study, results, title) for title in study.figure.columns}
    accuracy = specs.get("accuracy")
    panels = [
        DotPanel(
            "\n".join(filter(None, (title, study.figure.title))),
            {row: [seed_dots(summary)] for row, summary in summaries.items()},
            accuracy,
        )
        for title, summaries in columns.items()
    ]
    rows = list(dict.fromkeys(row for summaries in columns.values() for row in summaries))
    plots.save(DotPlots(rows, panels, color_rows=True), file)


def _severities(study: Study, results: StudyResults) -> Iterator[tuple[str, dict[str, dict[int, Summary]]]]:
    """Yield title and curves per dataset: method -> severity -> accuracy, where 0 is the clean test set."""
    for data in dict.fromkeys(row.config for row in study.rows):
        curves = {}
        for row in (row for row in study.rows if row.config == data):
            entries = results.entries[row.name]
            curve = {severity: entries[title].summary for title, severity in _SEVERITIES.items() if title in entries}
            if curve:
                curves[row.name.removeprefix(f"{data}, ")] = curve
        yield f"{data}: {study.figure.title}", curves


def _summaries(study: Study, results: StudyResults, title: str) -> dict[str, Summary]:
    rows: Sequence[str] = [row.name for row in study.rows]
    return {row: results.entries[row][title].summary for row in rows if title in results.entries[row]}
