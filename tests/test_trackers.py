"""Trackers: what is sent to clients, which are replaced by modules that record calls, and runs that outlive them."""

import io
import json
import sys
import types
import warnings

import numpy as np
import pytest
from conftest import begun, tiny_config
from PIL import Image

from anchor_jax import UserError
from anchor_jax.evaluation import evaluate
from anchor_jax.evaluation.output import POINTER
from anchor_jax.evaluation.results import Score, SuiteResult
from anchor_jax.metrics import reliability_bins
from anchor_jax.reporting import Reporter, TrainingPictures
from anchor_jax.reporting.pictures import send_results
from anchor_jax.runs import record as run_record
from anchor_jax.training import trackers
from anchor_jax.training.loop import train
from anchor_jax.training.trackers import Trackers
from faults.kill import compare_runs


class Calls(list):
    """Records the calls of a fake client; `broken` names those that fail."""

    broken: tuple[str, ...] = ()

    def __call__(self, name, /, *arguments, **options):
        if name in self.broken:
            raise ConnectionError(f"no {name}\ntoday")
        self.append((name, arguments, options))

    def named(self, name):
        return [(arguments, options) for found, arguments, options in self if found == name]


def fake_wandb(calls):
    def init(**options):
        calls("init", **options)
        run = types.SimpleNamespace(id=options.get("id", "w1"), summary=types.SimpleNamespace(), step=0)
        run.log = lambda scalars, step: calls("log", scalars, step)
        run.summary.update = lambda scalars: calls("summary", scalars)
        run.finish = lambda exit_code: calls("finish", exit_code)
        return run

    return types.SimpleNamespace(init=init, Image=lambda image: image.size, Settings=dict)


def fake_mlflow(calls):
    class Client:
        def __init__(self, tracking_uri):
            calls("client", tracking_uri)

        def get_experiment_by_name(self, name):
            return None

        def create_experiment(self, name):
            return "e"

        def create_run(self, experiment, run_name):
            calls("create_run", experiment, run_name)
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id="m1"))

        def log_batch(self, run_id, metrics=(), params=()):
            calls("log_batch", run_id, list(metrics), list(params))

        def __getattr__(self, name):
            return lambda *arguments, **options: calls(name, *arguments, **options)

    def entity(*values):
        return values

    return types.SimpleNamespace(MlflowClient=Client, entities=types.SimpleNamespace(Metric=entity, Param=entity))


