"""The campaign on an accelerator: its steps in the tiny form, time limits, what is kept, and the reading of traces."""

import doctest
import json
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import jax
import pytest
from commands import ROOT, assert_told, environment_of_command, quick_command

from anchor_jax import UserError
from anchor_jax.planning.targets import CHIPS, parse_target
from benchmarks.campaign import campaign, chips, differences, planned, running, steps, summary

MACHINE = {
    "platform": "cpu",
    "device_kind": "cpu",
    "devices": 1,
    "environment": {"command": "c", "cpu": "x", "cpu_cores": 2, "python": "3", "jax": "1", "jaxlib": "1", "torch": "2"},
}


def settings_of(out, **changes):
    return steps.Settings(out, 9.0, None, True, MACHINE)._replace(**changes)


def run(settings, seconds=60.0, records=None, stop_signal=int):
    return campaign.run_steps(settings, records or {}, time.monotonic() + seconds, stop_signal)


def statuses(records):
    return {name: record["status"] for name, record in records.items()}


def fake(monkeypatch, programs, seconds=10.0, **options):
    """Replace the steps of the campaign by programs of Python, which may take four times `seconds`."""
    found = [
        steps.Step(name, name, seconds, ["-c", program], has_file=False, **options)
        for name, program in programs.items()
    ]
    monkeypatch.setattr(campaign, "all_steps", lambda settings: found)


@pytest.fixture(scope="module", autouse=True)
def started(tmp_path_factory):
    """Start the process from which commands are forked, so that it takes no time of a step."""
    ended = running.run(["-c", "pass"], tmp_path_factory.mktemp("started") / "log.txt", 120.0, grace=0.0)
    assert ended.status == running.DONE


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_campaign_runs_every_step(tmp_path, monkeypatch, capsys):
    for name, value in environment_of_command(OMP_NUM_THREADS="1").items():
        monkeypatch.setenv(name, value)
    *first, study = steps.all_steps(settings_of(tmp_path))
    short = study._replace(seconds=1.5, is_last=False)  # six seconds: it is stopped, unless it is fast
    monkeypatch.setattr(campaign, "all_steps", lambda settings: [*first, short])
    records = run(settings_of(tmp_path), 900.0)
    logs = {name: (tmp_path / f"logs/{name}.txt").read_text() for name in records}
    found = statuses(records)
    assert found.pop("study") in ("done", "stopped at its limit"), logs
    assert found == dict.fromkeys(found, "done"), logs
    assert list(records) == ["machine", "losses", "train", "inference", "estimates", "trace", "study"]
    printed = capsys.readouterr().out
    assert printed.count("left\n") == 2 * len(records)

    content = json.loads((tmp_path / "campaign.json").read_text())
    results = {step["name"]: step["results"] for step in content["steps"]}
    assert all(result["agrees"] for result in results["losses"]["results"])
    timed = {name: {each["implementation"] for each in results[name]["results"]} for name in ("train", "inference")}
    assert timed == {"train": {"jax", "anchor_jax"}, "inference": {"anchor_jax", "pytorch-eager"}}
    (estimate,) = results["estimates"]["results"][0]["estimates"]
    assert estimate["time_over_measured"] > 0
    assert len(results["trace"]["losses"]) == 2
    report = (tmp_path / "report.md").read_text()
    assert report.count("**") % 2 == 0
    texts = "TFLOP/s", "| tiny | yes |", "pytorch-eager", "of 1 rows are measured", "largest losses"
    for text in (*texts, "The planner knows no chip 'cpu'"):
        assert text in report
    assert "No results" not in report
    assert "cannot be read" not in report

    again = run(settings_of(tmp_path), 1.0, campaign.earlier_records(settings_of(tmp_path)))
    assert again == records
    assert capsys.readouterr().out.count("done before") >= len(first)


def test_campaign_records_failures_and_goes_on(tmp_path, monkeypatch):
    programs = {
        "broken": "import sys; print('error: no such thing', file=sys.stderr); print('later'); sys.exit(1)",
        "raising": "raise ValueError('why')",
        "killed": "import os; os.kill(os.getpid(), 9)",
        "slow": "import time; time.sleep(60)",
        "working": "print('hi')",
    }
    fake(monkeypatch, programs, seconds=1.0)
    records = run(settings_of(tmp_path), 100.0)
    expected = {"broken": "failed", "raising": "failed", "killed": "failed", "slow": "stopped at its limit"}
    assert statuses(records) == expected | {"working": "done"}
    assert records["broken"]["message"] == "no such thing"
    assert records["raising"]["message"].endswith("ValueError: why")
    assert records["killed"]["message"].startswith("killed by SIGKILL")
    report = (tmp_path / "report.md").read_text()
    assert "Failed: no such thing." in report

    fake(monkeypatch, dict.fromkeys(programs, "print('mended')"))
    again = run(settings_of(tmp_path), 100.0, campaign.earlier_records(settings_of(tmp_path)))
    assert statuses(again) == dict.fromkeys(programs, "done")
    assert again["working"] == records["working"]


