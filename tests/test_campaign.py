"""The campaign on an accelerator: its steps in the tiny form, limits, failures, signals and resumption."""

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
from anchor_jax import config as configuration
from anchor_jax.planning.targets import CHIPS, parse_target
from benchmarks.campaign import campaign, chips, first_steps, planned, running, steps, summary
from benchmarks.campaign.study import SIZE, STUDY
from benchmarks.timing import build_each, time_interleaved
from studies.runs import create_runs

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


def fake(monkeypatch, programs, **options):
    """Replace the steps of the campaign by programs of Python."""
    found = [
        steps.Step(name, name, 10.0, ["-c", program], has_file=False, **options) for name, program in programs.items()
    ]
    monkeypatch.setattr(campaign, "all_steps", lambda settings: found)
    return found


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
    is_training = lambda: any(tmp_path.glob("studies/tiny/logs/*"))  # noqa: E731
    records = run(settings_of(tmp_path), 900.0, stop_signal=lambda: signal.SIGTERM if is_training() else 0)
    logs = {name: (tmp_path / f"logs/{name}.txt").read_text() for name in records}
    names = ["machine", "losses", "train", "inference", "estimates", "trace"]
    assert statuses(records) == dict.fromkeys(names, "done") | {"study": "interrupted"}, logs
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
    texts = "TFLOP/s", "| tiny | yes |", "pytorch-eager", "largest losses", "The planner knows no chip 'cpu'"
    for text in texts:
        assert text in report
    assert report.count("No results") == 1
    assert "cannot be read" not in report

    *first, study = steps.all_steps(settings_of(tmp_path))
    monkeypatch.setattr(campaign, "all_steps", lambda settings: [*first, study._replace(command=study.closing)])
    again = run(settings_of(tmp_path), 900.0, campaign.earlier_records(settings_of(tmp_path)))
    assert again == records | {"study": again["study"]}
    assert again["study"]["status"] == "done"
    assert capsys.readouterr().out.count("done before") == len(first)
    assert "0 of 1 rows are measured" in (tmp_path / "report.md").read_text()


def test_smallest_study_has_a_valid_config(tmp_path):
    (study_run,) = create_runs(STUDY, SIZE, tmp_path)
    configuration.validate(study_run.config)


def test_campaign_records_failures_and_goes_on(tmp_path, monkeypatch):
    programs = {
        "broken": "import sys; print('error: no such thing', file=sys.stderr); print('later'); sys.exit(1)",
        "raising": "raise ValueError('why')",
        "killed": "import os; os.kill(os.getpid(), 9)",
        "slow": "import time; time.sleep(60)",
        "working": "print('hi')",
    }
    found = fake(monkeypatch, programs)
    found[3] = found[3]._replace(seconds=0.3)  # its limit is four times that
    records = run(settings_of(tmp_path), 100.0)
    expected = {"broken": "failed", "raising": "failed", "killed": "failed", "slow": "stopped at its limit"}
    assert statuses(records) == expected | {"working": "done"}
    assert records["broken"]["message"] == "no such thing"
    assert records["raising"]["message"].endswith("ValueError: why")
    assert records["killed"]["message"].startswith("killed by SIGKILL")
    report = (tmp_path / "report.md").read_text()
    assert "Failed: no such thing." in report

    fake(monkeypatch, dict.fromkeys(programs, "pass"))
    again = run(settings_of(tmp_path), 100.0, campaign.earlier_records(settings_of(tmp_path)))
    assert statuses(again) == dict.fromkeys(programs, "done")
    assert again["working"] == records["working"]


def test_campaign_kills_a_deaf_step_and_its_descendants(tmp_path, monkeypatch):
    file = tmp_path / "pids"
    deaf = (
        "import os, signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True); "
        f"file = open({str(file)!r}, 'w'); print(os.getpid(), child.pid, file=file, flush=True); time.sleep(60)"
    )
    fake(monkeypatch, {"deaf": deaf}, grace=0.1)
    is_ready = lambda: file.exists() and file.read_text().endswith("\n")  # noqa: E731
    records = run(settings_of(tmp_path / "out"), 100.0, stop_signal=lambda: signal.SIGTERM if is_ready() else 0)
    assert statuses(records) == {"deaf": "interrupted"}
    pids = file.read_text().split()
    assert len(pids) == 2
    until = time.monotonic() + 60  # the kernel ends the grandchild a moment after the signal
    while any(map(is_running, pids)):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_campaign_skips_what_has_no_time(tmp_path, monkeypatch):
    fake(monkeypatch, {"first": "pass", "second": "pass"})
    records = run(settings_of(tmp_path), 1.0)
    assert statuses(records) == {"first": "skipped", "second": "skipped"}
    assert records["first"]["message"] == "no time was left"