@pytest.fixture
def clients(monkeypatch):
    """Replace both clients; return the calls of each."""
    calls = {"wandb": Calls(), "mlflow": Calls()}
    for name, make in (("wandb", fake_wandb), ("mlflow", fake_mlflow)):
        module = types.ModuleType(name)
        module.__spec__ = types.SimpleNamespace(name=name)  # pyright: ignore
        vars(module).update(vars(make(calls[name])))
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    return calls


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A config of four steps, without masks."""
    config = tiny_config(tmp_path_factory.mktemp("data"))
    config.anchoring.mask_prob = 0.0
    config.training.total_epochs = 0.5
    config.evaluation.every_epochs = config.checkpoint.every_epochs = 0.5
    return config


def opened(names, run, first_step=0):
    return Trackers(names, run, run.workdir, run.workdir / "tensorboard", first_step)


def test_trackers_get_metrics_pictures_and_final_scores(short, tmp_path, clients):
    workdir = tmp_path / "run"
    train(short, workdir, trackers=("wandb", "mlflow"), pictures=TrainingPictures())
    assert not (workdir / "tensorboard").exists()
    logged = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    expected = [
        (line["step"], {name: value for name, value in line.items() if name != "step" and value is not None})
        for line in logged
    ]
    sent = clients["wandb"].named("log")
    assert [(step, scalars) for (scalars, step), _ in sent if "/reliability" not in str(scalars)][1:] == expected
    pictured = {name: step for (scalars, step), _ in sent for name, of in scalars.items() if isinstance(of, tuple)}
    assert pictured == {"examples": 0, "test/reliability": expected[-1][0]}
    metrics = [metric for (_, metrics, _), _ in clients["mlflow"].named("log_batch") for metric in metrics]
    assert [(step, name, value) for name, value, _, step in metrics] == [
        (step, name, value) for step, scalars in expected for name, value in scalars.items()
    ]
    params = dict(pair for (_, _, params), _ in clients["mlflow"].named("log_batch") for pair in params)
    assert params["training.total_epochs"] == "0.5"
    assert [options["key"] for _, options in clients["mlflow"].named("log_image")] == ["examples", "test/reliability"]
    assert clients["mlflow"].named("set_terminated") == [(("m1", "FINISHED"), {})]

    scores = evaluate(workdir, num_references=(2,), report=Reporter(("tensorboard", "wandb", "mlflow")))
    (summary,) = [scalars for (scalars,), _ in clients["wandb"].named("summary")]
    assert summary["eval/clean/2/accuracy"] == scores["clean"]["2"]["accuracy"]
    assert clients["wandb"].named("init")[1][1]["id"] == "w1"
    assert len(clients["mlflow"].named("create_run")) == 1
    assert "eval/clean-reliability" in [options["key"] for _, options in clients["mlflow"].named("log_image")]
    tags = tags_of(workdir / "eval/tensorboard")
    assert {"eval/clean/2/accuracy", "eval/clean-reliability"} <= tags.keys()
    facts = {"step": 1, "options": {"limit": 9}}
    limited = {"clean": {2: SuiteResult("clean", 2, (Score("accuracy", 0.5),), {}, facts)}}
    send_results(("wandb",), workdir / "eval/step1-bins15-limit9", limited)
    assert clients["wandb"].named("summary")[-1][0] == ({"eval-limit9/clean/2/accuracy": 0.5, "eval-limit9/step": 1},)


def test_trackers_of_results_outside_leave_the_run_alone(short, tmp_path, clients):
    begun(short, tmp_path / "run")
    before, out = sorted((tmp_path / "run").iterdir()), tmp_path / "out"
    out.mkdir()
    (out / POINTER).write_text(json.dumps({"workdir": str(tmp_path / "run")}))
    result = SuiteResult("clean", 2, (Score("accuracy", 0.5),), {}, {"step": 1})
    send_results(("wandb",), out / "step1-bins15", {"clean": {2: result}})
    assert clients["wandb"].named("init")[0][1]["dir"] == str(out)
    assert (out / trackers.STATE).exists()
    assert sorted((tmp_path / "run").iterdir()) == before


def tags_of(folder):
    """Return tag -> whether it is an image, of all event files of a folder."""
    events = [event for file in folder.iterdir() for event in compare_runs._read_events(file)]
    return {value.tag: value.HasField("image") for event in events for value in event.summary.value}


def test_trackers_go_on_with_their_runs(short, tmp_path, clients):
    train(short, tmp_path, trackers=("wandb", "mlflow"))
    run = run_record.load(tmp_path)
    sent = clients["wandb"].named("log"), clients["mlflow"].named("log_batch")
    for names in (("wandb", "mlflow"), ("mlflow",)):
        again = opened(names, run)
        again.log(3, "train", {"train/loss": 1.0})  # which the run repeats after its checkpoint
        again.close("KILLED")
    assert (clients["wandb"].named("log"), clients["mlflow"].named("log_batch")) == sent
    assert [options.get("id") for _, options in clients["wandb"].named("init")] == [None, "w1"]
    assert len(clients["mlflow"].named("create_run")) == 1
    assert clients["mlflow"].named("update_run") == [(("m1",), {"status": "RUNNING"})] * 2
    again = opened(("wandb",), run)
    again.log(9, "train", {"train/loss": 1.0})
    assert clients["wandb"].named("log")[-1] == (({"train/loss": 1.0}, 9), {})
    (tmp_path / trackers.STATE).write_text("{")
    with pytest.warns(UserWarning, match="is corrupt"):
        opened(("wandb",), run)
    assert "id" not in clients["wandb"].named("init")[-1][1]


@pytest.mark.parametrize("broken", ["init", "log", "finish", "client", "log_batch", "set_terminated"])
def test_trackers_that_fail_leave_the_run_alone(short, tmp_path, clients, broken):
    for calls in clients.values():
        calls.broken = (broken,)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if broken == "log":
            train(short, tmp_path / "run", trackers=("wandb", "mlflow"))
        else:
            each = opened(("wandb", "mlflow"), types.SimpleNamespace(workdir=tmp_path, config=short))
            for step in (1, 2):
                each.log(step, "train", {"train/loss": 1.0})
            each.close("FINISHED")
    (message,) = [str(each.message) for each in warned if str(each.message).startswith("tracker '")]
    name = "wandb" if clients["mlflow"].named("set_terminated") else "mlflow"
    assert message == f"tracker '{name}' failed and gets nothing more; the run continues (no {broken} today)"


@pytest.mark.parametrize("name", ["wandb", "mlflow", "tensorbord"])
def test_trackers_without_a_client_are_refused(short, tmp_path, monkeypatch, name):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda module: None)
    message = "unknown tracker 'tensorbord'" if name == "tensorbord" else f"pip install 'anchor-jax\\[{name}\\]'"
    with pytest.raises(UserError, match=message):
        train(short, tmp_path / "run", trackers=(name,))
    with pytest.raises(UserError, match=message):
        Reporter((name,))
    assert not (tmp_path / "run").exists()


def test_training_pictures_are_of_any_images():
    drawn = TrainingPictures()
    for references, shape in ((None, (2, 8, 8, 1)), (np.zeros((2, 8, 4, 5), np.uint8), (2, 8, 4, 5))):
        with Image.open(io.BytesIO(drawn.examples(references, np.ones(shape, np.uint8)))) as image:
            assert image.format == "PNG"
    assert drawn.reliability(reliability_bins(np.array([0.5]), np.array([True]), 3), "test")
