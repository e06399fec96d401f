"""The suite corruptions: generated and published sets, and the averages over them."""

import dataclasses

import jax
import numpy as np
import pytest
from digits import context_of, measured
from sklearn.metrics import accuracy_score

from anchor_jax import UserError, data, evaluation, metrics
from anchor_jax.data import corruptions
from anchor_jax.evaluation import SUITES, Options, Score, SuiteResult
from anchor_jax.evaluation.suites.corruptions import ALEXNET_ERRORS, generated, mean_corruption_error, mean_scores


def test_corruptions_measure_generated_images(digits_run, digits_context):
    result = measured(context_of(digits_run, seed=3), "corruptions", 2)
    test = data.load("digits", "test")
    key = jax.random.key(3)
    for row, member in enumerate(corruptions.CORRUPTIONS_19):
        if member not in ("gaussian_noise", "fog", "contrast"):
            continue
        images = np.asarray(corruptions.corrupt(key, test.images, member, 4))
        answer = digits_context.predictor(images, 2)
        right = answer.probs.argmax(-1) == test.labels
        assert (result.arrays["correct"][row, 3] == right).mean() > 0.99
        assert result.metrics[f"{member}/4/accuracy"] == pytest.approx(right.mean(), abs=0.01)
    assert result.arrays["correct"].shape == (19, 5, 360)
    assert result.facts["members"] == list(corruptions.CORRUPTIONS_19)
    assert result.metrics["accuracy"] == pytest.approx(result.arrays["correct"].mean(), abs=1e-6)
    assert result.metrics["mean15/accuracy"] == pytest.approx(result.arrays["correct"][:15].mean(), abs=1e-6)
    assert result.metrics["severity5/accuracy"] == pytest.approx(result.arrays["correct"][:, 4].mean(), abs=1e-6)


def test_generated_set_does_not_depend_on_batches(digits_context):
    made = generated("made", ("gaussian_noise",), digits_context.test, seed=0).stream("gaussian_noise", 2)

    def all_of(size):
        parts = list(made.batches(size))
        return np.concatenate([np.asarray(p[0]) for p in parts]), np.concatenate([p[1] for p in parts])

    images, labels = all_of(64)
    others = all_of(256)
    np.testing.assert_array_equal(images, others[0])
    np.testing.assert_array_equal(labels, others[1])
    np.testing.assert_array_equal(labels, data.load("digits", "test").labels)


def test_corruptions_measure_published_files(digits_run, tmp_path):
    test = data.load("digits", "test")
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(5, *test.images.shape)) * 20 * np.arange(1, 6).reshape(5, 1, 1, 1, 1)
    worse = np.clip(test.images + noise, 0, 255).astype(np.uint8)
    np.save(tmp_path / "grain.npy", np.concatenate(worse))
    np.save(tmp_path / "labels.npy", np.tile(test.labels, 5))
    context = context_of(digits_run, corruptions=(f"npy:{tmp_path}",))
    result = measured(context, "corruptions", 2)
    for severity in range(1, 6):
        probs = context.predictor(worse[severity - 1], 2).probs
        expected = accuracy_score(test.labels, probs.argmax(-1))
        assert result.metrics[f"grain/{severity}/accuracy"] == pytest.approx(expected)
        assert result.metrics[f"severity{severity}/accuracy"] == pytest.approx(expected)
    assert result.metrics["grain/accuracy"] == result.metrics["accuracy"]
    assert not {"mean19/accuracy", "cbar/accuracy"} & result.metrics.keys()


def test_corruptions_reject_the_clean_set(digits_run, tmp_path):
    test = data.load("digits", "test")
    np.save(tmp_path / "fog.npy", np.tile(test.images, (5, 1, 1, 1)))
    np.save(tmp_path / "labels.npy", np.tile(test.labels, 5))
    with pytest.raises(UserError, match=r"all in the clean set 'test': they are not corrupted"):
        evaluation.evaluate(digits_run, ("corruptions",), (2,), options=Options(corruptions=(f"npy:{tmp_path}",)))


