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
from studies import report
from studies.definitions import FULL, REDUCED, STUDIES
from studies.results import collect_results
from studies.running import run_all
from studies.runs import ROOT, create_jobs, create_runs

OUT = app.define_path("out", "runs/studies", "Folder of all runs, tables and figures.")
IS_REDUCED = flags.DEFINE_bool("reduced", False, f"Use small runs: {REDUCED.description}.")
AT_ONCE = flags.DEFINE_integer("at_once", 1, "Parallel runs; on CPU, one per core is fastest.", lower_bound=1)
ONLY_REPORT = flags.DEFINE_bool("only_report", False, "Report existing results; train and evaluate nothing.")


def main(*names: str) -> None:
    """Run the studies with these names."""
    for name in names:
        checks.known("study", name, STUDIES)
    if AT_ONCE.value > (os.cpu_count() or 1):
        raise UserError(f"--at_once must be at most {os.cpu_count()}, the number of cores; got {AT_ONCE.value}")
    studies = {name: STUDIES[name] for name in names or STUDIES}
    requested, out = REDUCED if IS_REDUCED.value else FULL, OUT.value.absolute()
    sizes = {name: study.size or requested for name, study in studies.items()}
    if not ONLY_REPORT.value:
        for size in {size.name: size for size in sizes.values()}.values():
            of_size = {name: study for name, study in studies.items() if sizes[name] == size}
            for jobs in create_jobs(of_size, size, out / size.name):
                run_all(jobs, AT_ONCE.value, ROOT)
    for name, study in studies.items():
        folder = out / sizes[name].name
        results = collect_results(study, create_runs(study, sizes[name], folder))
        for file in report.write(name, study, sizes[name], results, folder):
            print(file)


if __name__ == "__main__":
    app.run(main, arguments=True)