def test_campaign_adds_the_xla_flags_of_a_step(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_mine=1")
    fake(monkeypatch, {"graph": "import os; print(os.environ['XLA_FLAGS'])"}, xla_flags="--xla_its=2")
    record = run(settings_of(tmp_path), 100.0)["graph"]
    assert (tmp_path / "logs/graph.txt").read_text().endswith("\n--xla_mine=1 --xla_its=2\n")
    assert record["command"].startswith("XLA_FLAGS=--xla_its=2 python ")


def test_campaign_ends_its_step_on_a_signal(tmp_path, monkeypatch):
    fake(monkeypatch, {"first": "import time; time.sleep(60)", "second": "pass"})
    signals = iter([0, 0, 0, *[signal.SIGTERM] * 100])
    records = run(settings_of(tmp_path), 100.0, stop_signal=lambda: next(signals))
    assert statuses(records) == {"first": "interrupted", "second": "skipped"}
    assert records["second"]["message"] == "the campaign was interrupted"


@pytest.mark.parametrize(("status", "num_commands"), [("done", 1), ("failed", 2), ("stopped at its limit", 2)])
def test_campaign_closes_a_step_that_is_not_done(status, num_commands, tmp_path, monkeypatch):
    commands = []

    def ended(arguments, log, seconds, *_, **__):
        commands.append((arguments, seconds))
        return running.Ended(status, "")

    fake(monkeypatch, {"study": "pass"}, closing=["report"], is_last=True)
    monkeypatch.setattr(running, "run", ended)
    assert statuses(run(settings_of(tmp_path), 1_000.0)) == {"study": status}
    assert [arguments for arguments, _ in commands] == [["-c", "pass"], ["report"]][:num_commands]
    assert commands[0][1] < 1_000 - 20  # time for closing it is set aside


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
    graph = "train_graph" if platform == "gpu" else ""
    order = f"machine losses train train_bfloat16 {graph} inference estimates trace study_fast study_paper"
    assert list(found) == order.split()
    assert [step.name for step in found.values() if step.xla_flags] == graph.split()


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
    result = first_steps.compare(found, [2.0, 1.5])
    assert (result["agrees"], result["first_wrong_step"]) == (wrong is None, wrong)
    assert ("agree with those of the CPU" if wrong is None else f"the loss of step {wrong} is") in (
        first_steps.verdict(result)
    )


@pytest.mark.parametrize(("learning_rate", "agrees"), [(0.01, True), (0.0101, False)])
def test_losses_show_steps_that_are_one_percent_too_long(learning_rate, agrees):
    config = first_steps.config_of(first_steps.TINY_CASES["tiny"] | {"optimizer.learning_rate": learning_rate})
    reference = json.loads(first_steps.REFERENCE.read_text())["losses"]["tiny"]
    found = first_steps.losses(config)  # on eight devices; the reference is that of one
    assert first_steps.compare(found, reference)["agrees"] == agrees


# samples


def stop():
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL  # which would end the tests
    signal.raise_signal(signal.SIGTERM)


def test_samples_before_a_stop_signal_are_kept():
    counts = iter(range(3))
    samples = time_interleaved({"ours": lambda: next(counts, None) == 2 and stop()}, 5)
    assert len(samples["ours"]) == 2
    with pytest.raises(SystemExit):
        time_interleaved({"ours": stop}, 5)


def test_implementations_before_a_stop_signal_are_kept():
    builders = {"ours": lambda: 1, "broken": lambda: 1 / 0, "slow": stop, "last": lambda: 2}
    assert build_each(builders, ["ours"], "case") == {"ours": 1}
    with pytest.raises(SystemExit):
        build_each(builders, ["ours", "last"], "case")
    with pytest.raises(ZeroDivisionError):
        build_each(builders, ["broken"], "case")


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
