"""Predictions and evaluation of a run from its workdir."""

import errno
import json
import os
import shutil

import matplotlib.image
import numpy as np
import pytest
from conftest import begun, tiny_config
from sklearn.metrics import accuracy_score, log_loss
from torchmetrics.classification import MulticlassCalibrationError

import anchor_jax as aj
from anchor_jax import UserError, data, evaluation
from anchor_jax.reporting import Reporter, write_report
from anchor_jax.reporting.comparison.methods import load
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import create_model
from anchor_jax.runtime.atomic_files import exclusive_lock
from anchor_jax.training.loop import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a tiny finished run, and a copy of its test set."""
    folder = tmp_path_factory.mktemp("trained")
    config = tiny_config(folder)
    train(config, folder / "run")
    return folder / "run", data.load("npz", "test", path=config.data.path)


def test_predictor_averages_over_the_references_of_the_run(trained):
    workdir, test = trained
    predictor = aj.load_predictor(workdir)
    answer = predictor(test.images, num_references=4)
    this_run = run_record.load(workdir)
    model, norm = create_model(this_run), this_run.config.data
    assert len(answer.probs) == len(test.images) == 40

    def normalized(images):
        return (images.astype(np.float32) / 255 - np.float32(norm.mean)) / np.float32(norm.std)

    logits = np.stack(
        [
            model.apply(
                predictor.variables,
                np.concatenate([np.broadcast_to(r, x.shape), x - r], axis=-1),
            )
            for x in [normalized(test.images)]
            for r in normalized(this_run.references[:4])
        ]
    )
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(answer.logits, logits.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answer.probs, probs.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answer.probs_std, probs.std(0, ddof=1), rtol=1e-3, atol=1e-5)


def test_predictor_does_not_depend_on_the_batch(trained):
    workdir, test = trained
    predictor = aj.load_predictor(workdir)
    whole = predictor(test.images)
    for rows in ([0], [3, 1], list(range(30, 40))):
        part = predictor(test.images[rows])
        for one, other in zip(part, whole, strict=True):
            np.testing.assert_allclose(one, other[rows], rtol=1e-4, atol=1e-5)


def test_predictor_with_one_reference_has_no_spread(trained):
    workdir, test = trained
    answer = aj.load_predictor(workdir)(test.images, num_references=1)
    assert answer.probs_std is None
    assert (answer.mutual_information == 0).all()


def test_predictor_of_a_standard_network_uses_no_references(tiny, tmp_path):
    tiny.anchoring.enabled = False
    train(tiny, tmp_path / "run")
    images = data.load("npz", "test", path=tiny.data.path).images
    answer = aj.load_predictor(tmp_path / "run")(images)
    assert answer.probs_std is None
    np.testing.assert_allclose(answer.probs.sum(-1), 1, rtol=1e-5)
    assert evaluation.evaluate(tmp_path / "run")["clean"].keys() == {"0"}


def test_load_predictor_takes_latest_best_or_step(trained):
    workdir, test = trained
    newest, third = aj.load_predictor(workdir), aj.load_predictor(workdir, 9)
    assert (newest(test.images).logits != third(test.images).logits).any()
    assert_scored = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    assert aj.load_predictor(workdir, "best")
    accuracy = (newest(test.images, 4).probs.argmax(-1) == test.labels).mean()
    assert assert_scored["test/accuracy"] == pytest.approx(accuracy)


def test_evaluate_matches_scikit_learn_and_torchmetrics(trained, capsys):
    import torch

    workdir, test = trained
    results = evaluation.evaluate(workdir, num_references=(1, 8), num_bins=20, report=Reporter())
    written = json.loads((workdir / "eval/metrics.json").read_text())
    assert {num: written["clean"][num] for num in ("1", "8")} == results["clean"]
    for num in (1, 8):
        probs = aj.load_predictor(workdir)(test.images, num).probs
        in_doubles = probs.astype(np.float64) / probs.sum(-1, dtype=np.float64, keepdims=True)
        found = results["clean"][str(num)]
        assert found["accuracy"] == pytest.approx(accuracy_score(test.labels, probs.argmax(-1)))
        assert found["nll"] == pytest.approx(log_loss(test.labels, in_doubles), rel=1e-4)
        for name, norm in (("ece", "l1"), ("rms_ece", "l2")):
            theirs = MulticlassCalibrationError(num_classes=3, n_bins=20, norm=norm)
            expected = float(theirs(torch.tensor(probs), torch.tensor(test.labels)))
            assert found[name] == pytest.approx(expected, abs=1e-5)
        assert {"brier", "smooth_ece", "mean_logits_accuracy", "mean_logits_ece"} <= found.keys()
    shown = capsys.readouterr().out
    assert "clean, 40 examples, step 12" in shown
    assert str(workdir / "eval") in shown.replace("\n", "")


def test_reporter_writes_the_report(trained, capsys):
    workdir, _ = trained
    evaluation.evaluate(workdir, num_references=(4,), report=Reporter())
    report = workdir / "eval/step12-bins15/report.html"
    assert "Clean test set" in report.read_text()
    assert str(report) in capsys.readouterr().out.replace("\n", "")
    pictures = list((report.parent / "pictures").glob("clean*.png"))
    assert pictures
    for file in pictures:
        assert matplotlib.image.imread(file)[..., :3].std() > 0.02


def test_evaluate_keeps_results_of_other_checkpoints(trained, capsys):
    workdir, _ = trained
    folder = workdir / "eval"
    newest = evaluation.evaluate(workdir, num_references=(2,))
    assert not capsys.readouterr().out, "only a reporter prints"
    older = evaluation.evaluate(workdir, num_references=(2,), step=9)
    assert newest["clean"]["2"] != older["clean"]["2"]
    assert json.loads((folder / "metrics.json").read_text())["clean"]["2"] == older["clean"]["2"]
    for step, numbers in ((12, newest), (9, older)):
        kept = json.loads((folder / f"step{step}-bins15/clean.json").read_text())
        assert kept["facts"]["step"] == step
        assert kept["results"]["2"] == numbers["clean"]["2"]


def test_evaluate_merges_numbers_of_references(trained):
    workdir, _ = trained
    evaluation.evaluate(workdir, num_references=(3,))
    evaluation.evaluate(workdir, num_references=(5,))
    assert {"3", "5"} <= json.loads((workdir / "eval/metrics.json").read_text())["clean"].keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"suites": ("claen",)}, r"unknown suite 'claen'; allowed: clean, .* Did you mean 'clean'"),
        ({"num_references": (0,)}, r"num_references must lie in 1..12"),
        ({"num_references": ()}, r"must each name at least one; got none"),
        ({"step": 0}, r"no checkpoint 0 in"),
        ({"num_bins": 0}, r"config.evaluation.num_bins must be in \[1, 10000\]; got 0"),
        ({"chunk_size": -1}, r"config.evaluation.chunk_size must be at least 0; got -1"),
        ({"step": 5}, r"no checkpoint 5 in .*there are: .*9, 12"),
        ({"step": "newest"}, r"no checkpoint newest in"),
    ],
)
def test_evaluate_rejects_invalid_arguments(trained, arguments, message):
    with pytest.raises(UserError, match=message):
        evaluation.evaluate(trained[0], **arguments)


def test_evaluate_rejects_folders_without_a_checkpoint(tiny, tmp_path):
    with pytest.raises(UserError, match=r"no run in .*no run\.json"):
        evaluation.evaluate(tmp_path / "nothing")
    begun(tiny, tmp_path / "begun")
    with pytest.raises(UserError, match=r"no checkpoint in .* train first"):
        evaluation.evaluate(tmp_path / "begun")


def test_evaluate_rejects_data_unlike_the_checkpoint(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    arrays = dict(np.load(tiny.data.path))
    np.savez(tiny.data.path, **arrays | {"y_test": arrays["y_test"] + 1, "y_train": arrays["y_train"] + 1})
    classes = r"classes of split 'test' are not among the run's 3: 3; the run has: 0, 1, 2"
    with pytest.warns(UserWarning, match="are 1..3 instead of 0..2"), pytest.raises(UserError, match=classes):
        evaluation.evaluate(tmp_path / "run")
    np.savez(tiny.data.path, **arrays | {"x_test": arrays["x_test"][:, :5]})
    with pytest.raises(UserError, match=r"are \[5, 6, 1\], but those of the training set are \[6, 6, 1\]"):
        evaluation.evaluate(tmp_path / "run")


def test_evaluate_rejects_corrupt_earlier_results(trained):
    workdir, _ = trained
    file = workdir / "eval/step12-bins7/clean.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{")
    with pytest.raises(UserError, match=r"step12-bins7/clean.json' is corrupt .*; move it away"):
        evaluation.evaluate(workdir, num_references=(2,), num_bins=7)
    assert file.read_text() == "{"


def test_evaluate_does_not_depend_on_chunk_size(trained):
    workdir, _ = trained
    whole = evaluation.evaluate(workdir, num_references=(7,), chunk_size=0)
    chunked = evaluation.evaluate(workdir, num_references=(7,), chunk_size=3)
    assert whole["clean"]["7"] == pytest.approx(chunked["clean"]["7"], rel=1e-4)


def test_evaluate_writes_a_profile(trained, capsys):
    workdir, _ = trained
    evaluation.evaluate(workdir, num_references=(2,), profile=True, report=Reporter())
    assert list((workdir / "profile").rglob("*.trace.json.gz"))
    assert f"profile: {workdir / 'profile'}" in capsys.readouterr().out


# data that have moved or changed, and folders that cannot be written


@pytest.fixture
def moved(trained, tmp_path, monkeypatch):
    """A copy of the run that was trained in `there/` on `there/tiny.npz`, seen from another folder."""
    workdir = shutil.copytree(trained[0], tmp_path / "run", ignore=shutil.ignore_patterns("eval", "profile"))
    (tmp_path / "there").mkdir()
    shutil.copy(run_record.load(workdir).config.data.path, tmp_path / "there/tiny.npz")
    record = json.loads((workdir / "run.json").read_text())
    record["config"]["data"]["path"], record["data_path"] = "tiny.npz", str(tmp_path / "there/tiny.npz")
    (workdir / "run.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    return workdir


def change(source, target, **arrays):
    """Write an .npz file with some arrays inverted."""
    target.parent.mkdir(exist_ok=True)
    np.savez(target, **{name: 255 - array if name in arrays else array for name, array in np.load(source).items()})


def test_evaluate_finds_the_data_of_a_relative_path(moved, tmp_path):
    expected = evaluation.evaluate(moved, num_references=(2,))
    shutil.move(tmp_path / "there", tmp_path / "new")
    message = r"cannot read .*if the data, which were at '.*there/tiny.npz' at training, have moved, .* --data_path"
    with pytest.raises(UserError, match=message):
        evaluation.evaluate(moved)
    assert evaluation.evaluate(moved, num_references=(2,), data_path="new/tiny.npz") == expected
    with pytest.raises(UserError, match=r"no data of the run at '.*nothing'; --data_path takes the place of"):
        evaluation.evaluate(moved, data_path="nothing")
    shutil.copy("new/tiny.npz", "tiny.npz")
    with pytest.warns(UserWarning, match=r"no longer at '.*there/tiny.npz'; those at '.*tiny.npz' are used"):
        assert evaluation.evaluate(moved, num_references=(2,)) == expected


@pytest.mark.parametrize(("suite", "option"), [("clean", "data"), ("shift", "shift")])
def test_profile_needs_only_what_is_evaluated(moved, tmp_path, suite, option):
    shutil.move(tmp_path / "there", tmp_path / "new")
    options = evaluation.Options(**{option: (f"npz:{tmp_path}/new/tiny.npz",)})
    evaluation.evaluate(moved, (suite,), (2,), options=options, profile=True)
    assert list((moved / "profile").rglob("*.trace.json.gz"))


def test_evaluate_keeps_results_on_other_data(moved, tmp_path, capsys):
    evaluation.evaluate(moved, num_references=(1, 2))

    def read(name):
        return json.loads((moved / "eval" / name).read_text())

    before, data_before = read("metrics.json"), read("data.json")
    change("there/tiny.npz", tmp_path / "there/tiny.npz", x_test=True)
    with pytest.warns(UserWarning, match="the test set, .*, is not the one that the run had at training"):
        evaluation.evaluate(moved, num_references=(2,))
    assert "clean: earlier results, measured on other data (tiny.npz test, 40 examples" in capsys.readouterr().out
    assert read("metrics.json")["clean"].keys() == {"2"}
    assert read("data.json")["clean"]["sha256"] != data_before["clean"]["sha256"]
    assert read("step12-bins15/earlier/1/clean.json")["results"] == before["clean"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": True}, r"the training set at 'b/x.npz' is not that of the run: it has 96 examples, sha256"),
        (None, r"cannot check that the data are those of training: no array 'x_train'"),
    ],
)
def test_evaluate_checks_moved_data_of_old_runs(moved, tmp_path, changes, message):
    record = json.loads((moved / "run.json").read_text())
    del record["data_path"], record["test_data"]
    (moved / "run.json").write_text(json.dumps(record))
    if changes:
        change("there/tiny.npz", tmp_path / "b/x.npz", **changes)
    else:
        (tmp_path / "b").mkdir()
        np.savez("b/x.npz", **{name: array for name, array in np.load("there/tiny.npz").items() if "test" in name})
    with pytest.warns(UserWarning, match=message):
        evaluation.evaluate(moved, num_references=(2,), data_path="b/x.npz")


def read_only(monkeypatch, folder):
    """Let a folder refuse to be written, also for the superuser."""
    opened = os.open

    def refuse(path, flags, *arguments, **options):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(folder) in os.path.abspath(os.fsdecode(path)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return opened(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)


@pytest.mark.parametrize("is_known", [True, False])
def test_evaluate_of_a_read_only_run_writes_to_out(moved, tmp_path, monkeypatch, is_known):
    if is_known:
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK or str(moved) not in str(path))
    read_only(monkeypatch, moved)
    before = sorted(moved.rglob("*"))
    with pytest.raises(UserError, match=r"cannot write to '.*/eval' \(.*\); give another folder .* as --out"):
        evaluation.evaluate(moved)
    if is_known:
        assert sorted(moved.rglob("*")) == before
    out = tmp_path / "out"
    results = evaluation.evaluate(moved, num_references=(2,), out=out, report=Reporter())
    assert json.loads((out / "metrics.json").read_text())["clean"]["2"] == results["clean"]["2"]
    assert (out / "step12-bins15/report.html").exists()
    assert len(evaluation.load_results(out)) == len(results["clean"]["2"])
    assert write_report(out) == out / "step12-bins15/report.html"
    assert load([out, out])[0].result("clean", 2).metrics == results["clean"]["2"]
    assert aj.load_predictor(moved)


def test_evaluate_rejects_an_out_with_other_content(moved, tmp_path):
    shutil.copytree(moved, tmp_path / "other")
    evaluation.evaluate(tmp_path / "other", num_references=(2,), out=tmp_path / "out")
    for out, message in (
        (moved, "holds something other than results"),
        (tmp_path / "there/tiny.npz", "is a file"),
        (tmp_path / "out", r"holds results of another run, '.*other'"),
    ):
        with pytest.raises(UserError, match=message):
            evaluation.evaluate(moved, out=out)
    with exclusive_lock(tmp_path / "locked"), pytest.raises(UserError, match="another process is writing to"):
        evaluation.evaluate(moved, num_references=(2,), out=tmp_path / "locked")
