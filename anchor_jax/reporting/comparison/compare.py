"""The comparison of evaluated runs: from their folders to a report."""

import os
from collections.abc import Sequence

from anchor_jax.core import checks
from anchor_jax.reporting.comparison import report
from anchor_jax.reporting.comparison.comparison import Comparison, compare_methods
from anchor_jax.reporting.comparison.methods import group_by_method, load
from anchor_jax.runtime.paths import storage_path


def compare(
    workdirs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    suites: Sequence[str] = (),
    num_references: int | None = None,
    limit: int = 0,
) -> Comparison:
    """Compare evaluated runs; print tables and write `compare.html`, `compare.json` and `compare.csv`.

    Args:
      workdirs: folders of runs, at least two; runs that differ only in their seed are one method.
      out: folder of the report; another comparison in it moves to `earlier/1`, `earlier/2`, ...
      suites: names of suites; by default all that the runs have in common.
      num_references: K of the anchored runs; by default, for each suite, the largest that all have.
      limit: of the images that were evaluated; 0 for results on all images.

    Returns:
      The content of the report.

    Raises:
      UserError: a folder has no run; a run is not evaluated with this limit, or not on a requested suite; runs have
        different data; a run is given twice; or `out` holds something other than a comparison.
    """
    runs, suites = checks.several("workdirs", workdirs), checks.several("suites", suites)
    out = storage_path("out", out)
    report.check_folder(out)
    evaluated = load(runs, checks.count("limit", limit, 0))
    comparison = compare_methods(group_by_method(evaluated), suites, num_references)
    page = report.write(comparison, out)
    report.print_tables(comparison, f"report: {page}")
    return comparison
