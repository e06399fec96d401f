"""The suite conformal: thresholds and sets by hand, what is never evaluated, and its tables and figures."""

import dataclasses
import re

import numpy as np
import pytest
from digits import context_of, logits_by_hand, measured, write_npz
from scipy.special import softmax

from anchor_jax import UserError, data, evaluation
from anchor_jax.evaluation import SUITES, Options
from anchor_jax.evaluation.conformal_sets import SCORES, stratified_halves
from anchor_jax.reporting import Reporter

NAMES = list("0123456789")


def shifted(tmp_path, num=100):
    test = data.load("digits", "test")
    return write_npz(tmp_path / "flipped.npz", test.images[:num, ::-1], test.labels[:num], NAMES)


def corrupted(folder, order=slice(None)):
    """Write noisy versions of the test images at five severities, in an order."""
    test = data.load("digits", "test")
    noise = np.random.default_rng(0).normal(size=(5, *test.images.shape)) * 15 * np.arange(1, 6).reshape(5, 1, 1, 1, 1)
    worse = np.clip(test.images + noise, 0, 255).astype(np.uint8)[:, order]
    folder.mkdir()
    np.save(folder / "grain.npy", np.concatenate(worse))
    np.save(folder / "labels.npy", np.tile(test.labels[order], 5))
    return f"npy:{folder}", worse


def scores_by_hand(context, images):
    logits = logits_by_hand(context, images, context.run.references[:3])
    probs = softmax(logits, axis=-1)
    scores = 1 - probs.mean(axis=0)
    return {"lac": scores, "lac_spread": scores / (probs.std(axis=0, ddof=1).sum(axis=-1, keepdims=True) + 0.1)}


def test_conformal_sets_are_those_by_hand(digits_run, tmp_path):
    spec, worse = corrupted(tmp_path / "noisy")
    context = context_of(digits_run, corruptions=(spec,), shift=(shifted(tmp_path),), seed=4, conformal_coverage=0.8)
    assert context.options.conformal_severities == (1, 3, 5)  # by default: fewer predictions
    result = measured(context, "conformal", 3)
    test = data.load("digits", "test")
    first, second = stratified_halves(test.labels, 4)
    np.testing.assert_array_equal(result.arrays["row"], second)
    assert not set(first) & set(second)
    assert np.abs(np.bincount(test.labels[first]) - np.bincount(test.labels[second])).max() <= 1
    calibrating, rank = scores_by_hand(context, test.images[first]), int(np.ceil(181 * 0.8))
    evaluated = {
        (): (test.images[second], test.labels[second]),
        ("grain", 3): (worse[2][second], test.labels[second]),
        ("flipped",): (test.images[:100, ::-1], test.labels[:100]),
    }
    for name in calibrating:
        threshold = np.sort(calibrating[name][np.arange(180), test.labels[first]])[rank - 1]
        assert result.facts["thresholds"][name] == pytest.approx(threshold, rel=1e-4)
        for place, (images, labels) in evaluated.items():
            sets = scores_by_hand(context, images)[name] <= threshold * (1 + 1e-6)
            start = "/".join(map(str, (*place, name)))
            covered = sets[np.arange(len(labels)), labels]
            assert result.metrics[f"{start}/coverage"] == pytest.approx(covered.mean(), abs=1e-2)
            assert result.metrics[f"{start}/set_size"] == pytest.approx(sets.sum(axis=1).mean(), abs=2e-2)
            assert result.metrics[f"{start}/singletons"] == pytest.approx((sets.sum(axis=1) == 1).mean(), abs=1e-2)
    for name in SCORES:
        severities = [result.metrics[f"severity{s}/{name}/coverage"] for s in (1, 3, 5)]
        assert severities == [result.metrics[f"grain/{s}/{name}/coverage"] for s in (1, 3, 5)]
        assert result.metrics[f"corruptions/{name}/coverage"] == pytest.approx(np.mean(severities))
        assert abs(result.metrics[f"{name}/coverage"] - 0.8) < 4.5 * np.sqrt(0.8 * 0.2 * 2 / 180)
        assert result.arrays[f"{name}_size"].mean() == pytest.approx(result.metrics[f"{name}/set_size"])
    again = measured(context_of(digits_run, corruptions=(), seed=4, conformal_coverage=0.8), "conformal", 3)
    assert again.metrics.items() <= result.metrics.items()  # the random parts do not depend on the other sets
    suite = SUITES["conformal"]
    assert [table.rows[:2] for table in suite.tables({3: result})][1:] == [["test set", "corruptions, severity 1"]] * 2
    assert [len(figure.plot.panels) for figure in suite.figures({3: result}, {})] == [2, 2]
    assert suite.highlights(result)[0].value == min(result.metrics[f"{name}/set_size"] for name in SCORES)


