"""The kill and soak tests at their smallest: runs survive, and every difference would be reported."""

import json
import shutil

import emulators
import pytest
from commands import quick_command
from conftest import tiny_config
from tensorboardX import SummaryWriter

from anchor_jax.training.loop import train
from faults.kill.compare_runs import differences
from faults.soak.resources import UNITS, Sample, growing_resources, memory_growth


def test_killed_run_ends_like_an_uninterrupted_one(tmp_path):
    aims = ("deletion", "evaluation", "checkpoint", "eval results")
    done = quick_command(
        "-m", "faults.kill", "--model=mlp", "--kills=4", f"--aims={','.join(aims)}", f"--json={tmp_path / 'kill.json'}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "kill.json").read_text())
    assert content["environment"]["jax"]
    assert content["environment"]["command"].startswith("python -m faults.kill --model=mlp")
    assert sorted(kill["aim"] for kill in content["kills"]) == sorted(aims)
    assert sum(content["kills_by_moment"].values()) == 4
    # the phase of a kill in training is random: a checkpoint may be complete before it
    assert "eval.py, writing results" in content["kills_by_moment"]
    assert set(content["verdicts"].values()) == {"the same"}


def test_killed_run_in_a_bucket_ends_like_others(tmp_path):
    with emulators.running("s3") as address:
        arguments = ("--model=mlp", "--kills=1", "--aims=checkpoint", f"--bucket={address}/kill")
        done = quick_command("-m", "faults.kill", *arguments, f"--json={tmp_path / 'kill.json'}")
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "kill.json").read_text())
    assert sum(content["kills_by_moment"].values()) == 1
    assert set(content["verdicts"].values()) == {"the same"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of a short run and of a copy of it."""
    folder = tmp_path_factory.mktemp("runs")
    config = tiny_config(folder)
    config.training.total_epochs = 1.0
    train(config, folder / "clean")
    shutil.copytree(folder / "clean", folder / "changed")
    return folder / "clean", folder / "changed"


def test_differences_reports_every_change(runs):
    clean, changed = runs
    assert not any(differences(clean, changed).values())
    lines = (changed / "metrics.jsonl").read_text().splitlines(keepends=True)
    (changed / "metrics.jsonl").write_text("".join((*lines, lines[-1])))
    (changed / "incomplete-run.json").touch()
    shutil.rmtree(changed / "checkpoints/6/variables")
    with SummaryWriter(str(changed / "tensorboard"), purge_step=7, filename_suffix="later") as writer:
        writer.add_scalar("train/loss", 1.0, 6)
    found = differences(clean, changed)
    assert found["metrics.jsonl"] == [f"added: line {len(lines) + 1}"]
    assert found["files"] == ["missing: checkpoints/6/variables", "added: incomplete-run.json"]
    assert all(place.startswith("missing: 6/variables[") for place in found["checkpoints"])
    assert found["TensorBoard"] == ["changed: train/loss of step 6"]
    assert not found["results of eval.py"]


def test_soak_test_finds_no_growth(tmp_path):
    done = quick_command(
        "-m", "faults.soak", "--steps=200", "--looks=20", "--most_growth=50", f"--json={tmp_path / 'soak.json'}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "soak.json").read_text())
    samples = {result["metric"]: result["samples"] for result in content["results"]}
    assert samples.keys() == {*UNITS, "growth_of_memory"}
    assert len(samples["memory"]) == 20
    assert min(samples["arrays"]) > 10


def test_growth_is_detected():
    constant = [Sample(100 * step, 50.0, 20, 1.0, 9, 5) for step in range(1, 51)]
    assert memory_growth(constant) == pytest.approx(0, abs=1e-9)
    assert growing_resources(constant) == []
    leaking = [each._replace(memory=50 + each.step / 500, descriptors=9 + each.step // 1000) for each in constant]
    assert memory_growth(leaking) == pytest.approx(2)
    assert growing_resources(leaking) == ["descriptors"]
