"""From the folders of runs to a report."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from anchor_jax.reporting.comparison import html
from anchor_jax.reporting.comparison.runs import grouped, load
from anchor_jax.reporting.comparison.table import Comparison, tabulated


def compare(
    workdirs: Sequence[Path], out: Path, suites: Sequence[str] = (), num_references: int | None = None
) -> Comparison:
    """Compare evaluated runs; prints tables and writes `compare.html`, `compare.json` and `compare.csv`.

    Args:
      workdirs: folders of runs, at least two; those that differ in their seed alone are one method.
      out: the folder of the report; it may hold an earlier comparison, which is replaced.
      suites: names; all that the runs have in common by default.
      num_references: K of the anchored runs; for each suite the largest that all have by default.

    Returns:
      What the report tells.

    Raises:
      UserError: a folder without a run, a run that is not evaluated or not on what was asked, runs on other data, the
        same run twice, or a folder that holds something else than a comparison.
    """
    html.check_folder(out)
    comparison = tabulated(grouped(load(workdirs)), suites, num_references)
    page = html.write(comparison, out)
    console = Console()
    for table in html.terminal_tables(comparison):
        console.print(table)
    for note in comparison.notes:
        console.print(note, soft_wrap=True, highlight=False, markup=False)
    console.print(f"report: {page}", soft_wrap=True, highlight=False, markup=False)
    return comparison
