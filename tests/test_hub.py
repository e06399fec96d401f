"""Models on the Hugging Face Hub, here a stub: what is pushed gives the same bits when it is loaded."""

import json
import shutil

import hub_stub
import numpy as np
import pages
import pytest
import yaml
from commands import assert_error, quick_command
from conftest import assert_same_bits
from huggingface_hub import constants
from test_export import untrained_run

import anchor_jax as aj
from anchor_jax.core.errors import UserError
from anchor_jax.export import write
from anchor_jax.reporting.model_card import model_card
from anchor_jax.runs import hub, published
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import load_predictor
from anchor_jax.training.loop import train

IMAGES = np.random.default_rng(5).integers(0, 256, (7, 6, 6, 1)).astype(np.uint8)
METRICS = {"clean": {"1": {"accuracy": 0.5, "ece": 0.25}, "4": {"accuracy": 0.75, "fog/3/nll": 1.5}, "data": {}}}


@pytest.fixture(scope="module")
def stub():
    with hub_stub.serving() as server:
        yield server


@pytest.fixture(scope="module")
def push(stub, tmp_path_factory):
    """Return a function that runs the command `push` in a process that knows the stub only."""
    folder = tmp_path_factory.mktemp("hf")

    def run(*arguments, **environment):
        variables = {"HF_ENDPOINT": stub.address, "HF_TOKEN": hub_stub.TOKEN, "HF_HOME": str(folder)}
        return quick_command("-m", "anchor_jax", "push", *arguments, **(variables | environment))

    return run


