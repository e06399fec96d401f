"""What all suites have in common: options, checks before anything is measured, results of earlier evaluations."""

import dataclasses
import json

import jax
import numpy as np
import pandas as pd
import pytest
from digits import context_of, measured, write_npz

from anchor_jax import UserError, data, evaluation
from anchor_jax.evaluation import SUITES, Options, progress, storage
from anchor_jax.reporting import Reporter
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import load_checkpoint
from anchor_jax.training.loop import train


def test_evaluate_rejects_unsuitable_runs_before_measuring(tiny, tmp_path):
    train(tiny, tmp_path / "run")
    with pytest.raises(UserError, match=r"images must have at least 8 x 8 pixels; got \[6, 6\]"):
        evaluation.evaluate(tmp_path / "run", ("clean", "corruptions"))
    assert not (tmp_path / "run/eval").exists()
    with pytest.raises(UserError, match=r"held out none; train with --config\.data\.validation_fraction=0\.1"):
        evaluation.evaluate(tmp_path / "run", options=Options(temperature_scaling=True))


@pytest.mark.parametrize(
    ("suite", "options", "message"),
    [
        ("shift", {}, r"suite 'shift' needs datasets with the run's classes; give them as --shift"),
        ("probe", {}, r"suite 'probe' needs a dataset to fit; give it as --probe"),
        ("ood", {"ood": ("photographs", "photographs")}, r"got 'photographs' twice"),
        (
            "probe",
            {"probe": ("digits@train",)},
            r"on the same images of 'digits@train'; give a dataset with the splits",
        ),
        ("probe", {"probe": ("photographs",)}, r"on the same images of 'photographs'"),
        ("ood", {"ood": ("nowhere",)}, r"unknown dataset 'nowhere'; allowed: tfds:NAME"),
        ("shift", {"shift": ("digits@valid",)}, r"unknown split of digits 'valid'"),
        ("corruptions", {"corruptions": ()}, r"suite 'corruptions' needs a set"),
        ("corruptions", {"corruptions": ("generated", "generated")}, r"got twice: brightness, contrast"),
        ("corruptions", {"corruptions": ("digits",)}, r"unknown corrupted set 'digits'; allowed: tfds:NAME"),
    ],
)
def test_suites_name_the_options_they_need(digits_run, suite, options, message):
    with pytest.raises(UserError, match=message):
        evaluation.evaluate(digits_run, (suite,), (2,), options=Options(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be at least 0; got -1"),
        ({"draws": 0}, "draws must be at least 1; got 0"),
        ({"blt_references": -1}, "blt_references must be at least 0; got -1"),
        ({"probe_mask_prob": 1.5}, r"probe_mask_prob must be in \[0, 1\]; got 1.5"),
        ({"protocol": "bls"}, r"unknown protocol 'bls'; allowed: blt, random. Did you mean 'blt'"),
    ],
)
def test_options_reject_values_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        Options(**options)


def test_probe_rejects_a_class_without_examples_before_measuring(digits_run, tmp_path):
    images = {f"x_{split}": np.full((2, 8, 8, 1), value, np.uint8) for split, value in (("train", 1), ("test", 2))}
    np.savez(tmp_path / "few.npz", y_train=[0, 1], y_test=[0, 1], label_names=["a", "b", "c"], **images)
    context = context_of(digits_run, probe=(f"npz:{tmp_path / 'few.npz'}",))
    with pytest.raises(UserError, match=r"'few' has no examples of 1 of its classes; give a dataset with all"):
        SUITES["probe"].prepare(context)


def test_suites_reject_datasets_named_like_a_group(digits_run, tmp_path):
    spec = write_npz(tmp_path / "near.npz", np.zeros((4, 8, 8, 1), np.uint8), [0, 1, 0, 1], ["a", "b"])
    with pytest.raises(UserError, match=r"must not be far, in, near; got 'near'; rename or link"):
        evaluation.evaluate(digits_run, ("ood",), (2,), options=Options(ood=(spec,)))


def test_evaluate_moves_results_with_other_options_away(digits_run, tmp_path, capsys):
    test = data.load("digits", "test")
    flipped = write_npz(tmp_path / "flipped.npz", test.images[:50, ::-1], test.labels[:50], list("0123456789"))
    folder = digits_run / "eval" / f"step{load_checkpoint(run_record.load(digits_run), 'latest')[0]}-bins15"
    first = evaluation.evaluate(digits_run, ("ood",), (2, 3))
    evaluation.evaluate(digits_run, ("ood",), (2,), options=Options(ood=("photographs",)))
    before = (folder / "ood.json").read_bytes()
    capsys.readouterr()
    evaluation.evaluate(digits_run, ("ood",), (2,), options=Options(ood=(flipped,)))
    earlier = sorted((folder / "earlier").iterdir(), key=lambda place: int(place.name))
    printed = capsys.readouterr().out.replace("\n", "")
    assert f"ood: earlier results, measured with other options, were moved to {earlier[-1]}" in printed
    assert (earlier[-1] / "ood.json").read_bytes() == before
    kept = storage.read(earlier[-2])["ood"]
    assert {str(num): of.metrics for num, of in kept.items()} == first["ood"]
    assert kept[3].arrays["in/entropy"].shape == (360,)
    assert storage.read(folder)["ood"].keys() == {2}


