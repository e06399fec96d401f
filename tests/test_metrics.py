"""Metrics of complete sets compared with other libraries and known values, and their invariants."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

import anchor_jax as aj
from anchor_jax import metrics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import relplot
    import torch
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

KEYS = {"accuracy", "nll", "brier", "ece", "rms_ece", "adaptive_ece", "smooth_ece", "aurc"}
KEYS_WITH_TOP5 = KEYS | {"top5_accuracy"}


def softmax(logits):
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32)


def predictions(seed, num_examples=500, num_classes=10, scale=2.0, overconfidence=1.5):
    """Draw softmax outputs, and labels from the same logits before they are scaled by `overconfidence`."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(num_examples, num_classes))
    labels = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
    return softmax(overconfidence * logits), labels


def in_batches(probs, labels, size):
    """Return the per-example scores of a set that arrives in batches of this size, as NumPy arrays."""
    starts = range(0, len(labels), size)
    scores = [jax.jit(metrics.per_example_scores)(probs[i : i + size], labels[i : i + size]) for i in starts]
    return jax.tree.map(lambda *columns: np.concatenate(columns), *scores)


prediction_sets = st.builds(
    predictions,
    seed=st.integers(0, 10_000),
    num_examples=st.sampled_from([1, 37]),  # few shapes, since each compiles anew
    scale=st.floats(0.1, 20.0),
    overconfidence=st.floats(0.3, 4.0),
)


# comparison with other libraries


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_accuracy_nll_and_brier_equal_sklearn(num_classes):
    probs, labels = predictions(seed=num_classes, num_classes=num_classes)
    exact = probs.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    classes = np.arange(num_classes)
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(labels, probs.argmax(axis=1)),
        "nll": sklearn.metrics.log_loss(labels, exact, labels=classes),
        "brier": sklearn.metrics.brier_score_loss(labels, exact, labels=classes, scale_by_half=False),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(metrics, name)(probs, labels), value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("k", [1, 2, 5, 10])
def test_top_k_accuracy_equals_sklearn_and_torchmetrics(k):
    probs, labels = predictions(seed=k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.UndefinedMetricWarning)  # for k == C
        expected = sklearn.metrics.top_k_accuracy_score(labels, probs, k=k, labels=np.arange(10))
    np.testing.assert_allclose(metrics.top_k_accuracy(probs, labels, k), expected, rtol=1e-6)
    torch_args = torch.from_numpy(probs), torch.from_numpy(labels)
    theirs = multiclass_accuracy(*torch_args, num_classes=10, top_k=k, average="micro")
    np.testing.assert_allclose(metrics.top_k_accuracy(np.log(probs), labels, k), theirs.item(), rtol=1e-6)


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("num_bins", [15, 20])
@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 2.0])
def test_calibration_error_of_classifier_equals_torchmetrics(norm, num_bins, overconfidence):
    probs, labels = predictions(seed=num_bins, overconfidence=overconfidence)
    assert probs.max() < 1  # torchmetrics differs at exactly 1, see test_calibration
    expected = multiclass_calibration_error(
        torch.from_numpy(probs), torch.from_numpy(labels), num_classes=10, n_bins=num_bins, norm=norm
    )
    bins = metrics.reliability(probs, labels, num_bins)
    np.testing.assert_allclose(metrics.calibration_error(bins, norm), expected.item(), atol=2e-6)


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 2.0, 4.0])
def test_smooth_ece_of_classifier_equals_relplot(overconfidence):
    probs, labels = predictions(seed=0, num_examples=10_000, scale=6.0, overconfidence=overconfidence)
    correct = (probs.argmax(axis=1) == labels).astype(np.float64)
    expected = relplot.smECE(probs.max(axis=1).astype(np.float64), correct)
    np.testing.assert_allclose(metrics.summary(probs, labels)["smooth_ece"], expected, atol=2e-4)


# known values


