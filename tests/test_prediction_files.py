"""Predictions of single images in files, parts of datasets, other labeled sets, and the progress of an evaluation."""

import itertools
import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
from digits import context_of, write_npz
from PIL import Image
from sklearn.metrics import accuracy_score, roc_auc_score
from torchmetrics.functional.classification import multiclass_calibration_error

from anchor_jax import UserError, data, evaluation
from anchor_jax.evaluation import SUITES, Options, prediction_files, progress, question, storage
from anchor_jax.evaluation.suites import find, title
from anchor_jax.reporting import Reporter, report, write_report

pytestmark = pytest.mark.filterwarnings("ignore:.*the logits are restricted")

NAMES = list("0123456789")


def folder_of(root, classes, num=100):
    """Write test images of some classes into one folder per class."""
    test = data.load("digits", "test")
    for row in np.flatnonzero(np.isin(test.labels, classes))[:num]:
        file = root / str(test.labels[row]) / f"{row:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(test.images[row, ..., 0]).save(file)
    return f"folder:{root}"


@pytest.fixture(scope="module")
def evaluated(digits_run, tmp_path_factory):
    """The folder with results of all suites whose predictions are recorded, and the options of two of the suites."""
    folder = tmp_path_factory.mktemp("evaluated")
    test = data.load("digits", "test")
    (folder / "C").mkdir()
    np.save(folder / "C/grain.npy", np.tile(255 - test.images, (5, 1, 1, 1)))
    np.save(folder / "C/labels.npy", np.tile(test.labels, 5))
    options = {"corruptions": (f"npy:{folder / 'C'}",), "shift": (folder_of(folder / "some", [3, 1, 7]),)}
    suites = ("clean", "corruptions", "shift", "ood")
    evaluation.evaluate(digits_run, suites, (1, 3), options=Options(**options), out=folder / "out", predictions=True)
    return folder / "out", options


def frame_of(folder, **columns):
    frame = pd.read_parquet(folder / "predictions.parquet")
    for name, value in columns.items():
        frame = frame[frame[name] == value]
    return frame


def ece(probs, labels, num_bins=15):
    probs = torch.tensor(probs.to_numpy())
    return multiclass_calibration_error(probs, torch.tensor(labels.to_numpy(int)), probs.shape[1], num_bins).item()


@pytest.mark.parametrize("num", [1, 3])
def test_scores_are_those_of_the_file(evaluated, num):
    folder, _ = evaluated
    metrics = json.loads((folder / "metrics.json").read_text())
    probs = [f"prob_{name}" for name in NAMES]
    frame = frame_of(folder, suite="clean", num_references=num)
    assert frame["row"].tolist() == list(range(360))
    assert accuracy_score(frame["label"], frame["predicted"]) == pytest.approx(metrics["clean"][str(num)]["accuracy"])
    assert ece(frame[probs], frame["label"]) == pytest.approx(metrics["clean"][str(num)]["ece"], abs=1e-5)
    np.testing.assert_allclose(frame[probs].max(axis=1), frame["confidence"])
    frame = frame_of(folder, suite="corruptions", num_references=num, set="C", corruption="grain", severity=4)
    assert ece(frame[probs], frame["label"]) == pytest.approx(metrics["corruptions"][str(num)]["grain/4/ece"], abs=1e-5)
    frame = frame_of(folder, suite="shift", num_references=num)
    known = ["prob_1", "prob_3", "prob_7"]
    assert frame[[name for name in probs if name not in known]].isna().all(axis=None)
    assert set(frame["label"]) == {1, 3, 7}
    assert (frame["file"].str.split("/").str[0] == frame["label_name"]).all()
    assert accuracy_score(frame["label"], frame["predicted"]) == pytest.approx(
        metrics["shift"][str(num)]["some/accuracy"]
    )
    frame = frame_of(folder, suite="ood", num_references=num)
    assert frame.loc[frame["anomaly"], "label"].isna().all()
    names = [name for name in prediction_files.SCORES if frame[name].notna().any()]
    assert ("spread" in names) == (num > 1)
    for name in names:
        found = roc_auc_score(frame["anomaly"].astype(bool), frame[name])
        assert found == pytest.approx(metrics["ood"][str(num)][f"photographs/{name}/auroc"])


def test_prediction_files_hold_the_same_rows(evaluated):
    folder, _ = evaluated
    binary = frame_of(folder)
    words = dict.fromkeys(("label_name", "predicted_name", "file"), str)
    text = pd.read_csv(folder / "predictions.csv", dtype=words)
    assert list(text) == list(binary)
    floats = [name for name in binary if binary[name].dtype == np.float32]
    np.testing.assert_allclose(text[floats], binary[floats], rtol=1e-6)
    others = [name for name in binary if name not in (*floats, "anomaly")]
    pd.testing.assert_frame_equal(text[others].astype(object), binary[others].astype(object), check_dtype=False)
    assert len(text) == 2 * (360 + 5 * 360 + len(frame_of(folder, suite="shift", num_references=1)) + 2 * 360)
    [inner] = folder.glob("*-bins15")
    for name in prediction_files.NAMES:
        assert (inner / name).read_bytes() == (folder / name).read_bytes()