def test_campaign_obeys_its_time_and_ends_descendants(tmp_path, monkeypatch):
    deaf = (
        "import os, signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True); "
        f"file = open({str(tmp_path / 'pids')!r}, 'w'); "
        "print(os.getpid(), child.pid, file=file, flush=True); time.sleep(60)"
    )
    fake(monkeypatch, {"slow": deaf, "third": "pass"})
    begun = time.monotonic()
    records = run(settings_of(tmp_path / "out"), 6.0)
    assert time.monotonic() - begun < 6.0
    assert statuses(records) == {"slow": "stopped at its limit", "third": "done"}
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    assert not any(map(is_running, pids))


def test_campaign_skips_what_has_no_time(tmp_path, monkeypatch):
    fake(monkeypatch, {"first": "pass", "second": "pass"})
    assert statuses(run(settings_of(tmp_path), 1.0)) == {"first": "skipped", "second": "skipped"}
    assert statuses(run(settings_of(tmp_path), 20.0, stop_signal=lambda: signal.SIGTERM)) == {
        "first": "skipped",
        "second": "skipped",
    }


def test_campaign_ends_its_step_on_a_signal(tmp_path, monkeypatch):
    fake(monkeypatch, {"first": "import time; time.sleep(60)", "second": "pass"})
    signals = iter([0, 0, 0, *[signal.SIGTERM] * 100])
    records = run(settings_of(tmp_path), 30.0, stop_signal=lambda: next(signals))
    assert statuses(records) == {"first": "interrupted", "second": "skipped"}
    assert records["second"]["message"] == "the campaign was interrupted"


def test_campaign_closes_a_step_that_was_stopped(tmp_path, monkeypatch):
    closing = ["-c", f"open({str(tmp_path / 'closed')!r}, 'w')"]
    fake(monkeypatch, {"study": "import time; time.sleep(60)"}, closing=closing, is_last=True)
    assert statuses(run(settings_of(tmp_path), 5.0)) == {"study": "stopped at its limit"}
    assert (tmp_path / "closed").exists()


@pytest.mark.parametrize("minutes", [1, 9, 600])
def test_limits_share_the_time(minutes, tmp_path):
    gpu = settings_of(tmp_path, is_tiny=False, machine=MACHINE | {"platform": "gpu"})
    waiting, left = steps.all_steps(gpu), 60.0 * minutes
    while waiting:
        step = waiting.pop(0)
        seconds = steps.limit(step, waiting, left)
        assert 0 < seconds <= step.most_seconds
        left -= seconds
    assert left == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("platform", "torch", "official", "train", "note"),
    [
        ("gpu", "2", True, "anchor_jax,pytorch-graph,released-loader,released-nchw,released-channels-last", ""),
        ("gpu", "2", False, "anchor_jax,pytorch-graph", "the released code was not given"),
        ("gpu", None, True, "anchor_jax", "PyTorch is not installed: ours alone"),
        ("tpu", "2", False, "anchor_jax", "PyTorch does not run on tpu: ours alone"),
        ("cpu", "2", False, "anchor_jax,pytorch-compiled", "the released code was not given"),
    ],
)
def test_throughput_is_side_by_side(platform, torch, official, train, note, tmp_path):
    machine = MACHINE | {"platform": platform, "environment": MACHINE["environment"] | {"torch": torch}}
    settings = settings_of(tmp_path, is_tiny=False, machine=machine, official=tmp_path if official else None)
    found = {step.name: step for step in steps.all_steps(settings)}
    for name in ("train", "inference"):
        assert f"--implementations={train}" in found[name].command
        assert (f"--official={tmp_path}" in found[name].command) == ("released" in train)
        assert found[name].note.startswith(note)
    order = "machine losses train train_bfloat16 inference estimates trace study_fast study_paper"
    assert list(found) == order.split()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"notes.txt": "mine"}, "holds something else than a campaign"),
        ({"campaign.json": "{"}, "holds something else than a campaign"),
        ({"campaign.json": "[1]"}, "holds something else than a campaign"),
        ({"campaign.json": {"settings": {"tiny": False}, "steps": []}}, "another campaign: tiny was False and is True"),
        ({"campaign.json": {"settings": {"device_kind": "H"}, "steps": []}}, "device_kind was 'H' and is 'cpu'"),
    ],
)
def test_folder_of_something_else_is_refused(content, message, tmp_path):
    for name, text in content.items():
        (tmp_path / name).write_text(text if isinstance(text, str) else json.dumps(text))
    with pytest.raises(UserError, match=message):
        campaign.earlier_records(settings_of(tmp_path))


