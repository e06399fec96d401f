"""Train and evaluate what a study lacks, then write its table and its picture.

    python -m studies main masking reference_set --reduced --at_once 2

The studies stand in `studies/tables.py`; without a name, all are done. What is done already is known from the folders
of the runs, so that the same command goes on after a stop, SIGTERM or Ctrl-C, in which what runs is saved.
"""

import os

from absl import flags

from anchor_jax.cli import app
from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from studies import report
from studies.definitions import FULL, REDUCED, STUDIES
from studies.results import measured
from studies.running import run_all
from studies.runs import ROOT, jobs_of, runs_of

OUT = flags.DEFINE_string("out", "runs/studies", "The folder of all runs, tables and pictures.")
IS_REDUCED = flags.DEFINE_bool("reduced", False, f"Small runs: {REDUCED.told}.")
AT_ONCE = flags.DEFINE_integer(
    "at_once", 1, "Runs at once; on CPU as many as there are cores is fastest.", lower_bound=1
)
ONLY_REPORT = flags.DEFINE_bool("only_report", False, "Train and evaluate nothing: report what is there.")


def main(*names: str) -> None:
    """Flags to values, then one call."""
    for name in names:
        checks.known("study", name, STUDIES)
    if AT_ONCE.value > (os.cpu_count() or 1):
        raise UserError(f"--at_once must be at most {os.cpu_count()}, the cores there are; got {AT_ONCE.value}")
    size = REDUCED if IS_REDUCED.value else FULL
    folder = (app.path("out", OUT.value) / size.name).absolute()
    studies = {name: STUDIES[name] for name in names or STUDIES}
    if not ONLY_REPORT.value:
        for jobs in jobs_of(studies, size, folder):
            run_all(jobs, AT_ONCE.value, ROOT)
    for name, study in studies.items():
        table = measured(study, runs_of(study, size, folder))
        for file in report.write(name, study, size, table, folder):
            print(file)


if __name__ == "__main__":
    app.run(main, arguments=True)
