"""The comparison of evaluated runs: from their folders to a report."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from anchor_jax.core import checks
from anchor_jax.reporting.comparison import report
from anchor_jax.reporting.comparison.comparison import Comparison, compare_methods
from anchor_jax.reporting.comparison.methods import group_by_method, load


def compare(
    workdirs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    suites: Sequence[str] = (),
    num_references: int | None = None,
) -> Comparison:
    """Compare evaluated runs; print tables and write `compare.html`, `compare.json` and `compare.csv`.

    Args:
      workdirs: folders of runs, at least two; runs that differ only in their seed are one method.
      out: folder of the report; an earlier comparison in it is replaced.
      suites: names of suites; by default all that the runs have in common.
      num_references: K of the anchored runs; by default, for each suite, the largest that all have.

    Returns:
      The content of the report.

    Raises:
      UserError: a folder has no run; a run is not evaluated, or not on a requested suite; runs have different data; a
        run is given twice; or `out` holds something other than a comparison.
    """
    runs, suites = checks.several("workdirs", workdirs), checks.several("suites", suites)
    for folder in (*runs, out):
        checks.path("workdirs and out", folder)
    out = Path(out)
    report.check_folder(out)
    comparison = compare_methods(group_by_method(load(tuple(map(Path, runs)))), suites, num_references)
    page = report.write(comparison, out)
    report.print_tables(comparison, Console())
    Console().print(f"report: {page}", soft_wrap=True, highlight=False, markup=False)
    return comparison