def test_folder_must_not_be_a_file_and_may_be_new(tmp_path):
    assert campaign.earlier_records(settings_of(tmp_path / "new")) == {}
    (tmp_path / "lock").touch()
    assert campaign.earlier_records(settings_of(tmp_path)) == {}
    with pytest.raises(UserError, match="is a file"):
        campaign.earlier_records(settings_of(tmp_path / "lock"))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "--out must have a value"),
        (("--out=x", "--official=/"), 1, "--official=/ has no CIFAR/wrapper.py"),
        (("--out=x", "--minutes=0"), 2, "--minutes"),
    ],
)
def test_command_explains_what_is_missing(arguments, status, message):
    assert_told(quick_command("-m", "benchmarks.campaign", *arguments), status, message)
    assert not (ROOT / "x").exists()


def test_probe_finds_the_device_or_says_what_is_missing(monkeypatch):
    for name, value in environment_of_command().items():
        monkeypatch.setenv(name, value)
    found = campaign.probe(may_be_cpu=True)
    monkeypatch.setattr(running, "run", lambda *_, **__: running.Ended(running.DONE, ""))
    assert (found["platform"], found["devices"]) == ("cpu", 1)
    assert found["environment"]["jax"] == jax.__version__
    monkeypatch.setattr(campaign, "read", lambda file: found)
    with pytest.raises(UserError, match=r"no accelerator, only CPUs; install .* or measure the CPU with --cpu"):
        campaign.probe(may_be_cpu=False)
    monkeypatch.setattr(campaign, "read", lambda file: None)
    with pytest.raises(UserError, match="JAX finds no device"):
        campaign.probe(may_be_cpu=True)


def test_report_counts_the_measured_rows_of_a_study(tmp_path):
    table = tmp_path / "studies/fast/fast.md"
    table.parent.mkdir(parents=True)
    headings = "|  | seeds | paper | clean | over standard | noise |\n| --- | --- | --- | --- | --- | --- |\n"
    rows = {"label": "| 1 |  | 88.70 |  | 82.91", "part": "| 0 |  | not measured |  | 76.40"}
    rows["new"] = "| 0 |  | not measured |  | not measured"
    table.write_text(headings + "".join(f"| {name} {cells} |\n" for name, cells in rows.items()))
    step = {"name": "study_fast", "title": "Studies", "status": "done", "message": "", "note": "", "results": None}
    content = {"environment": MACHINE["environment"], "settings": settings_of(tmp_path).fixed()}
    summary.write(tmp_path / "report.md", content | {"steps": [step | {"seconds": 1.0, "limit": 2.0}]}, tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "`studies/fast/fast.md`: 2 of 3 rows are measured." in report
    assert [f"| {name} |" in report for name in rows] == [True, True, False]


# losses


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ([2.0, 1.5], None),
        ([2.0 * (1 + 5e-6), 1.5 * (1 - 5e-5)], None),
        ([2.0 * (1 + 2e-5), 1.5], 1),
        ([2.0, 1.5 * (1 + 2e-4)], 2),
        ([2.0, float("nan")], 2),
        ([float("inf"), 1.5], 1),
    ],
)
def test_losses_agree_within_the_tolerances(found, wrong):
    result = differences.compare(found, [2.0, 1.5])
    assert (result["agrees"], result["first_wrong_step"]) == (wrong is None, wrong)
    assert ("agree with those of the CPU" if wrong is None else f"the loss of step {wrong} is") in (
        differences.verdict(result)
    )


# chips and plans


def test_chips_have_targets_of_one_device():
    assert doctest.testmod(chips) == (0, 2)
    for name in CHIPS:
        assert parse_target(chips.target_of(name)).num_devices == 1


def test_committed_plan_is_beside_the_measurement():
    plan = planned.plan_of("cifar10_fast", {}, "h200:1")
    assert plan["by"] == "committed plan for h200:1"
    compared = planned.with_ratio(plan, {"seconds_per_step": 2 * plan["seconds_per_step"], "memory_bytes": 1})
    assert compared["time_over_measured"] == 0.5
    assert compared["memory_over_measured"] == plan["memory_bytes"]


def test_plan_that_cannot_be_made_says_why():
    done = SimpleNamespace(stderr="warning: slow\nerror: the compiler is not installed\n")
    with mock.patch.object(planned.subprocess, "run", return_value=done) as called:
        plan = planned.plan_of("digits", {"training.batch_size": 15}, "h200:2")
    assert plan == {"by": "plan for h200:2", "error": "the compiler is not installed"}
    assert "--config.training.batch_size=15" in called.call_args.args[0]
    assert called.call_args.kwargs["env"]["JAX_PLATFORMS"] == "cpu"
