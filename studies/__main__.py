"""Train and evaluate what a study lacks, then write its table and its picture.

    python -m studies main masking reference_set --reduced --at_once 2

The studies stand in `studies/tables.py`; without a name, all are done. What is done already is known from the folders
of the runs, so that the same command goes on after a stop, SIGTERM or Ctrl-C, in which what runs is saved.
"""

import itertools
import os
from pathlib import Path

from absl import flags

from anchor_jax import checks, command
from anchor_jax.errors import UserError
from studies import report
from studies.results import measured
from studies.running import Job, run_all
from studies.runs import ROOT, StudyRun, runs_of
from studies.tables import FULL, REDUCED, STUDIES, Study

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
    folder = (command.path("out", OUT.value) / size.name).absolute()
    studies = {name: STUDIES[name] for name in names or STUDIES}
    if not ONLY_REPORT.value:
        run_all(_jobs(studies, size, folder), AT_ONCE.value, ROOT)
    for name, study in studies.items():
        table = measured(study, runs_of(study, size, folder))
        for file in report.write(name, study, size, table, folder):
            print(file)


def _jobs(studies, size, folder: Path) -> list[Job]:
    """What is still to be done; what several studies ask of one run is one job."""
    asked: dict[str, list[tuple[StudyRun, Study]]] = {}
    for study in studies.values():
        for one in runs_of(study, size, folder):
            asked.setdefault(one.name, []).append((one, study))

    def missing(name):
        return itertools.chain.from_iterable(one.missing(study.asks) for one, study in asked[name])

    return [Job(name, missing(name), folder / "logs" / f"{name}.txt") for name in asked if any(missing(name))]


if __name__ == "__main__":
    command.run(main, arguments=True)
