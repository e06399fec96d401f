"""The result of a measurement, the printed table and the JSON file."""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from anchor_jax.runtime.atomic_files import write_texts
from benchmarks.environment import environment


class Result(NamedTuple):
    """Samples of one quantity; the fields are those of the JSON file."""

    case: str  # the task, such as "resnet18 width 64, batch 128"
    implementation: str  # such as "anchor_jax" or "pytorch"
    metric: str  # such as "images_per_second", "peak_memory", "compile_time"
    unit: str
    samples: Sequence[float]

    @property
    def median(self) -> float:
        """Return the median of the samples."""
        return statistics.median(self.samples)


def report(title: str, facts: Mapping[str, Any], results: Sequence[Result], file: Path | None) -> None:
    """Print a table of the results; with a file name, also write them as JSON.

    Args:
      title: printed above the table.
      facts: settings of the benchmark, added to the environment in the file.
      results: one per row.
      file: path of the JSON file, or None.
    """
    table = Table("case", "implementation", "metric", "median", "min", "max", "unit", title=title)
    for result in results:
        numbers = (result.median, min(result.samples), max(result.samples))
        table.add_row(
            result.case, result.implementation, result.metric, *(f"{number:,.4g}" for number in numbers), result.unit
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    if file:
        write_json(file, content(facts, results))


def content(facts: Mapping[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    """Return the content of a result file; the arguments are those of `report`."""
    rows = [{**result._asdict(), "samples": list(result.samples), "median": result.median} for result in results]
    return {"environment": {**environment(), **facts}, "results": rows}


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; another one of this name moves to `earlier/`."""
    write_texts({file: json.dumps(content, indent=1) + "\n"})


def write_rows(file: Path, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a JSON file with `facts` as its environment and one line per row."""
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    write_texts({file: f'{{\n "environment": {json.dumps(facts)},\n "results": [\n{lines}\n ]\n}}\n'})