def test_accuracy_of_logits_takes_first_class_of_ties():
    logits = jnp.array([[3.0, 3.0, -jnp.inf], [3.0, 3.0, -jnp.inf], [-5.0, -4.0, -6.0], [0.0, 0.0, 7.0]])
    assert metrics.accuracy(logits, jnp.array([0, 1, 1, 2])) == 0.75


def test_top_k_accuracy_takes_first_classes_of_ties():
    tied = jnp.array([[1.0, 1.0, 1.0, -jnp.inf]] * 4)
    for k, expected in [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]:
        assert metrics.top_k_accuracy(tied, jnp.arange(4), k) == expected
    scores = metrics.per_example_scores(jnp.full((7, 7), 1 / 7), jnp.arange(7))
    assert scores.in_top5.tolist() == [True] * 5 + [False] * 2


def test_nll_known_values_and_probability_zero():
    probs = jnp.array([[0.5, 0.5], [0.25, 0.75]])
    np.testing.assert_allclose(metrics.nll(probs, jnp.array([1, 0])), np.log(8) / 2, rtol=1e-6)
    certain_mistake = metrics.nll(jnp.array([[1.0, 0.0]]), jnp.array([1]))
    np.testing.assert_allclose(certain_mistake, -np.log(np.finfo(np.float32).tiny), rtol=1e-6)


