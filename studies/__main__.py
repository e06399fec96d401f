"""Train and evaluate the runs that a study still needs, then write its table and figure.

    python -m studies main masking reference_set --reduced --at_once 2

The studies are defined in `studies/definitions.py`; without names, all are run. The folders of the runs determine what
is left to do, so rerunning the command resumes after a stop. On SIGTERM or Ctrl-C the running commands save and end.
"""

import os

from absl import flags

from anchor_jax.cli import app
from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from studies.definitions import FULL, REDUCED, STUDIES
from studies.measuring import measure, with_records

OUT = app.define_path("out", "runs/studies", "Folder of all runs, tables and figures.")
IS_REDUCED = flags.DEFINE_bool("reduced", False, f"Use small runs: {REDUCED.description}.")
AT_ONCE = flags.DEFINE_integer("at_once", 1, "Parallel runs; on CPU, one per core is fastest.", lower_bound=1)
ONLY_REPORT = flags.DEFINE_bool("only_report", False, "Report existing results; train and evaluate nothing.")
RECORDS = app.define_path(
    "records", None, "Folder of the records of runs, instead of the repository's; an empty one measures all runs anew."
)


def main(*names: str) -> None:
    """Run the studies with these names."""
    for name in names:
        checks.known("study", name, STUDIES)
    if AT_ONCE.value > (os.cpu_count() or 1):
        raise UserError(f"--at_once must be at most {os.cpu_count()}, the number of cores; got {AT_ONCE.value}")
    studies = {name: STUDIES[name] for name in names or STUDIES}
    if RECORDS.value:
        studies = {name: with_records(study, RECORDS.value.absolute()) for name, study in studies.items()}
    requested = REDUCED if IS_REDUCED.value else FULL
    measure(studies, requested, OUT.value.absolute(), AT_ONCE.value, only_report=ONLY_REPORT.value)


if __name__ == "__main__":
    app.run(main, arguments=True)