def test_conformal_calibrates_on_held_out_data(digits_run):
    context = context_of(digits_run, corruptions=(), conformal_calibration="held_out")
    result = measured(context, "conformal", 1)
    _, held_out = data.load_train(context.run.config.data, context.run.config.seed)
    probs = softmax(logits_by_hand(context, held_out.images, context.run.references[:1])[0], axis=-1)
    scores = 1 - probs[np.arange(len(probs)), held_out.labels]
    expected = np.sort(scores)[int(np.ceil((len(scores) + 1) * 0.9)) - 1]
    assert result.facts["thresholds"]["lac"] == pytest.approx(expected, rel=1e-3)
    assert result.facts["num_examples"] == 360
    assert result.facts["calibration_examples"] == len(held_out.labels)
    assert result.facts["scores"].keys() == {"lac", "aps", "raps"}  # one reference has no spread


def test_conformal_limits_what_calibrates(digits_run, capsys):
    context = context_of(digits_run, corruptions=(), conformal_calibration="held_out", limit=50)
    prepared = SUITES["conformal"].prepare(context)
    assert prepared.calibration.num_examples == prepared.test.num_examples == 50
    assert "limit 50, held-out training data: 50 of " in capsys.readouterr().out


def test_conformal_tells_of_corrupted_sets_in_another_order(digits_run, tmp_path, capsys):
    """It also evaluates the severities that are asked for, and says which."""
    spec, _ = corrupted(tmp_path / "noisy", order=slice(None, None, -1))
    with pytest.warns(UserWarning, match="^'noisy' has its images in another order than the test set, so all"):
        result = measured(context_of(digits_run, corruptions=(spec,), conformal_severities=("4", 2)), "conformal", 1)
    assert {name for name in result.metrics if re.fullmatch("grain/./lac/coverage", name)} == {
        "grain/2/lac/coverage",
        "grain/4/lac/coverage",
    }
    table, *_ = SUITES["conformal"].tables({1: result})
    assert "Corruptions at severities 2, 4 (--conformal_severities)." in table.notes
    Reporter().suite_finished({1: dataclasses.replace(result, facts={**result.facts, "step": 3})})
    assert "180 examples, grain, severities 2, 4, step 3\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conformal_coverage": 1.0}, "conformal_coverage must be above 0 and below 1; got 1"),
        ({"conformal_coverage": 0.999}, "a coverage of 0.999 needs at least 999 calibration examples; got 180"),
        ({"conformal_severities": ("1", "6")}, "conformal_severities must be some of 1, 2, 3, 4, 5; got 1,6"),
        ({"conformal_severities": (1, 1)}, "conformal_severities must be some of 1, 2, 3, 4, 5; got 1,1"),
        ({"conformal_severities": ()}, "conformal_severities must be some of 1, 2, 3, 4, 5; got none"),
        ({"conformal_calibration": "train"}, "unknown conformal_calibration 'train'; allowed: held_out, test"),
        ({"shift": ("digits@test",)}, "'digits-test' is the test set of the run, half of which calibrates"),
    ],
)
def test_conformal_rejects_what_cannot_be_promised(digits_run, options, message):
    with pytest.raises(UserError, match=message):
        evaluation.evaluate(digits_run, ("conformal",), (2,), options=Options(corruptions=(), **options))
