"""What a study has found, as a table in Markdown, as JSON, and as a picture."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from anchor_jax.reporting.comparison import plots
from anchor_jax.reporting.comparison.plots import Panel
from anchor_jax.reporting.comparison.statistics import Difference, Summary
from anchor_jax.runtime.atomic_files import atomic_write
from studies.definitions import FULL, Size, Study
from studies.results import Entry, Table


def write(name: str, study: Study, size: Size, table: Table, folder: Path) -> list[Path]:
    """Write `NAME.md`, `NAME.json` and `NAME.png` into a folder, each whole or not at all; their paths."""
    files = [folder / f"{name}.md", folder / f"{name}.json"]
    texts = markdown(study, table), json.dumps(content(name, study, size, table), indent=1, ensure_ascii=False) + "\n"
    for file, text in zip(files, texts, strict=True):
        with atomic_write(file) as new:
            new.write_text(text, encoding="utf-8")
    if _can_be_drawn(study, table):
        files.append(folder / f"{name}.png")
        _draw(study, table, files[-1])
    return files


def content(name: str, study: Study, size: Size, table: Table) -> dict[str, Any]:
    """All numbers, as JSON has them: fractions, and seconds."""
    return {
        "study": name,
        "size": size.name,
        "runs": size.told,
        "changes": dict(size.changes),
        "environment": {
            "command": f"python -m studies {name}" + ("" if size == FULL else f" --{size.name}"),
            "measured_on": list(table.environments),
            "training_seconds": round(table.training_seconds),
            "evaluation_seconds": round(table.evaluation_seconds),
        },
        "rows": [
            {
                "name": row.name,
                "config": row.config,
                "changes": dict(row.changes),
                "paper": row.paper,
                "numbers": {title: _numbers(entry) for title, entry in table.entries[row.name].items()},
            }
            for row in study.rows
        ],
    }


def markdown(study: Study, table: Table) -> str:
    """The table, in per cent where a column says no other unit; its first column beside the paper's figures."""
    first, *others = study.columns
    headings = ["", "seeds", "paper", first.title, "over standard", *(_heading(column) for column in others)]
    lines = [headings, ["---"] * len(headings)]
    for row in study.rows:
        entries = table.entries[row.name]
        seeds = str(len(entries[first.title].summary.values) if first.title in entries else 0)
        cells = [_cell(entries.get(column.title), column.unit) for column in study.columns]
        gain = _gain(entries[first.title].difference) if first.title in entries else ""
        lines.append([row.name, seeds, row.paper, cells[0], gain, *cells[1:]])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _numbers(entry: Entry) -> dict[str, Any]:
    found = entry.summary._asdict()
    return found | ({"over_standard": entry.difference._asdict()} if entry.difference else {})


def _heading(column) -> str:
    return column.title if column.unit == "%" else f"{column.title}, {column.unit}"


def _cell(entry: Entry | None, unit: str) -> str:
    """Mean ± standard deviation over seeds."""
    if entry is None:
        return "not measured"
    scale = 100 if unit == "%" else 1
    mean, std = entry.summary.mean * scale, entry.summary.std
    return f"{mean:.2f}" + (f" ± {std * scale:.2f}" if std is not None else "")


def _gain(difference: Difference | None) -> str:
    """Mean difference and its 95 % interval, where several seeds give one."""
    if difference is None:
        return ""
    interval = ""
    if difference.low is not None and difference.high is not None:
        interval = f" [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"
    return f"{100 * difference.mean:+.2f}{interval}"


def _can_be_drawn(study: Study, table: Table) -> bool:
    titles = set(study.figure.columns or (column.title for column in study.columns))
    return any(titles & entries.keys() for entries in table.entries.values())


def _draw(study: Study, table: Table, file: Path) -> None:
    if not study.figure.columns:
        curves = dict(_severities(study, table))
        plots.severity(curves, list(dict.fromkeys(name for by_name in curves.values() for name in by_name)), file)
        return
    panels = {
        Panel("\n".join(filter(None, (title, study.figure.title))), is_fraction=True): _summaries(study, table, title)
        for title in study.figure.columns
    }
    plots.values(panels, list(dict.fromkeys(name for found in panels.values() for name in found)), file)


def _severities(study: Study, table: Table) -> Iterator[tuple[str, dict[str, dict[int, Summary]]]]:
    """For each data set: method -> severity -> accuracy; 0 is the clean test set."""
    for data in dict.fromkeys(row.config for row in study.rows):
        found = {}
        for row in (row for row in study.rows if row.config == data and table.entries[row.name]):
            titles = {0: "clean"} | {severity: f"severity {severity}" for severity in range(1, 6)}
            entries = table.entries[row.name]
            found[row.name.removeprefix(f"{data}, ")] = {
                severity: entries[title].summary for severity, title in titles.items() if title in entries
            }
        yield f"{data}: {study.figure.title}", found


def _summaries(study: Study, table: Table, title: str) -> dict[str, Summary]:
    rows: Sequence[str] = [row.name for row in study.rows]
    return {row: table.entries[row][title].summary for row in rows if title in table.entries[row]}