def test_prediction_files_follow_the_results(digits_run, tmp_path, capsys, monkeypatch):
    def evaluate(*suites, num=1, **options):
        evaluation.evaluate(digits_run, suites, (num,), options=Options(**options), out=tmp_path / "out")
        return frame_of(tmp_path / "out").groupby("suite")["num_references"].unique().map(list).to_dict()

    other = write_npz(tmp_path / "other.npz", np.zeros((360, 8, 8, 1), np.uint8), np.arange(360) % 2, ["a", "b"])
    assert evaluate("clean", "ood") == {"clean": [1], "ood": [1]}
    assert evaluate("clean", num=3) == {"clean": [1, 3], "ood": [1]}
    assert evaluate("ood", ood=(other,)) == {"clean": [1, 3], "ood": [1]}
    [inner] = (tmp_path / "out").glob("step*")
    assert set(pd.read_parquet(inner / "earlier/1/ood-references1.parquet")["set"]) == {"digits", "photographs"}
    assert set(frame_of(tmp_path / "out", suite="ood")["set"]) == {"digits", "other"}
    (inner / "earlier/1/ood-references1.parquet").rename(inner / "ood-references1.parquet")  # older than the table
    assert evaluate("clean", num=3) == {"clean": [1, 3], "ood": [1]}
    assert set(frame_of(tmp_path / "out", suite="ood")["set"]) == {"digits", "photographs"}
    monkeypatch.setattr(report, "write_page", lambda *_: "page")
    capsys.readouterr()
    Reporter().evaluation_finished(inner, {}, {})
    size = prediction_files.format_bytes((tmp_path / "out/predictions.csv").stat().st_size)
    assert f"predictions.csv ({size})" in capsys.readouterr().out
    monkeypatch.setattr(prediction_files, "_UNASKED_BYTES", 1000)
    assert evaluate("clean", num=3) == {"clean": [1, 3], "ood": [1]}
    expected = "predictions: predictions.csv would have 360 rows, about 108.0 kB, and is not written; --predictions"
    assert expected in capsys.readouterr().out
    (inner / "clean-references1.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"clean-references1.parquet' is corrupt .*; move it away"):
        evaluate("clean")


def test_limit_keeps_results_apart(digits_run, evaluated, capsys, monkeypatch):
    folder, options = evaluated
    before = {file: file.read_bytes() for file in folder.rglob("*.*")}

    def limited(*suites, seed=0):
        given = Options(**options, limit=150, seed=seed)
        return evaluation.evaluate(digits_run, suites, (3,), options=given, out=folder)

    found = limited("clean", "corruptions", "shift", "ood")
    printed = capsys.readouterr().out.splitlines()
    assert {"limit 150, test: 150 of 360 images", "limit 150, each part of C: 150 of 360 images"} <= set(printed)
    assert "limit 150, some: the whole set, 100 images" in printed
    assert {file: file.read_bytes() for file in before} == before
    [inner] = folder.glob("*-limit150")
    assert json.loads((inner / "metrics.json").read_text()) == found
    facts = json.loads((inner / "clean.json").read_text())["facts"]
    assert (facts["data"]["num_examples"], facts["options"]["limit"], facts["options"]["seed"]) == (150, 150, 0)
    whole = pd.read_parquet(folder / "predictions.parquet")
    part = pd.read_parquet(inner / "predictions.parquet")
    keys = ["suite", "num_references", "set", "corruption", "severity", "row"]
    both = part.merge(whole, on=keys, suffixes=("", "_of_all"))
    assert len(both) == len(part) == 150 * (1 + 5 + 2) + 100
    np.testing.assert_allclose(both["energy"], both["energy_of_all"], rtol=1e-4)
    same = part[part["suite"].isin(["clean", "corruptions"])].fillna({"severity": 0}).groupby("severity")["row"]
    assert len(set(same.apply(tuple))) == 1
    limited("clean", seed=1)
    printed = capsys.readouterr().out
    assert "clean: earlier results, measured with other options, were moved to" in printed
    assert "; they were also measured on other data (digits test, 150 examples, sha256" in printed
    assert evaluation.load_results(folder).equals(pd.read_parquet(folder / "results.parquet"))
    assert set(evaluation.load_results(folder, limit=150)["limit"]) == {150}
    monkeypatch.setattr(report, "draw_figures", lambda *_: [])
    assert "at most 150 images of each dataset" in write_report(folder, limit=150).read_text()


def test_limit_beyond_all_sets_is_no_limit(digits_run, tmp_path, capsys):
    whole = evaluation.evaluate(digits_run, num_references=(2,), out=tmp_path / "out")
    capsys.readouterr()
    found = evaluation.evaluate(digits_run, num_references=(2,), options=Options(limit=360), out=tmp_path / "out")
    assert found == whole
    assert capsys.readouterr().out == "limit 360, test: the whole set, 360 images\n"
    assert [folder.name for folder in (tmp_path / "out").glob("step*")] == ["step210-bins15"]


def test_limit_tells_datasets_of_one_name_apart(digits_run, tmp_path, capsys):
    context = context_of(digits_run, limit=30)
    for num in (60, 20, 60):
        context.open(folder_of(tmp_path / f"{num}/some", [3, 1, 7], num))
    assert context.is_limited
    printed = ["limit 30, some: 30 of 60 images", "limit 30, some: the whole set, 20 images"]
    assert capsys.readouterr().out.splitlines() == printed


def test_limit_reaches_every_suite(digits_run, capsys):
    options = {"probe": ("digits",), "shift": ("digits",), "blt_references": 5, "conformal_calibration": "held_out"}
    context = context_of(digits_run, limit=30, **options)
    for suite in SUITES.values():
        for prepared in suite.prepare_all(context).values():
            facts = question.data_facts(context, suite.datasets(context, prepared))
            assert {each["num_examples"] for each in facts.get("sets", [facts])} == {30}
    assert context.is_limited
    assert capsys.readouterr().out.count("limit 30, test: 30 of 360 images") == 1


def test_data_measures_other_sets_under_their_names(digits_run, tmp_path):
    whole = evaluation.evaluate(digits_run, num_references=(2,), out=tmp_path / "out")
    test = data.load("digits", "test")
    copy = write_npz(tmp_path / "copy.npz", test.images[::-1], test.labels[::-1], NAMES)
    given = Options(data=(copy, folder_of(tmp_path / "some", [3, 1, 7])))
    with pytest.warns(UserWarning, match="'some' has 3 of the run's 10 classes; the logits are restricted to them"):
        found = evaluation.evaluate(digits_run, num_references=(2,), options=given, out=tmp_path / "out")
    assert found["clean@copy"]["2"] == pytest.approx(whole["clean"]["2"], rel=1e-4)
    probs = frame_of(tmp_path / "out", suite="clean", set="some")[["prob_1", "prob_3", "prob_7"]].to_numpy()
    labels = frame_of(tmp_path / "out", suite="clean", set="some")["label"]
    accuracy = np.mean(np.array([1, 3, 7])[probs.argmax(1)] == labels)
    assert found["clean@some"]["2"]["accuracy"] == pytest.approx(accuracy)
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)
    written = json.loads((tmp_path / "out/metrics.json").read_text())
    assert written == whole | found
    frame = evaluation.load_results(tmp_path / "out")
    assert set(frame["dataset"].dropna()) == {"copy", "some"}
    [inner] = (tmp_path / "out").glob("step*")
    stored = storage.read(inner)["clean@some"]
    [certain] = [each for each in find("clean@some").figures(stored, {}) if each.name == "certain"]
    captions = [text.split("\n")[0] for strip in certain.plot.strips.values() for text in strip.captions]
    assert set(captions) <= {"1", "3", "7"}
    assert title("clean-blt@some") == "Clean metrics: some, with transduction (BLT)"


