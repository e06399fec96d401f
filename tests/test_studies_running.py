"""Parallel jobs of the studies: failures, cores, and stop signals."""

import json
import os
import signal
import sys
import threading
import time

import pytest
from commands import quick_command

from anchor_jax import UserError
from anchor_jax.core.errors import Preempted
from anchor_jax.evaluation import storage
from anchor_jax.evaluation.results import Score, SuiteResult
from studies import records, running
from studies.definitions import STUDIES
from studies.measuring import measure, with_records
from studies.runs import create_runs
from studies.study import CLEAN, STANDARD, Ensemble, Evaluation, FigureSpec, Row, Size, Study

FACTS = {"seconds": 1.0, "devices": ["cpu"], "host": "", "python": "", "versions": {}}


def job(name, program, folder):
    return running.Job(name, [[sys.executable, "-c", program]], folder / f"{name}.txt")


def test_run_all_reports_failures_and_runs_the_others(tmp_path):
    jobs = [
        job("broken", "import sys; print('no such thing'); sys.exit(3)", tmp_path),
        job("working", "print('done')", tmp_path),
    ]
    with pytest.raises(UserError, match=r"broken: -c exited with 3, see .*broken.txt \(no such thing\)"):
        running.run_all(jobs, 1, tmp_path)
    assert "\ndone\n" in (tmp_path / "working.txt").read_text()


def test_run_all_divides_the_cores(tmp_path):
    program = "import os, time; print(sorted(os.sched_getaffinity(0))); time.sleep(1)"
    before = os.sched_getaffinity(0)
    running.run_all([job(f"job{number}", program, tmp_path) for number in range(2)], 2, tmp_path)
    core_sets = [json.loads((tmp_path / f"job{number}.txt").read_text().splitlines()[-1]) for number in range(2)]
    assert sorted(core for cores in core_sets for core in cores) == sorted(before) or len(before) == 1
    assert os.sched_getaffinity(0) == before


def test_run_all_lets_commands_save_on_a_stop_signal(tmp_path):
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(143)))\n"
        "print('started', flush=True)\n"
        "time.sleep(60)\n"
    )
    jobs = [job("first", program, tmp_path), job("second", program, tmp_path)]

    def stop():
        while "\nstarted\n" not in (tmp_path / "first.txt").read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    (tmp_path / "first.txt").touch()
    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(Preempted, match="SIGTERM: rerun the same command to resume") as preempted:
        running.run_all(jobs, 1, tmp_path)
    assert preempted.value.status == 143
    assert (tmp_path / "first.txt").read_text().endswith("saved\n")
    assert not (tmp_path / "second.txt").exists()


def test_results_without_a_record_are_recorded_on_resuming(tmp_path):
    """A stop came after the last evaluation, before its record was written."""
    size = Size("tiny", {}, "", str(tmp_path / "records"))
    row = Row("ensemble", "digits", STANDARD, record="ensemble", seeds=1, ensemble=Ensemble("ensemble", 2))
    study = Study([row], [Evaluation(("clean",), (1,))], (CLEAN,), FigureSpec("", ("clean",)), size)
    [run] = create_runs(study, size, tmp_path / "out/tiny")
    result = SuiteResult("clean", 2, (Score("accuracy", 0.5),), {}, FACTS)
    storage.ResultStore(tmp_path / "out/tiny" / run.name).add(result)
    assert not any(run.missing_commands(study.evaluations))
    file = tmp_path / "records/ensemble-0.json"
    for _ in range(2):
        measure({"study": study}, size, tmp_path / "out", at_once=1)
        assert records.load(file).results["clean"][2].scores == result.scores
        assert list((tmp_path / "records").iterdir()) == [file]


def test_studies_are_measured_anew_with_other_records(tmp_path):
    done = quick_command("-m", "studies", "fast", "--only_report", f"--out={tmp_path}", f"--records={tmp_path / 'new'}")
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "fast/fast.md").read_text().splitlines()[2:]
    assert len(rows) == len(STUDIES["fast"].rows)
    assert all(row.count("not measured") == len(STUDIES["fast"].columns) for row in rows)
    study = with_records(STUDIES["fast"], tmp_path)
    assert study.size
    assert len(create_runs(study, study.size, tmp_path)) == sum(row.seeds for row in study.rows)
