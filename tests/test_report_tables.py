"""Intervals, tables of classes, and learning curves of the report, against SciPy, scikit-learn and known answers."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import write_results
from legends import checked_legends
from scipy import stats
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score
from test_report import FACTS, RUN, page_of, report

from anchor_jax import metrics
from anchor_jax.evaluation import intervals
from anchor_jax.evaluation.results import Score, SuiteResult
from anchor_jax.evaluation.suites.classes import class_tables, confusion_figures
from anchor_jax.reporting.learning import learning_curves

RNG = np.random.default_rng(0)
CONFIDENCE = RNG.beta(5, 1, 300).astype(np.float32)
CORRECT = RNG.random(300) < CONFIDENCE - 0.1
INSIDE, OUTSIDE = RNG.normal(size=200).round(1), [RNG.normal(1, 1, 90).round(1), RNG.normal(2, 1, 70).round(1)]


def clean_result(num_classes, num=400, names=()):
    rng = np.random.default_rng(num_classes)
    label = rng.integers(0, num_classes - 1, num)  # none of the last class
    predicted = np.where(rng.random(num) < 0.6, label, rng.integers(0, num_classes, num))
    confidence = rng.uniform(0.3, 1, num).astype(np.float32)
    arrays = {"label": label, "predicted": predicted, "correct": label == predicted, "confidence": confidence}
    facts = FACTS | {"label_names": list(names) or [f"class {row}" for row in range(num_classes)], "num_examples": num}
    scores = (
        Score("accuracy", (label == predicted).mean()),
        Score("ece", 0.1),
        Score("nll", 1),
        Score("smooth_ece", 0),
    )
    return SuiteResult("clean", 1, scores, arrays | {"nll": rng.exponential(1, num)}, facts)


@pytest.mark.parametrize(("right", "num"), [(0, 5), (358, 360), (50, 50), (1, 1), (47_912, 50_000)])
def test_of_fraction_is_the_wilson_interval(right, num):
    z, share = stats.norm.ppf(0.975), right / num
    half = z * np.sqrt(share * (1 - share) / num + z**2 / (4 * num**2))
    expected = np.array([share + z**2 / (2 * num) - half, share + z**2 / (2 * num) + half]) / (1 + z**2 / num)
    np.testing.assert_allclose(intervals.of_fraction(share, num), expected, atol=1e-12)


def test_of_ece_turns_the_quantiles_of_resampled_errors_around():
    value = metrics.calibration_error(metrics.reliability_bins(CONFIDENCE, CORRECT, 10)).item()
    rng, resampled = np.random.default_rng(1), []
    for _ in range(300):
        rows = rng.integers(0, 300, 300)
        resampled.append(
            metrics.calibration_error(metrics.reliability_bins(CONFIDENCE[rows], CORRECT[rows], 10)).item()
        )
    low, high = np.quantile(resampled, (0.025, 0.975))
    found = intervals.of_ece(CONFIDENCE, CORRECT, 10)
    np.testing.assert_allclose(found, (max(2 * value - high, 0), max(2 * value - low, value)), atol=0.012)
    assert found == intervals.of_ece(CONFIDENCE, CORRECT, 10)


def test_of_auroc_has_the_quantiles_of_resampled_areas():
    rng, resampled = np.random.default_rng(1), []
    for _ in range(100):
        inside, *outside = (rng.choice(of, len(of)) for of in (INSIDE, *OUTSIDE))
        areas = [roc_auc_score(np.repeat((0, 1), (200, len(of))), np.concatenate([inside, of])) for of in outside]
        resampled.append(np.mean(areas))
    np.testing.assert_allclose(intervals.of_auroc(INSIDE, OUTSIDE), np.quantile(resampled, (0.025, 0.975)), atol=0.02)


def test_single_examples_have_no_bootstrap_interval():
    assert intervals.of_ece(CONFIDENCE[:1], CORRECT[:1], 10) is None
    assert intervals.of_auroc(INSIDE[:1], OUTSIDE) is None
    assert intervals.of_auroc(INSIDE, [OUTSIDE[0], OUTSIDE[1][:1]]) is None
    result = clean_result(3, num=1)
    assert [intervals.interval(result, name) for name in ("ece", "nll")] == [None, None]
    assert intervals.interval(result, "accuracy") == intervals.of_fraction(result.value("accuracy"), 1)


def test_interval_counts_versions_of_an_image_once():
    correct = np.random.default_rng(0).random((2, 5, 40)) < 0.7
    facts = {"members": ["fog", "snow"], "averages": {"mean15": ["snow"]}, "severities": [1, 2, 3, 4, 5]}
    scores = (Score("accuracy", 0.7), Score("accuracy", 0.7, severity=2), Score("accuracy", 0.7, group="mean15"))
    result = SuiteResult("corruptions", 1, (*scores, Score("ece", 0.1)), {"correct": correct}, facts)
    for fields, values in (({}, correct.mean((0, 1))), ({"severity": 2}, correct[:, 1].mean(0))):
        expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert intervals.interval(result, "accuracy", **fields) == pytest.approx(tuple(expected))
    expected = stats.ttest_1samp(correct[1].mean(0), 0).confidence_interval(0.95)
    assert intervals.interval(result, "accuracy", group="mean15") == pytest.approx(tuple(expected))
    assert intervals.interval(result, "ece") is None


@pytest.mark.parametrize("num_classes", [3, 41, 150])
def test_class_tables_agree_with_scikit_learn(num_classes):
    result = clean_result(num_classes)
    table, *pairs = class_tables(result)
    label, predicted = result.arrays["label"], result.arrays["predicted"]
    options = {"labels": range(num_classes), "zero_division": np.nan}
    precision, recall, _, support = precision_recall_fscore_support(label, predicted, **options)
    accuracy, precisions, confidence, images = ([np.nan if v is None else v for v in c.values] for c in table.columns)
    np.testing.assert_allclose(accuracy, recall)
    np.testing.assert_allclose(precisions, precision)
    np.testing.assert_array_equal(images, support)
    assert confidence[0] == pytest.approx(result.arrays["confidence"][label == 0].mean())
    assert table.columns[0].intervals()[0] == intervals.of_fraction(recall[0], support[0])
    assert table.columns[0].intervals()[-1] is None
    if num_classes > 40:
        shown = np.array(accuracy)[table.shown]
        assert len(shown) == 40
        assert (np.diff(shown) >= 0).all()
        assert shown[0] == np.nanmin(recall)
        assert shown[-1] == np.nanmax(recall)
    assert len(pairs) == (num_classes > 100) == (not confusion_figures(result))
    for of_pairs in pairs:
        assert sum(of_pairs.columns[0].values) == (label != predicted).sum()
        true, guess = (int(name.removeprefix("class ")) for name in of_pairs.rows[0].split(" → "))
        assert of_pairs.columns[0].values[0] == ((label == true) & (predicted == guess)).sum()


def test_class_tables_name_the_classes_of_another_set():
    facts = {"label_names": ["ant", "bee", "cat"], "classes": ["ant", "cat"]}
    arrays = {"label": np.array([0, 1]), "predicted": np.array([1, 1]), "confidence": np.ones(2)}
    result = SuiteResult("clean", 1, (), arrays, facts, dataset="photos")
    assert class_tables(result)[0].rows == confusion_figures(result)[0].plot.names == ["ant", "cat"]


def test_interval_of_conformal_sets_is_over_test_images():
    covered, size = RNG.random(90) < 0.9, RNG.integers(0, 4, 90)
    values = {"coverage": covered.mean(), "set_size": size.mean(), "empty_sets": (size == 0).mean()}
    scores = (Score(name, of, score="lac", **at) for name, of in values.items() for at in ({}, {"dataset": "photos"}))
    result = SuiteResult("conformal", 1, tuple(scores), {"lac_covered": covered, "lac_size": size}, FACTS)
    for metric in ("coverage", "empty_sets"):
        assert intervals.interval(result, metric, score="lac") == intervals.of_fraction(values[metric], 90)
    assert intervals.interval(result, "set_size", score="lac") == intervals.of_mean(size)
    assert intervals.interval(result, "coverage", score="lac", dataset="photos") is None


def test_page_has_intervals_and_files_of_long_tables(tmp_path):
    folder, result = tmp_path / "eval/step12-bins15", clean_result(150)
    write_results(folder, "clean", result.facts, {1: (result.metrics, result.arrays)})
    report(folder)
    low, high = (f"{100 * bound:.2f}" for bound in intervals.interval(result, "accuracy"))
    row = next(cells for section, cells in page_of(folder).rows if section == "clean" and cells[0] == "1 reference")
    assert row[1] == f"{100 * result.value('accuracy'):.2f}{low}–{high}"
    assert "–" not in row[4], "the smoothed ECE has none"
    frame = pd.read_csv(folder / "tables/clean-classes.csv", index_col="name")
    assert len(frame) == 150
    assert frame.loc["class 0", "accuracy_low"] == pytest.approx(class_tables(result)[0].columns[0].intervals()[0][0])
    assert "All 150: tables/clean-classes.csv." in page_of(folder).text
    assert (folder / "tables/clean-confusions.csv").exists()


def test_learning_curves_show_what_training_logged(tmp_path):
    lines = [
        {"step": step, "train/loss": 1 / step, "train/masked_entropy": None if step < 3 else 1.0} for step in (1, 3)
    ]
    lines += [{"step": 3, "train/learning_rate": 0.1, "test/nll": float("nan"), "validation/accuracy": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*map(json.dumps, lines), '{"step": 4, "train/lo']))
    (figure,) = learning_curves(tmp_path, RUN)
    found = {panel.title: {line.label: (line.x, line.y) for line in panel.lines} for panel in figure.plot.panels}
    assert found == {
        "loss": {"": ([1, 3], [1, 1 / 3])},
        "accuracy": {"": ([3], [0.5])},
        "entropy of masked inputs (nats)": {
            "training batches": ([3], [1.0]), "entropy of a uniform prediction": ([3, 3], [np.log(4)] * 2)
        },
        "learning rate": {"": ([3], [0.1])},
    }  # fmt: skip
    folder = tmp_path / "eval/step12-bins15"
    write_results(folder, "landscape", FACTS | {"num_examples": 4}, {1: ({"accuracy": 0.5}, {})})
    with checked_legends():
        report(folder)
    assert (folder / "pictures/learning.png").exists()
    assert "Learning curves" in page_of(folder).text
    assert not learning_curves(tmp_path / "none", RUN)
