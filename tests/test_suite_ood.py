"""The suite ood, against torchmetrics."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from digits import context_of, measured, write_npz
from pictures import write_pictures
from sklearn.metrics import roc_auc_score

import anchor_jax as aj
from anchor_jax import data
from anchor_jax.evaluation import Score, SuiteResult
from anchor_jax.evaluation.predictions import prediction_rows
from anchor_jax.evaluation.suites.ood import SCORES, Ood, anomaly_scores, detection
from anchor_jax.runs.load import run_preprocessing


@pytest.mark.parametrize("ties", [False, True])
def test_detection_matches_torchmetrics(ties):
    torch = pytest.importorskip("torch")
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")

    rng = np.random.default_rng(0)
    inside, outside = rng.normal(size=300), rng.normal(size=200) + 1
    if ties:
        inside, outside = inside.round(), outside.round()
    found = detection(inside, outside)
    scores, target = torch.tensor(np.concatenate([inside, outside])), torch.tensor([0] * 300 + [1] * 200)
    shifted = (scores - scores.min()) / (scores.max() - scores.min())  # torchmetrics takes others for logits
    assert found["auroc"] == pytest.approx(float(torchmetrics.binary_auroc(shifted, target)), abs=1e-6)
    assert found["aupr_out"] == pytest.approx(float(torchmetrics.binary_average_precision(shifted, target)), abs=1e-6)
    assert found["aupr_in"] == pytest.approx(
        float(torchmetrics.binary_average_precision(1 - shifted, 1 - target)), abs=1e-6
    )
    threshold = max(t for t in outside if (outside >= t).mean() >= 0.95)
    assert found["fpr95"] == pytest.approx((inside >= threshold).mean())


def test_detection_of_separate_and_equal_scores():
    apart = detection(np.zeros(10), np.ones(10))
    assert apart == {"auroc": 1, "aupr_in": 1, "aupr_out": 1, "fpr95": 0}
    assert detection(np.ones(10), np.ones(30)) == {"auroc": 0.5, "aupr_in": 0.25, "aupr_out": 0.75, "fpr95": 1}


def test_anomaly_scores_are_higher_for_uncertain_examples():
    """A sure and unanimous example against an unsure and divided one."""

    def scores_of(logits):
        """Of one input whose logits are its references `[K, C]` themselves."""

        def reference_itself(_, inputs):
            return jnp.split(inputs, 2, axis=-1)[0]

        poll = aj.inference.classify_with_votes(
            reference_itself, None, np.zeros((1, 3), np.float32), np.float32(logits)
        )
        return anomaly_scores(prediction_rows(None, poll, np.zeros(1, np.int32)))

    sure = scores_of([[9, 0, 0], [8, 0, 0], [9, 1, 0]])
    unsure = scores_of([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert sure.keys() == unsure.keys() == SCORES.keys()
    for name in SCORES:
        assert sure[name] < unsure[name], name


def test_ood_averages_over_groups_of_sets(digits_run, tmp_path):
    test = data.load("digits", "test")
    flipped = write_npz(tmp_path / "flipped.npz", test.images[:100, ::-1], test.labels[:100], list("0123456789"))
    context = context_of(digits_run, ood=(f"near={flipped}", "far=photographs"))
    result = measured(context, "ood", 3)
    assert result.facts["members"] == ["flipped", "photographs"]
    assert result.facts["groups"] == {"near": ["flipped"], "far": ["photographs"]}
    for name in SCORES:
        both = [result.metrics[f"{member}/{name}/auroc"] for member in ("flipped", "photographs")]
        assert [result.metrics[f"near/{name}/auroc"], result.metrics[f"far/{name}/auroc"]] == both
        assert result.metrics[f"{name}/auroc"] == pytest.approx(np.mean(both))
    entropy = context.predictor(test.images, 3).entropy, context.predictor(test.images[:100, ::-1], 3).entropy
    assert result.metrics["flipped/entropy/auroc"] == pytest.approx(detection(*entropy)["auroc"], abs=1e-4)
    assert not {"spread", "agreement"} & {n.split("/")[0] for n in measured(context, "ood", 1).metrics}


@pytest.mark.parametrize("orientation", ["exif", "stored"])
def test_sets_are_read_as_the_predictor_reads_pictures(digits_run, tmp_path, orientation):
    context = context_of(digits_run)
    config = context.run.config.copy_and_resolve_references()
    config.data.orientation = orientation
    context = dataclasses.replace(context, run=dataclasses.replace(context.run, config=config))
    files = sorted(write_pictures(tmp_path).iterdir())
    images, _ = context.open(f"images:{tmp_path}").first(len(files))
    np.testing.assert_array_equal(images, run_preprocessing(context.run)(files))


@pytest.mark.parametrize("names", [("entropy", "max_softmax", "energy"), ("entropy", "max_softmax")])
def test_energy_is_the_score_that_is_singled_out(names):
    areas = {"entropy": 0.7, "max_softmax": 0.9, "energy": 0.6}
    result = SuiteResult("ood", 10, tuple(Score("auroc", areas[name], score=name) for name in names))
    first = "energy" if "energy" in names else names[0]
    [highlight] = Ood().highlights(result)
    assert (highlight.value, highlight.remark) == (areas[first], f"{first}, 10 references")
    assert Ood().tables({10: result})[0].columns[0].title == first


def test_roc_figure_labels_curves_with_their_areas():
    rng = np.random.default_rng(0)
    ties = np.float32([0, 0, 1, 1, 1, 2]), np.float32([0, 1, 2, 2])
    for inside, outside in ((rng.normal(size=90), rng.normal(1, size=70)), ties):
        arrays = {"in/entropy": inside, "svhn/entropy": outside}
        result = SuiteResult("ood", 1, (Score("auroc", 0.5, score="entropy"),), arrays, {"members": ["svhn"]})
        roc = Ood().figures({1: result}, {})[0]
        curve = roc.plot.panels[0].lines[0]
        area = roc_auc_score(np.repeat([0, 1], [len(inside), len(outside)]), np.concatenate([inside, outside]))
        assert curve.label == f"{area:.1%} entropy"
        assert np.trapezoid(curve.y, curve.x) == pytest.approx(area)