def test_brier_sums_over_classes():
    probs = jnp.array([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    each = [0.25 + 0.09 + 0.04, 2.0, 0.0]
    np.testing.assert_allclose(metrics.brier(probs, jnp.array([0, 2, 1])), np.mean(each), rtol=1e-6)


def test_per_example_scores_known_values():
    probs = jnp.array([[0.5, 0.1, 0.1, 0.1, 0.1, 0.1], [0.5, 0.1, 0.1, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
    confidence, correct, in_top5, nll, brier = metrics.per_example_scores(probs, jnp.array([0, 5, 5]))
    np.testing.assert_allclose(confidence, [0.5, 0.5, 1.0])
    np.testing.assert_array_equal(correct, [True, False, True])
    np.testing.assert_array_equal(in_top5, [True, False, True])
    np.testing.assert_allclose(nll, [np.log(2), np.log(10), 0], rtol=1e-6)
    np.testing.assert_allclose(brier, [0.25 + 0.05, 0.25 + 0.04 + 0.81, 0], rtol=1e-6)
    assert [column.dtype for column in (confidence, correct, in_top5, nll, brier)] == ["f4", "?", "?", "f4", "f4"]


@pytest.mark.parametrize(("num_classes", "keys"), [(5, KEYS), (6, KEYS_WITH_TOP5)])
def test_summary_has_top5_accuracy_for_6_classes(num_classes, keys):
    probs, labels = predictions(seed=num_classes, num_classes=num_classes)
    assert metrics.summary(probs, labels).keys() == keys
    assert (metrics.per_example_scores(probs, labels).in_top5 is None) == (num_classes == 5)


def test_summary_of_one_class_is_perfect():
    summary = metrics.summary(np.ones((3, 1), np.float32), np.zeros(3, int))
    assert {name: float(value) for name, value in summary.items()} == {name: float(name == "accuracy") for name in KEYS}


def test_summary_of_all_correct_and_all_wrong():
    probs = np.eye(100, dtype=np.float32)
    right = metrics.summary(probs, np.arange(100))
    wrong = metrics.summary(probs, np.roll(np.arange(100), 1))
    for name, best, worst in [
        ("accuracy", 1, 0),
        ("nll", 0, 87.33655),
        ("brier", 0, 2),
        ("ece", 0, 1),
        ("rms_ece", 0, 1),
        ("adaptive_ece", 0, 1),
        ("smooth_ece", 0, 1),
        ("aurc", 0, 1),
    ]:
        np.testing.assert_allclose(right[name], best, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(wrong[name], worst, rtol=1e-6, err_msg=name)


def test_summary_of_constant_prediction():
    probs = np.tile(np.float32([0.7, 0.2, 0.1]), (10, 1))
    summary = metrics.summary(probs, np.arange(10) % 3)  # correct 4 times
    expected = {"accuracy": 0.4, "ece": 0.3, "rms_ece": 0.3, "adaptive_ece": 0.3, "aurc": 0.6}
    for name, value in expected.items():
        np.testing.assert_allclose(summary[name], value, rtol=1e-5, err_msg=name)


def test_summary_of_one_example():
    summary = metrics.summary(np.float32([[0.8, 0.2]]), np.array([1]))
    expected = dict.fromkeys(("ece", "rms_ece", "adaptive_ece", "smooth_ece"), 0.8)
    expected |= {"accuracy": 0, "nll": np.log(5), "brier": 2 * 0.64, "aurc": 1}
    assert summary.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(summary[name], value, atol=5e-5, err_msg=name)


# invariants


@settings(deadline=None, max_examples=30)
@given(prediction_sets)
def test_summary_is_in_range_for_any_predictions(drawn):
    summary = {name: float(value) for name, value in metrics.summary(*drawn).items()}
    upper = dict.fromkeys(KEYS_WITH_TOP5, 1.0) | {"nll": 87.4, "brier": 2.0}
    assert summary.keys() == KEYS_WITH_TOP5
    for name, value in summary.items():
        assert -1e-6 <= value <= upper[name] + 1e-6, (name, value)
    assert summary["ece"] <= summary["rms_ece"] + 1e-6
    assert summary["accuracy"] <= summary["top5_accuracy"]


@settings(deadline=None, max_examples=30)
@given(prediction_sets, st.integers(0, 1000))
def test_summary_ignores_order_of_examples(drawn, seed):
    probs, labels = drawn
    order = np.random.default_rng(seed).permutation(len(labels))
    expected, permuted = metrics.summary(probs, labels), metrics.summary(probs[order], labels[order])
    for name in KEYS_WITH_TOP5:
        np.testing.assert_allclose(permuted[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


@settings(deadline=None, max_examples=30)
@given(prediction_sets)
def test_summary_of_duplicated_set_is_unchanged(drawn):
    once, twice = (metrics.summary(*(np.tile(a, (n,) + (1,) * (a.ndim - 1)) for a in drawn)) for n in (1, 2))
    for name in KEYS_WITH_TOP5 - {"aurc"}:  # whose coverages are finer for the duplicated set
        np.testing.assert_allclose(twice[name], once[name], rtol=1e-5, atol=2e-6, err_msg=name)


@settings(deadline=None, max_examples=20)
@given(prediction_sets, st.sampled_from([1, 8, 16]))
def test_summarize_of_batches_equals_whole_set(drawn, size):
    batched, expected_scores = in_batches(*drawn, size), metrics.per_example_scores(*drawn)
    for name in ("confidence", "correct", "in_top5"):
        np.testing.assert_array_equal(getattr(batched, name), getattr(expected_scores, name), err_msg=name)
    streamed, expected = metrics.summarize(batched, num_bins=7), metrics.summary(*drawn, num_bins=7)
    assert streamed.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(streamed[name], expected[name], rtol=1e-6, err_msg=name)


def test_summarize_of_few_classes_has_no_top5_column():
    probs, labels = predictions(seed=4, num_classes=3)
    scores = in_batches(probs, labels, 128)
    assert scores.in_top5 is None
    assert scores.nll.shape == (500,)
    expected = metrics.summary(probs, labels)
    for name, value in metrics.summarize(scores).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, err_msg=name)


# under jit, and dtypes


def test_metrics_under_jit():
    probs, labels = predictions(seed=5)
    for function, args in [
        (metrics.accuracy, (probs, labels)),
        (metrics.nll, (probs, labels)),
        (metrics.brier, (probs, labels)),
        (metrics.per_example_scores, (probs, labels)),
        (metrics.summarize, (metrics.per_example_scores(probs, labels),)),
        (metrics.summary, (probs, labels)),
    ]:
        jax.tree.map(
            lambda jitted, plain: np.testing.assert_allclose(jitted, plain, rtol=1e-5, atol=1e-6),
            jax.jit(function)(*args),
            function(*args),
        )


def test_metrics_num_bins_and_k_are_static_under_jit():
    probs, labels = predictions(seed=6)
    jitted = jax.jit(metrics.summary, static_argnames="num_bins")(probs, labels, num_bins=7)
    for name, value in metrics.summarize(metrics.per_example_scores(probs, labels), num_bins=7).items():
        np.testing.assert_allclose(jitted[name], value, rtol=1e-5, err_msg=name)
    top_3 = jax.jit(metrics.top_k_accuracy, static_argnames="k")(probs, labels, k=3)
    assert top_3 == metrics.top_k_accuracy(probs, labels, 3)


def test_summary_equals_single_metrics():
    probs, labels = predictions(seed=7)
    examples = probs.max(axis=1), probs.argmax(axis=1) == labels
    bins = metrics.reliability_bins(*examples, 15)
    expected = {
        "accuracy": metrics.accuracy(probs, labels),
        "top5_accuracy": metrics.top_k_accuracy(probs, labels, 5),
        "nll": metrics.nll(probs, labels),
        "brier": metrics.brier(probs, labels),
        "ece": metrics.calibration_error(bins, "l1"),
        "rms_ece": metrics.calibration_error(bins, "l2"),
        "adaptive_ece": metrics.adaptive_calibration_error(*examples, 15),
        "smooth_ece": metrics.smooth_ece(*examples),
        "aurc": metrics.aurc(*examples),
    }
    summary = metrics.summary(probs, labels)
    assert summary.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(summary[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("label_dtype", [jnp.int32, jnp.uint8])
def test_summary_is_float32_under_strict_promotion(dtype, label_dtype):
    probs, labels = predictions(seed=8)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        summary = metrics.summary(jnp.asarray(probs, dtype), jnp.asarray(labels, label_dtype))
    assert {value.dtype for value in summary.values()} == {jnp.dtype(jnp.float32)}
    assert {value.shape for value in summary.values()} == {()}


def test_summary_is_float32_in_64_bit_mode():
    probs, labels = predictions(seed=9)
    expected = metrics.summary(probs, labels)
    with jax.enable_x64(True):
        summary = metrics.summary(probs.astype(np.float64), labels)
    for name in KEYS_WITH_TOP5:
        assert summary[name].dtype == jnp.float32
        np.testing.assert_allclose(summary[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_losses_and_metrics_are_exported_for_any_batch_size():
    def measure(outputs, labels):
        targets, flags, mask = outputs[::-1], labels > 0, labels > 1
        scores = outputs[:, 0]
        return {
            "squared error": aj.anchored_squared_error(outputs, targets, mask, target_mean=np.ones(3)),
            "nll": aj.anchored_gaussian_nll(outputs, outputs, targets, mask),
            "detection": [detect(scores, flags) for detect in (metrics.auroc, metrics.aupr, metrics.fpr_at_tpr)],
            "selective": metrics.risk_coverage(scores, flags),
            "calibration": metrics.adaptive_calibration_error(scores, flags),
            "size": metrics.set_size(outputs > 0.5),
        }

    rng = np.random.default_rng(0)
    outputs, labels = rng.integers(1, 8, (7, 3)).astype(np.float32) / 8, np.array([0, 1, 2, 0, 2, 1, 0])
    (num,) = jax.export.symbolic_shape("num")
    shapes = jax.ShapeDtypeStruct((num, 3), jnp.float32), jax.ShapeDtypeStruct((num,), jnp.int32)
    found = jax.export.export(jax.jit(measure))(*shapes).call(outputs, labels)
    compare = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(compare, found, measure(jnp.asarray(outputs), jnp.asarray(labels)))