@pytest.mark.parametrize(
    "suite", ["clean", "corruptions", "ood", "conformal", "protocols", "reference_use", "probe", "landscape"]
)
def test_suites_reject_diverged_checkpoints(digits_run, suite):
    context = context_of(digits_run, probe=("digits",))
    nothing = jax.tree.map(lambda leaf: leaf * np.nan, context.predictor.variables)
    context = dataclasses.replace(context, predictor=dataclasses.replace(context.predictor, variables=nothing))
    with pytest.raises(UserError, match=r"NaN or infinite: the checkpoint has diverged"):
        measured(context, suite, 2)


def test_evaluate_reports_results_before_an_interruption(digits_run, monkeypatch):
    def interrupted(prepared, num_references):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation.SUITES["protocols"], "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(digits_run, ("clean", "protocols"), (2,), num_bins=9, report=Reporter())
    folder = next((digits_run / "eval").glob("step*-bins9"))
    assert "Clean test set" in (folder / "report.html").read_text()
    assert json.loads((digits_run / "eval/metrics.json").read_text()).keys() == {"clean"}
    assert set(pd.read_parquet(folder / "results.parquet")["suite"]) == {"clean"}


def test_evaluate_opens_datasets_once_for_all_references(digits_run, monkeypatch):
    opened = []
    prepare = evaluation.SUITES["ood"].prepare
    monkeypatch.setattr(evaluation.SUITES["ood"], "prepare", lambda context: opened.append(1) or prepare(context))
    evaluation.evaluate(digits_run, ("ood",), (1, 2, 3))
    assert len(opened) == 1


def test_evaluate_reads_no_results_back(digits_run, monkeypatch):
    """Files of an evaluation are read before it begins, and not after."""
    reads = []
    read = storage.read
    monkeypatch.setattr(storage, "read", lambda folder: reads.append(folder) or read(folder))
    measure = evaluation.SUITES["clean"].measure
    monkeypatch.setattr(evaluation.SUITES["clean"], "measure", lambda *arguments: reads.clear() or measure(*arguments))
    evaluation.evaluate(digits_run, ("clean",), (2,), report=Reporter())
    assert reads == []


def test_evaluate_keeps_the_config_of_the_run(digits_run):
    recorded = run_record.load(digits_run).config.evaluation
    evaluation.evaluate(digits_run, ("clean",), (2,), num_bins=11, chunk_size=1, report=Reporter())
    folder = next((digits_run / "eval").glob("step*-bins11"))
    written = json.loads((folder / "report.json").read_text())
    assert written["run"]["config"]["evaluation.num_bins"] == recorded.num_bins == 15
    assert written["run"]["config"]["evaluation.chunk_size"] == recorded.chunk_size
    facts = written["suites"]["clean"]["facts"]
    assert (facts["num_bins"], facts["chunk_size"]) == (11, 1)


def test_suites_have_options_with_help():
    fields = {field.name: field for field in dataclasses.fields(Options)}
    for suite in evaluation.SUITES.values():
        for field in dataclasses.fields(suite.options):
            assert fields[field.name].default == field.default
            assert field.metadata["help"].endswith(".")
    assert all(f"{name}: " in Options.__doc__ for name in fields)


def test_load_results_returns_all_checkpoints_in_long_form(digits_run):
    found = evaluation.evaluate(digits_run, ("clean", "landscape"), (2,), num_bins=13)
    frame = evaluation.load_results(digits_run)
    rows = frame[(frame["num_bins"] == 13) & (frame["metric"] == "accuracy") & (frame["prediction"] == "mean_probs")]
    values = dict(zip(rows["suite"], rows["value"], strict=True))
    assert values == {suite: found[suite]["2"]["accuracy"] for suite in ("clean", "landscape")}
    assert evaluation.load_results(digits_run / "nothing").empty


class Bars:
    """Stands in for the progress bars of rich: the total and the advance of each bar that was shown."""

    def __init__(self):
        self.shown = []

    def __call__(self, **_):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def add_task(self, _, total):
        self.shown.append([total, 0])
        return len(self.shown) - 1

    def update(self, task, description=None, total=None):
        self.shown[task][0] = total or self.shown[task][0]

    def advance(self, task, num):
        self.shown[task][1] += num


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setattr(progress, "Progress", bars := Bars())
    return bars


@pytest.mark.parametrize("suite", ["corruptions", "shift", "ood", "protocols", "probe"])
def test_one_bar_covers_all_of_a_suite(digits_run, tmp_path, bars, suite):
    test = data.load("digits", "test")
    np.save(tmp_path / "grain.npy", np.tile(255 - test.images[:50], (5, 1, 1, 1)))
    np.save(tmp_path / "labels.npy", np.tile(test.labels[:50], 5))
    sets = {"corruptions": (f"npy:{tmp_path}",), "shift": ("digits",), "probe": ("digits",), "draws": 2}
    context = context_of(digits_run, **sets, blt_references=20)
    prepared = SUITES[suite].prepare(context)
    bars.shown.clear()
    with progress.progress_bar(suite, SUITES[suite].num_predictions(prepared, 2)):
        SUITES[suite].measure(prepared, 2)
    [(total, done)] = bars.shown
    assert total == done > 0


def test_one_bar_covers_all_suites_and_references(digits_run, bars):
    options = Options(temperature_scaling=True)
    evaluation.evaluate(digits_run, ("clean", "ood"), (1, 3), options=options)
    held_out = context_of(digits_run).held_out.num_examples
    total = 4 * held_out + 360 * (4 + 2 * 4)
    assert bars.shown == [[total, total]]


def test_bar_grows_by_what_a_suite_did_not_count(digits_context, bars):
    with progress.progress_bar("", 360), progress.progress_bar("own", 0):
        digits_context.predict(digits_context.test, 2)
    assert bars.shown == [[360 + 2 * 360, 2 * 360]]
