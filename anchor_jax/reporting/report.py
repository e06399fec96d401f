"""The report of an evaluation: tables on the terminal, an HTML page, and the same numbers as JSON.

`report.html` is self-contained: figures are embedded, and there are no scripts and no links to other addresses.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data.corruptions import SEVERITIES
from anchor_jax.evaluation import prediction_files, question, storage, suites
from anchor_jax.evaluation.output import workdir_of, workdir_of_results
from anchor_jax.evaluation.presentation import Highlight, Table, describe_transduction, format_num_references
from anchor_jax.evaluation.results import Results
from anchor_jax.evaluation.runner import facts_of_run
from anchor_jax.evaluation.same_data import clean_results_for, warning_of_test_sets
from anchor_jax.evaluation.suite import DATA_FACTS
from anchor_jax.reporting.html import draw_figures, intervals_of, render, rows_html, table_html
from anchor_jax.reporting.learning import learning_curves
from anchor_jax.reporting.pictures import send_results
from anchor_jax.reporting.terminal import print_either_way, print_lines
from anchor_jax.runs import record as run_record
from anchor_jax.runtime.atomic_files import atomic_write
from anchor_jax.runtime.paths import printable, resolved, storage_path
from anchor_jax.training.trackers import check as check_trackers

_MAX_NAMES = 4  # of datasets, in the heading of a table on the terminal


class Reporter:
    """Prints tables while an evaluation runs, and writes `report.html` and `report.json` in the end.

    Pass it to `anchor_jax.evaluation.evaluate` as `report`.

    Args:
      trackers: "tensorboard", "wandb" and "mlflow", or some of them, which get the scores and the figures as well.

    Raises:
      UserError: a tracker is unknown, or its client is not installed.
    """

    def __init__(self, trackers: Sequence[str] = ()):
        self._trackers = check_trackers(trackers)

    def suite_finished(self, results: Results) -> None:
        """Print the first table of a suite."""
        result = results[max(results)]
        tables = _tables(results)
        if not tables:
            return
        table, members = tables[0], result.facts.get("members", [])
        heading = [f"{result.name}: {table.caption}" if table.caption else result.name]
        heading += [f"{result.facts['num_examples']:,} examples"] if "num_examples" in result.facts else []
        heading += [", ".join(members) if len(members) <= _MAX_NAMES else f"{len(members)} sets"] if members else []
        severities = result.facts.get("severities", [])
        if 0 < len(severities) < len(SEVERITIES):
            heading.append(f"severities {', '.join(map(str, severities))}")
        print_lines(", ".join([*heading, f"step {result.facts['step']:,}"]))
        rows = [
            [of.spec.headed(of.title), *("–" if value is None else of.spec.text(value) for value in of.values)]
            for of in table.columns
        ]
        print_either_way(["", *table.rows], rows)
        print_lines(*describe_transduction(result.facts))

    def evaluation_finished(self, folder: Path, results: Mapping[str, Results], run_facts: Mapping[str, Any]) -> None:
        """Write the report and print where everything is."""
        page = write_page(folder, results, run_facts)
        print_lines(*filter(None, [warning_of_test_sets(results)]))
        summaries = storage.summary_folder(folder)
        sizes = prediction_files.sizes(summaries)
        files = ", ".join(f"{file} ({prediction_files.format_bytes(num)})" for file, num in sizes.items())
        print_lines(f"numbers: {summaries / storage.METRICS}", *([f"images:  {files}"] if files else []))
        print_lines(f"report:  {page}")
        if self._trackers:
            send_results(self._trackers, folder, results)

    def profile_written(self, folder: Path) -> None:
        """Print where the profile is."""
        print_lines(f"profile: {folder}")


def write_report(
    workdir: str | os.PathLike[str], step: int | None = None, num_bins: int | None = None, limit: int = 0
) -> Path:
    """Write the report of a run that is already evaluated.

    Args:
      workdir: folder of the run.
      step: step of the checkpoint; by default the last one that is evaluated.
      num_bins: bins of the calibration errors; by default those of the run's config, or the fewest evaluated.
      limit: of the images that were evaluated; 0 for results on all images.

    Returns:
      The path of `report.html`.

    Raises:
      UserTypeError: an argument has the wrong type.
      UserError: there is no run, the checkpoint is not evaluated, or results are corrupt.
    """
    folder = storage_path("workdir", workdir)
    run = run_record.load(workdir_of(folder))
    folders = storage.checkpoint_folders(folder, checks.count("limit", limit, 0))
    by_bins = folders.get(max(folders, default=0) if step is None else step, {})
    default = run.config.evaluation.num_bins
    default = default if default in by_bins else min(by_bins, default=default)
    folder = by_bins.get(default if num_bins is None else num_bins)
    results = storage.read(folder) if folder else {}
    if not folder or not results:
        raise UserError(f"'{workdir}' has no such evaluation; run eval.py first")
    return write_page(folder, results, facts_of_run(run))


def write_page(folder: Path, results: Mapping[str, Results], run_facts: Mapping[str, Any]) -> Path:
    """Write `report.html`, `report.json`, the figures in `pictures/` and long tables in `tables/`.

    Args:
      folder: of the checkpoint's results.
      results: by storage name of the suite.
      run_facts: JSON values about the run. "title" is the heading of the page; a dict becomes a table of its own.

    Returns:
      The path of `report.html`.

    Raises:
      UserError: results are corrupt, or the folder is not writable.
    """
    results = {name: results[name] for name in sorted(results, key=suites.report_order)}
    content = {
        name: {"facts": of[max(of)].facts, "results": {str(num): result.metrics for num, result in of.items()}}
        for name, of in results.items()
    }
    with storage.writing(folder):
        sections = [_section(name, results, run_facts, folder) for name in results]
        with atomic_write(folder / storage.REPORT) as file:
            file.write_text(json.dumps({"run": run_facts, "suites": content}, indent=2, allow_nan=False) + "\n")
        page = render(
            "page.html.j2",
            title=run_facts.get("title") or run_facts.get("workdir") or resolved(folder).parents[1].name,
            subtitle=_subtitle(results),
            highlights=[each for name, of in results.items() for each in _highlights(name, of)],
            warning=warning_of_test_sets(results),
            table_html=table_html,
            sections=sections,
            after={"the-run": "The run"},
            run=_run_tables(run_facts),
            learning=draw_figures(learning_curves(workdir_of_results(folder.parent), run_facts), folder / "pictures"),
        )
        with atomic_write(folder / "report.html") as file:
            file.write_text(page, encoding="utf-8")
    return folder / "report.html"


def _highlights(name: str, of_suite: Results) -> list[Highlight]:
    """Return the highlights of a suite; those with transduction say so, beside others with as many references."""
    found = suites.find(name).highlights(of_suite[max(of_suite)])
    if of_suite[max(of_suite)].protocol != "blt":
        return found
    return [dataclasses.replace(each, remark=f"{each.remark}, transduction (BLT)") for each in found]


def _subtitle(results: Mapping[str, Results]) -> str:
    nums = sorted({num for of in results.values() for num in of})
    facts = next(result.facts for of in results.values() for result in of.values())
    step, limit = f"step {facts['step']:,}", facts.get("options", {}).get("limit")
    limited = [f"at most {limit:,} images of each dataset"] if limit else []
    references = ", ".join(map(format_num_references, nums))
    return " · ".join([step, *limited, references, f"{facts['num_bins']} calibration bins"])


def _section(name: str, by_suite: Mapping[str, Results], run_facts: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    suite, results = suites.find(name), by_suite[name]
    tables, differing = _tables(results), _differing_facts(results)
    figures = suite.figures(results, clean_results_for(results, by_suite))
    tables = [_with_file(table, folder / "tables" / f"{name}-{table.file}.csv") for table in tables]
    return {
        "id": name,
        "heading": suites.title(name),
        "title": suites.title(name),
        "suite": suite,
        "differing": differing,
        "tables": [dataclasses.replace(table, mark_best=False) for table in tables] if differing else tables,
        "figures": draw_figures(figures, folder / "pictures", f"{name}-"),
        "num_scores": len({score for result in results.values() for score in result.metrics}),
        "scores": _scores_html(results),
        "facts": _facts(results, run_facts),
    }


def _tables(results: Results) -> list[Table]:
    """Return the tables of a suite; the first one of a suite that was evaluated with transduction says how."""
    result = results[max(results)]
    tables = suites.find(result.suite).tables(results)
    if result.protocol != "blt" or not tables:
        return tables
    first, *others = tables
    return [dataclasses.replace(first, notes=[*first.notes, *describe_transduction(result.facts)]), *others]


def _with_file(table: Table, file: Path) -> Table:
    """Write the file of a table, if it has one, and return it with a note that names the file."""
    if not table.file:
        return table
    columns: dict[str, Any] = {}
    for column in table.columns:
        columns[column.spec.name] = column.values
        if column.intervals:
            for place, end in enumerate(("low", "high")):
                columns[f"{column.spec.name}_{end}"] = [of and of[place] for of in intervals_of(column)]
    with atomic_write(file) as new:
        pd.DataFrame(columns, index=pd.Index(list(map(printable, table.rows)), name="name")).to_csv(new)
    where = f"{'As a file' if table.shown is None else f'All {len(table.rows):,}'}: {file.parent.name}/{file.name}."
    return dataclasses.replace(table, notes=[*table.notes, where])


def _scores_html(results: Results) -> Markup:
    rows: dict[str, dict[str, str]] = {}
    for num, result in results.items():
        for name, value in result.metrics.items():
            rows.setdefault(name, {})[format_num_references(num)] = f"{value:.6g}"
    return rows_html(rows)


def _differing_facts(results: Results) -> list[str]:
    """Return the facts in which the rows of a table differ, though they should not."""
    facts = [{**result.facts, "data": question.content(result.facts)} for result in results.values()]
    return [name for name in ("data", *DATA_FACTS) if len({_text(each.get(name)) for each in facts}) > 1]


def _facts(results: Results, run_facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the facts that are not those of the run: once if all results agree, else one per result."""
    facts = [] if any(result.facts.get("data") for result in results.values()) else [("data", "unknown")]
    for name in dict.fromkeys(name for result in results.values() for name in result.facts if name not in run_facts):
        texts = {num: _text(result.facts[name]) for num, result in results.items() if name in result.facts}
        if len(set(texts.values())) == 1:
            facts.append((name, next(iter(texts.values()))))
        else:
            facts += [(f"{name}, {format_num_references(num)}", text) for num, text in texts.items()]
    return facts


def _run_tables(run_facts: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
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
