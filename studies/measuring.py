"""Train and evaluate what studies still need, and write their tables and figures."""

from collections.abc import Mapping
from pathlib import Path

from studies import report
from studies.results import collect_results
from studies.running import run_all
from studies.runs import ROOT, EnsembleRun, StudyRun, create_jobs, create_runs, read_record, save_record
from studies.study import Size, Study


def with_records(study: Study, folder: Path) -> Study:
    """Return a study whose runs have their records in a folder, if they have any."""
    size = study.size
    return study._replace(size=size._replace(records=str(folder))) if size and size.records else study


def measure(
    studies: Mapping[str, Study], requested: Size, out: Path, at_once: int, *, only_report: bool = False
) -> None:
    """Train and evaluate what studies still need, and write their tables and figures.

    Args:
      studies: by name.
      requested: the size of those that state none.
      out: folder of all runs, tables and figures, one subfolder per size.
      at_once: number of parallel runs.
      only_report: whether to train and evaluate nothing.
    """
    sizes = {name: study.size or requested for name, study in studies.items()}
    if not only_report:
        for size in {size.name: size for size in sizes.values()}.values():
            of_size = {name: study for name, study in studies.items() if sizes[name] == size}
            for run in (run for study in of_size.values() for run in create_runs(study, size, out / size.name)):
                save_unrecorded(run)
            for jobs in create_jobs(of_size, size, out / size.name):
                run_all(jobs, at_once, ROOT)
    for name, study in studies.items():
        folder = out / sizes[name].name
        results = collect_results(study, create_runs(study, sizes[name], folder))
        for file in report.write(name, study, sizes[name], results, folder):
            print(file)


def save_unrecorded(run: StudyRun | EnsembleRun) -> None:
    """Record results in the folder of a run that its record lacks: a stop may have come between the two."""
    record, found = read_record(run), run.results_of_folder
    known = record.results if record else {}
    if any(of.keys() - known.get(name, {}).keys() for name, of in found.items()):
        save_record(run)