@pytest.mark.parametrize(
    ("suites", "given", "message"),
    [
        (("ood",), "digits", "--data are for the suite clean; add it to --suites, or omit --data"),
        (("clean",), "images:.", "'images:.' has no labels; give a labeled dataset"),
        (("clean",), "photographs", "2 of the 2 classes of 'photographs' are not among the run's 10: china, flower"),
    ],
)
def test_data_rejects_what_it_cannot_measure(digits_run, tmp_path, suites, given, message):
    with pytest.raises(UserError, match=message):
        evaluation.evaluate(digits_run, suites, (2,), options=Options(data=(given,)), out=tmp_path / "out")


def test_progress_in_a_log_tells_the_time_left(digits_run, tmp_path, capsys, monkeypatch):
    seconds = itertools.count(0, 2)
    monkeypatch.setattr(progress, "monotonic", lambda: next(seconds))
    evaluation.evaluate(digits_run, ("clean", "ood"), (1, 3), out=tmp_path / "out")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "progress: 6%, 0:32 left: clean: test, 1 reference"
    assert lines[-1].startswith("progress: done in 0:")
    assert "progress: 100%, 0:00 left: ood: photographs, 3 references" in lines


def test_names_that_are_no_text_are_escaped(digits_run, tmp_path):
    folder, out = tmp_path / os.fsdecode(b"caf\xe9"), tmp_path / "out"
    folder.mkdir()
    for name in (b"\xff.png", b"b.png"):
        Image.new("L", (8, 8)).save(folder / os.fsdecode(name))
    options = Options(ood=(f"images:{folder}",))
    evaluation.evaluate(digits_run, ("ood",), (1,), options=options, out=out, predictions=True, report=Reporter())
    assert "caf\\udce9/\\udcff.png" in {f"{row.set}/{row.file}" for row in frame_of(out).itertuples()}
    assert "caf\\udce9" in set(pd.read_parquet(out / "results.parquet")["dataset"])
    files = (out / "results.csv", next(out.glob("*/report.html")))
    assert all("caf\\udce9" in file.read_text() for file in files)