@pytest.fixture
def at_stub(stub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", stub.address)
    template = stub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", hub_stub.TOKEN)


@pytest.fixture(scope="module")
def workdir(exported, tmp_path_factory):
    """Return a copy of a trained run whose only checkpoint is evaluated."""
    without_results = shutil.ignore_patterns("eval")  # other tests may have evaluated the run
    folder = shutil.copytree(exported.workdir, tmp_path_factory.mktemp("pushed") / "run", ignore=without_results)
    record = json.loads((folder / "run.json").read_text())
    record["config"]["data"]["classes"] = str(folder / "classes.txt")
    (folder / "run.json").write_text(json.dumps(record))
    evaluated = folder / "eval/step3-bins15"
    evaluated.mkdir(parents=True)
    (evaluated / "metrics.json").write_text(json.dumps(METRICS))
    return folder


@pytest.fixture(scope="module")
def pushed(push, workdir):
    return push(f"--workdir={workdir}", "--license=apache-2.0", "me/tiny")


def test_pushed_model_loads_with_the_same_bits(pushed, stub, at_stub, workdir, tmp_path):
    assert (pushed.returncode, pushed.stderr) == (0, "")
    assert "pushed step 3, with 12 images of the training set as references, to http" in pushed.stdout
    predictor, original = aj.load_predictor("hf://me/tiny"), aj.load_predictor(workdir)
    assert_same_bits(predictor(IMAGES), original(IMAGES))
    assert (predictor.label_names, predictor.preprocess) == (original.label_names, original.preprocess)
    stub.models["me/c10"] = stub.models["me/tiny"]
    guide = pages.section((pages.DOCS / "export.md").read_text(), "Hugging Face Hub")
    assert_same_bits(pages.run(guide, "export.md")["predictor"](IMAGES), original(IMAGES))
    assert_same_bits(aj.load_predictor("hf://me/tiny@v1")(IMAGES), original(IMAGES))
    write.export(hub.download(hub.Address("me/tiny", None)), tmp_path / "run.zip")  # it serves as a workdir
    np.testing.assert_allclose(aj.load_exported(tmp_path / "run.zip")(IMAGES).probs, original(IMAGES).probs, atol=1e-6)


def test_pushed_files_hold_neither_code_nor_paths(pushed, stub, workdir):
    assert pushed.returncode == 0
    (files,) = stub.models["me/tiny"]
    assert files.keys() == {"README.md", "metrics.json", "model.safetensors", "references.npz", "run.json"}
    config = json.loads(files["run.json"])["config"]
    assert config["data"]["path"] == "tiny.npz"
    assert not [name for name, content in files.items() if str(workdir.parents[1]).encode() in content]


def test_model_card_is_written_from_metrics_json(pushed, stub):
    assert pushed.returncode == 0
    _, front_matter, body = stub.models["me/tiny"][0]["README.md"].decode().split("---\n", 2)
    metadata = yaml.safe_load(front_matter)
    assert (metadata["license"], metadata["pipeline_tag"]) == ("apache-2.0", "image-classification")
    assert (metadata["library_name"], metadata["metrics"]) == ("anchor-jax", ["accuracy", "ece"])
    (result,) = metadata["model-index"][0]["results"]
    assert [metric["value"] for metric in result["metrics"]] == [0.5, 0.25, 0.75]
    for line in ("|  | 1 reference | 4 references |", "| fog 3 NLL ↓ |  | 1.5000 |", "with the model, as images"):
        assert line in body
    assert 'aj.load_predictor("hf://me/tiny")' in body


@pytest.mark.parametrize(("mask_per", "masked"), [("batch", "batches"), ("group", "groups"), ("example", "images")])
def test_model_card_states_masks_and_the_test_set(workdir, mask_per, masked):
    run = run_record.load(workdir)
    run.config.anchoring.mask_per = mask_per
    suites = ("clean", "clean-blt", "clean@photos", "shift", "shift-blt", "probe", "corruptions")
    metrics = {suite: {"1": {"accuracy": 0.01 * row}} for row, suite in enumerate(suites)}
    card = model_card(run, 3, "me/tiny", "mit", metrics)
    results = yaml.safe_load(card.split("---\n", 2)[1])["model-index"][0]["results"]
    assert [metric["value"] for of in results for metric in of["metrics"]] == [0.0, 0.01, 0.06]
    assert f"| masked references | 0.5 of the {masked} |" in card
    assert all(f"**{suite}**" in card for suite in suites)


def test_push_of_a_standard_run_needs_no_evaluation(push, at_stub, tmp_path):
    run, predictor = untrained_run(tmp_path, anchored=False)
    (tmp_path / "published").mkdir()
    published.write(tmp_path / "published", run_record.load(run.workdir), 5, predictor.variables)
    done = push(f"--workdir={tmp_path / 'published'}", "--private", "me/standard")
    assert done.returncode == 0, done.stderr
    assert "step 5 is not evaluated; its card has no numbers" in done.stdout
    assert_same_bits(load_predictor("hf://me/standard")(IMAGES), predictor(IMAGES))


@pytest.mark.parametrize(
    ("name", "environment", "status", "message"),
    [
        ("tiny", {}, 1, "the name of a model on the Hub is ORG/NAME; got 'tiny'"),
        ("me/new", {"HF_TOKEN": ""}, 1, "no token for the Hub; run hf auth login"),
        ("me/new", {"HF_TOKEN": "hf_reads"}, 1, "the token may not write to 'me/new' on http"),
        ("me/new", {"HF_ENDPOINT": "http://127.0.0.1:9"}, 1, "cannot reach 'me/new' on http://127.0.0.1:9"),
    ],
)
def test_push_reports_what_the_hub_refuses_in_one_line(name, environment, status, message, push, workdir, stub):
    assert_error(push(f"--workdir={workdir}", name, **environment), status, message)
    assert "me/new" not in stub.models


@pytest.mark.parametrize(
    ("address", "step", "message"),
    [
        ("hf://me", None, "a model on the Hub is hf://ORG/NAME or hf://ORG/NAME@REVISION; got 'hf://me'"),
        ("hf://me/absent", None, "no model 'me/absent' on http"),
        ("hf://me/tiny@v9", None, "'me/tiny' on http.* has no branch, tag or commit 'v9'"),
        ("hf://me/tiny", 7, "a published model has one checkpoint; here it is step 3; got 7"),
        ("hf://me/other", None, "holds no model that anchor-jax push has written"),
    ],
)
def test_load_predictor_explains_a_missing_model(address, step, message, pushed, stub, at_stub):
    assert pushed.returncode == 0
    stub.models["me/other"] = [{"config.json": b"{}"}]
    with pytest.raises(UserError, match=message) as error:
        load_predictor(address, step)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("anchored", [True, False])
def test_published_run_rejects_other_weights(anchored, tmp_path):
    run, predictor = untrained_run(tmp_path, anchored=anchored)
    run, folder = run_record.load(run.workdir), tmp_path / "published"
    folder.mkdir()
    published.write(folder, run, 5, predictor.variables)
    assert_same_bits(load_predictor(folder, 5)(IMAGES), predictor(IMAGES))
    with pytest.raises(UserError, match="a published model, which has no checkpoint to resume from"):
        train(run.config, folder)
    for content, message in ((b"", "cannot read"), (predictor.variables["batch_stats"], "does not fit the model")):
        if isinstance(content, bytes):
            (folder / published.WEIGHTS).write_bytes(content)
        else:
            published.write(folder, run, 5, {"batch_stats": content})
        with pytest.raises(UserError, match=message):
            load_predictor(folder)