def test_mean_scores_average_over_the_named_corruptions():
    rng = np.random.default_rng(0)
    members = (*corruptions.CORRUPTIONS_19, *corruptions.C_BAR_CIFAR)
    values = rng.random((29, 5))
    names = ("accuracy", "nll", "brier", "ece", "rms_ece", "smooth_ece")
    scores = [
        Score(name, values[i, severity - 1], corruption=member, severity=severity)
        for i, member in enumerate(members)
        for severity in range(1, 6)
        for name in names
    ]
    found = SuiteResult("corruptions", 1, tuple(mean_scores(scores))).metrics
    assert found["accuracy"] == pytest.approx(values.mean())
    assert found["mean15/ece"] == pytest.approx(values[:15].mean())
    assert found["mean19/nll"] == pytest.approx(values[:19].mean())
    assert found["cbar/accuracy"] == pytest.approx(values[19:].mean())
    assert found["severity2/brier"] == pytest.approx(values[:, 1].mean())
    assert found["fog/accuracy"] == pytest.approx(values[members.index("fog")].mean())


def test_mean_corruption_error_of_alexnet_is_1():
    means = [Score("accuracy", 1 - error, corruption=name) for name, error in ALEXNET_ERRORS.items()]
    others = [Score("accuracy", 0.5), Score("accuracy", 0.5, corruption="fog", severity=3)]
    assert mean_corruption_error([*others, *means]) == 1
    assert ALEXNET_ERRORS.keys() == set(corruptions.CORRUPTIONS_15)
    assert mean_corruption_error([Score("accuracy", 1.0, corruption=name) for name in ALEXNET_ERRORS]) == 0


def test_corruptions_compile_once_for_all_sets(digits_context):
    """The second corruption set of a size and what follows use the programs of the first."""
    made = generated("made", ("contrast", "brightness"), digits_context.test, seed=0)
    digits_context.predict(made.stream("contrast", 1), 2)
    before = digits_context.predictor.network.classify_program(None, None)._cache_size()
    digits_context.predict(made.stream("brightness", 1), 2)
    assert digits_context.predictor.network.classify_program(None, None)._cache_size() == before


def test_corruption_diagrams_say_that_they_pool():
    """One corruption is as overconfident as the other is underconfident: together they are calibrated."""
    confidence = np.full((2, 5, 40), 0.7, np.float32)
    correct = np.stack([np.tile(np.arange(40) < num, (5, 1)) for num in (16, 40)])
    eces = {
        name: metrics.calibration_error(metrics.reliability_bins(confidence[place, 0], correct[place, 0])).item()
        for place, name in enumerate(("fog", "snow"))
    }
    scores = [
        Score("ece", value, corruption=name, severity=severity)
        for name, value in eces.items()
        for severity in range(1, 6)
    ]
    scores += [dataclasses.replace(score, metric="accuracy") for score in scores]
    facts = {"members": ["fog", "snow"], "num_bins": 15}
    arrays = {"confidence": confidence, "correct": correct}
    result = SuiteResult("corruptions", 2, (*scores, *mean_scores(scores)), arrays, facts)
    [diagrams] = [each for each in SUITES["corruptions"].figures({2: result}, {}) if each.name == "reliability"]
    pooled = metrics.calibration_error(diagrams.plot.panels["severity 1, corruptions pooled"]).item()
    assert pooled == pytest.approx(0, abs=1e-6)
    assert result.value("ece", severity=1) == pytest.approx(0.3)
    assert "the ECE of the pool, above each diagram, is at most the mean over the corruptions" in diagrams.caption
    captions = [table.caption for table in SUITES["corruptions"].tables({2: result})]
    assert "ECE at each severity, mean over corruptions" in captions
    [accuracy, ece] = SUITES["corruptions"].highlights(result)
    assert accuracy.remark == ece.remark == "mean over corruptions, 2 references"
