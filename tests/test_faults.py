"""The commands that hurt a run, at their smallest: it survives, and where it did not they would tell."""

import json
import shutil

import pytest
from commands import quick_command
from conftest import tiny_config
from tensorboardX import SummaryWriter

from anchor_jax.training.loop import train
from faults.kill.compare_runs import differences
from faults.soak.resources import UNITS, Sample, grown, growth


def test_a_run_that_is_killed_goes_on_as_if_nothing_had_happened(tmp_path):
    aims = ("deletion", "evaluation", "checkpoint", "eval results")
    done = quick_command(
        "-m", "faults.kill", "--model=mlp", "--kills=4", f"--aims={','.join(aims)}", f"--json={tmp_path / 'kill.json'}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "kill.json").read_text())
    assert found["environment"]["jax"]
    assert sorted(kill["aim"] for kill in found["kills"]) == sorted(aims)
    assert sum(found["kills_by_moment"].values()) == 4
    # where a kill of training hits is chance: a checkpoint may be whole before it
    assert "eval.py, writing results" in found["kills_by_moment"]
    assert set(found["verdicts"].values()) == {"the same"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A short run, and a copy of it."""
    folder = tmp_path_factory.mktemp("runs")
    config = tiny_config(folder)
    config.training.total_epochs = 1.0
    train(config, folder / "clean")
    shutil.copytree(folder / "clean", folder / "hurt")
    return folder / "clean", folder / "hurt"


def test_every_difference_is_told(runs):
    clean, hurt = runs
    assert not any(differences(clean, hurt).values())
    lines = (hurt / "metrics.jsonl").read_text().splitlines(keepends=True)
    (hurt / "metrics.jsonl").write_text("".join((*lines, lines[-1])))
    (hurt / "incomplete-run.json").touch()
    shutil.rmtree(hurt / "checkpoints/6/variables")
    with SummaryWriter(str(hurt / "tensorboard"), purge_step=7, filename_suffix="later") as writer:
        writer.add_scalar("train/loss", 1.0, 6)
    told = differences(clean, hurt)
    assert told["metrics.jsonl"] == [f"added: line {len(lines) + 1}"]
    assert told["files"] == ["missing: checkpoints/6/variables", "added: incomplete-run.json"]
    assert all(place.startswith("missing: 6/variables[") for place in told["checkpoints"])
    assert told["TensorBoard"] == ["changed: train/loss of step 6"]
    assert not told["results of eval.py"]


def test_a_long_run_holds_no_more_at_its_end(tmp_path):
    done = quick_command(
        "-m", "faults.soak", "--steps=200", "--looks=20", "--most_growth=50", f"--json={tmp_path / 'soak.json'}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "soak.json").read_text())
    samples = {result["metric"]: result["samples"] for result in found["results"]}
    assert samples.keys() == {*UNITS, "growth_of_memory"}
    assert len(samples["memory"]) == 20
    assert min(samples["arrays"]) > 10


def test_what_grows_is_told():
    still = [Sample(100 * step, 50.0, 20, 1.0, 9, 5) for step in range(1, 51)]
    assert growth(still) == pytest.approx(0, abs=1e-9)
    assert grown(still) == []
    leaking = [it._replace(memory=50 + it.step / 500, descriptors=9 + it.step // 1000) for it in still]
    assert growth(leaking) == pytest.approx(2)
    assert grown(leaking) == ["descriptors"]
