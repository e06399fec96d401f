"""The metrics against other people's libraries, hand-worked answers, and the laws they must obey."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor_jax import metrics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import relplot
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

KEYS = {"accuracy", "nll", "brier", "ece", "rms_ece", "smooth_ece"}


def softmax(logits):
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32)


def predictions(seed, num_examples=500, num_classes=10, scale=2.0, overconfidence=1.5):
    """Softmax outputs, and labels drawn from them before their logits were multiplied."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(num_examples, num_classes))
    labels = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
    return softmax(overconfidence * logits), labels


def binary(confidence, correct):
    """Probabilities and labels of two classes whose top class is 0, with these confidences and outcomes."""
    confidence = np.asarray(confidence, np.float32)
    return np.stack([confidence, 1 - confidence], axis=1), 1 - np.asarray(correct, np.int32)


prediction_sets = st.builds(
    predictions,
    seed=st.integers(0, 10_000),
    num_examples=st.sampled_from([1, 37]),  # each shape compiles anew: few of them
    scale=st.floats(0.1, 20.0),
    overconfidence=st.floats(0.3, 4.0),
)


# against other libraries


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


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("num_bins", [15, 20])
@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 2.0])
def test_calibration_error_equals_torchmetrics(norm, num_bins, overconfidence):
    probs, labels = predictions(seed=num_bins, overconfidence=overconfidence)
    assert probs.max() < 1  # at exactly 1 torchmetrics differs, see below
    expected = multiclass_calibration_error(
        torch.from_numpy(probs), torch.from_numpy(labels), num_classes=10, n_bins=num_bins, norm=norm
    )
    bins = metrics.reliability(probs, labels, num_bins)
    np.testing.assert_allclose(metrics.calibration_error(bins, norm), expected.item(), atol=2e-6)


def confidences(rng, case, size):
    """Confidences and outcomes of many characters."""
    uniform, peaked = rng.uniform(0.1, 1, size), 1 - 0.9 * rng.beta(1, 20, size)
    return {
        "calibrated": lambda: (uniform, rng.uniform(size=size) < uniform),
        "overconfident": lambda: (uniform, rng.uniform(size=size) < uniform**2),
        "underconfident": lambda: (uniform, rng.uniform(size=size) < uniform**0.3),
        "peaked": lambda: (peaked, rng.uniform(size=size) < peaked - 0.05),
        "saturated": lambda: (
            np.where(rng.uniform(size=size) < 0.5, 1, uniform),
            rng.uniform(size=size) < 0.7,
        ),
        "anti-calibrated": lambda: (uniform, rng.uniform(size=size) < 1 - uniform),
        "coin": lambda: (rng.uniform(size=size), rng.uniform(size=size) < 0.5),
        "all right": lambda: (uniform, np.ones(size)),
        "all wrong": lambda: (uniform, np.zeros(size)),
        "all equal": lambda: (np.full(size, 0.9), rng.uniform(size=size) < 0.7),
        "all equal and wrong": lambda: (np.full(size, 0.9), np.zeros(size)),
        "all one and right": lambda: (np.ones(size), np.ones(size)),
        "all one and wrong": lambda: (np.ones(size), np.zeros(size)),
        "three values": lambda: (rng.choice([0.1, 0.5, 1.0], size), rng.uniform(size=size) < 0.5),
    }[case]()


@pytest.mark.parametrize(("size", "tolerance"), [(1, 1e-3), (300, 6e-4), (50_000, 4e-4)])
@pytest.mark.parametrize(
    "case",
    [
        "calibrated",
        "overconfident",
        "underconfident",
        "peaked",
        "saturated",
        "anti-calibrated",
        "coin",
        "all right",
        "all wrong",
        "all equal",
        "all equal and wrong",
        "all one and right",
        "all one and wrong",
        "three values",
    ],
)
def test_smooth_ece_equals_relplot(case, size, tolerance):
    confidence, correct = confidences(np.random.default_rng(size), case, size)
    confidence, correct = confidence.astype(np.float32), np.asarray(correct, bool)
    expected = relplot.smECE(confidence.astype(np.float64), correct.astype(np.float64))
    np.testing.assert_allclose(metrics.smooth_ece(confidence, correct), expected, atol=tolerance)


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 2.0, 4.0])
def test_smooth_ece_of_a_classifier_equals_relplot(overconfidence):
    probs, labels = predictions(seed=0, num_examples=10_000, scale=6.0, overconfidence=overconfidence)
    correct = (probs.argmax(axis=1) == labels).astype(np.float64)
    expected = relplot.smECE(probs.max(axis=1).astype(np.float64), correct)
    np.testing.assert_allclose(metrics.summary(probs, labels)["smooth_ece"], expected, atol=2e-4)


# worked by hand


def test_accuracy_takes_the_first_class_of_a_tie_and_takes_logits():
    logits = jnp.array([[3.0, 3.0, -jnp.inf], [3.0, 3.0, -jnp.inf], [-5.0, -4.0, -6.0], [0.0, 0.0, 7.0]])
    assert metrics.accuracy(logits, jnp.array([0, 1, 1, 2])) == 0.75


def test_nll_by_hand_and_with_probability_zero():
    probs = jnp.array([[0.5, 0.5], [0.25, 0.75]])
    np.testing.assert_allclose(metrics.nll(probs, jnp.array([1, 0])), np.log(8) / 2, rtol=1e-6)
    sure_mistake = metrics.nll(jnp.array([[1.0, 0.0]]), jnp.array([1]))
    np.testing.assert_allclose(sure_mistake, -np.log(np.finfo(np.float32).tiny), rtol=1e-6)


def test_brier_sums_over_classes():
    probs = jnp.array([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    each = [0.25 + 0.09 + 0.04, 2.0, 0.0]
    np.testing.assert_allclose(metrics.brier(probs, jnp.array([0, 2, 1])), np.mean(each), rtol=1e-6)


def test_reliability_by_hand_with_empty_bins():
    probs, labels = binary([0.6, 0.7, 0.9, 0.95], [1, 0, 1, 1])
    bins = metrics.reliability(probs, labels, num_bins=4)
    np.testing.assert_array_equal(bins.count, [0, 0, 2, 2])
    np.testing.assert_allclose(bins.accuracy, [0, 0, 0.5, 1])
    np.testing.assert_allclose(bins.confidence, [0, 0, 0.65, 0.925], rtol=1e-6)
    np.testing.assert_allclose(metrics.calibration_error(bins, "l1"), (0.15 + 0.075) / 2, rtol=1e-5)
    expected = np.sqrt((0.15**2 + 0.075**2) / 2)
    np.testing.assert_allclose(metrics.calibration_error(bins, "l2"), expected, rtol=1e-5)


def test_a_confidence_on_an_edge_opens_the_upper_bin():
    probs, labels = binary([0.5, np.nextafter(np.float32(0.75), np.float32(0)), 0.75], [1, 1, 1])
    np.testing.assert_array_equal(metrics.reliability(probs, labels, num_bins=4).count, [0, 0, 2, 1])
    tenths = np.arange(6, 10, dtype=np.float32) / np.float32(10)
    bins = metrics.reliability(*binary(tenths, np.ones(4)), num_bins=10)
    np.testing.assert_array_equal(bins.count, [0] * 6 + [1] * 4)


def test_confidence_one_falls_in_the_last_bin():
    probs, labels = binary([0.95, 1.0], [1, 0])
    bins = metrics.reliability(probs, labels, num_bins=10)
    np.testing.assert_array_equal(bins.count, [0] * 9 + [2])
    np.testing.assert_allclose(metrics.calibration_error(bins), 0.475, rtol=1e-6)
    torch_args = torch.from_numpy(probs), torch.from_numpy(labels).long()
    theirs = multiclass_calibration_error(*torch_args, num_classes=2, n_bins=10, norm="l1")
    assert abs(theirs.item() - 0.475) > 0.01  # the deliberate difference; if torchmetrics mends it, drop this


def test_one_bin_compares_mean_confidence_with_accuracy():
    probs, labels = predictions(seed=3)
    bins = metrics.reliability(probs, labels, num_bins=1)
    gap = abs(probs.max(axis=1).mean() - metrics.accuracy(probs, labels))
    np.testing.assert_allclose(metrics.calibration_error(bins, "l1"), gap, rtol=1e-4)
    np.testing.assert_allclose(metrics.calibration_error(bins, "l2"), gap, rtol=1e-4)


def test_many_equal_confidences_add_up_exactly():
    bins = metrics.reliability(*binary(np.full(100_000, 0.9), np.ones(100_000)))
    np.testing.assert_allclose(bins.confidence[13], 0.9, atol=1e-6)
    np.testing.assert_allclose(metrics.smooth_ece(np.full(100_000, 0.9), np.zeros(100_000)), 0.9, atol=5e-5)


def test_one_class_is_always_right():
    summary = metrics.summary(np.ones((3, 1), np.float32), np.zeros(3, int))
    assert {name: float(value) for name, value in summary.items()} == {name: float(name == "accuracy") for name in KEYS}


def test_all_correct_and_all_wrong():
    probs = np.eye(100, dtype=np.float32)
    right = metrics.summary(probs, np.arange(100))
    wrong = metrics.summary(probs, np.roll(np.arange(100), 1))
    for name, best, worst in [
        ("accuracy", 1, 0),
        ("nll", 0, 87.33655),
        ("brier", 0, 2),
        ("ece", 0, 1),
        ("rms_ece", 0, 1),
        ("smooth_ece", 0, 1),
    ]:
        np.testing.assert_allclose(right[name], best, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(wrong[name], worst, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(("correct", "expected"), [(1, 0.2), (0, 0.8)])
def test_smooth_ece_of_one_example_is_its_residual(correct, expected):
    np.testing.assert_allclose(metrics.smooth_ece(np.array([0.8]), np.array([correct])), expected, atol=5e-5)


# laws


@settings(deadline=None, max_examples=30)
@given(prediction_sets)
def test_ranges_and_order(drawn):
    summary = {name: float(value) for name, value in metrics.summary(*drawn).items()}
    upper = dict.fromkeys(KEYS, 1.0) | {"nll": 87.4, "brier": 2.0}
    assert set(summary) == KEYS
    for name, value in summary.items():
        assert -1e-6 <= value <= upper[name] + 1e-6, (name, value)
    assert summary["ece"] <= summary["rms_ece"] + 1e-6


@settings(deadline=None, max_examples=30)
@given(prediction_sets, st.integers(0, 1000))
def test_the_order_of_examples_is_nothing(drawn, seed):
    probs, labels = drawn
    order = np.random.default_rng(seed).permutation(len(labels))
    expected, permuted = metrics.summary(probs, labels), metrics.summary(probs[order], labels[order])
    for name in KEYS:
        np.testing.assert_allclose(permuted[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


@settings(deadline=None, max_examples=30)
@given(prediction_sets, st.sampled_from([1, 30]))
def test_bins_hold_each_example_once(drawn, num_bins):
    probs, labels = drawn
    bins = metrics.reliability(probs, labels, num_bins)
    assert bins.count.sum() == len(labels)
    np.testing.assert_allclose(bins.count @ bins.accuracy, metrics.accuracy(probs, labels) * len(labels), rtol=1e-5)
    np.testing.assert_allclose(bins.count @ bins.confidence, probs.max(axis=1).sum(), rtol=1e-5)


# under jit, and with what dtypes


def test_all_functions_are_the_same_under_jit():
    probs, labels = predictions(seed=5)
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == labels
    bins = metrics.reliability(probs, labels)
    for function, args in [
        (metrics.accuracy, (probs, labels)),
        (metrics.nll, (probs, labels)),
        (metrics.brier, (probs, labels)),
        (metrics.reliability, (probs, labels)),
        (metrics.calibration_error, (bins,)),
        (metrics.smooth_ece, (confidence, correct)),
        (metrics.summary, (probs, labels)),
    ]:
        jax.tree.map(
            lambda jitted, plain: np.testing.assert_allclose(jitted, plain, rtol=1e-5, atol=1e-6),
            jax.jit(function)(*args),
            function(*args),
        )


def test_num_bins_and_norm_are_static_under_jit():
    probs, labels = predictions(seed=6)
    jitted = jax.jit(metrics.summary, static_argnames="num_bins")(probs, labels, num_bins=7)
    for norm, name in [("l1", "ece"), ("l2", "rms_ece")]:
        bins = metrics.reliability(probs, labels, num_bins=7)
        error = jax.jit(metrics.calibration_error, static_argnames="norm")(bins, norm=norm)
        np.testing.assert_allclose(jitted[name], error, rtol=1e-5)


def test_summary_is_its_parts():
    probs, labels = predictions(seed=7)
    summary = metrics.summary(probs, labels)
    for name in ("accuracy", "nll", "brier"):
        np.testing.assert_allclose(summary[name], getattr(metrics, name)(probs, labels), rtol=1e-5)
    bins = metrics.reliability(probs, labels, 15)
    np.testing.assert_allclose(summary["ece"], metrics.calibration_error(bins, "l1"), rtol=1e-5)
    np.testing.assert_allclose(summary["rms_ece"], metrics.calibration_error(bins, "l2"), rtol=1e-5)
    smooth_ece = metrics.smooth_ece(probs.max(axis=1), probs.argmax(axis=1) == labels)
    np.testing.assert_allclose(summary["smooth_ece"], smooth_ece, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("label_dtype", [jnp.int32, jnp.uint8])
def test_results_are_float32_under_strict_promotion(dtype, label_dtype):
    probs, labels = predictions(seed=8)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        summary = metrics.summary(jnp.asarray(probs, dtype), jnp.asarray(labels, label_dtype))
    assert {value.dtype for value in summary.values()} == {jnp.dtype(jnp.float32)}
    assert {value.shape for value in summary.values()} == {()}


def test_results_are_float32_in_64_bit_mode():
    probs, labels = predictions(seed=9)
    expected = metrics.summary(probs, labels)
    with jax.enable_x64(True):
        summary = metrics.summary(probs.astype(np.float64), labels)
    for name in KEYS:
        assert summary[name].dtype == jnp.float32
        np.testing.assert_allclose(summary[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


# mistakes

PROBS, LABELS = predictions(seed=10, num_examples=4, num_classes=3)


@pytest.mark.parametrize(
    ("probs", "labels", "error", "message"),
    [
        (PROBS[0], LABELS, ValueError, r"probs must be \[B, C\], B and C at least 1; got shape \(3,\)"),
        (
            PROBS[:0],
            LABELS[:0],
            ValueError,
            r"probs must be \[B, C\], B and C at least 1; got shape \(0, 3\)",
        ),
        (PROBS > 0.5, LABELS, TypeError, "probs must be floating, got bool"),
        (PROBS, LABELS[:3], ValueError, r"labels must be \[B\], \(4,\) for this probs; got shape \(3,\)"),
        (PROBS, np.eye(3, dtype=int)[LABELS], ValueError, r"labels must be \[B\].* got shape \(4, 3\)"),
        (PROBS, LABELS.astype(np.float32), TypeError, "labels must be integers, got float32"),
        (PROBS * np.nan, LABELS, ValueError, "probs must not hold NaN, got 12 of it in 12 values"),
        (5 - 10 * PROBS, LABELS, ValueError, r"probs must lie in \[0, 1\], got values from -"),
        (PROBS, np.array([0, 1, 2, 3]), ValueError, r"labels must lie in \[0, 2\], got values from 0 to 3"),
        (PROBS, np.array([0, 1, 2, -1]), ValueError, r"labels must lie in \[0, 2\], got values from -1 to 2"),
    ],
)
@pytest.mark.parametrize("metric", [metrics.nll, metrics.brier, metrics.reliability, metrics.summary])
def test_bad_predictions_are_refused(metric, probs, labels, error, message):
    with pytest.raises(error, match=message):
        metric(probs, labels)


def test_accuracy_names_its_own_argument():
    with pytest.raises(ValueError, match="probs_or_logits must not hold NaN"):
        metrics.accuracy(PROBS * np.nan, LABELS)


def test_shapes_are_refused_under_jit_too():
    with pytest.raises(ValueError, match=r"labels must be \[B\]"):
        jax.jit(metrics.summary)(PROBS, LABELS[:3])


@pytest.mark.parametrize("function", [metrics.reliability, metrics.summary])
def test_bad_num_bins_is_refused(function):
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        function(PROBS, LABELS, num_bins=0)
    with pytest.raises(TypeError, match="num_bins must be an integer, static under jit; got float"):
        function(PROBS, LABELS, num_bins=15.0)
    with pytest.raises(TypeError, match="num_bins must be an integer, static under jit"):
        jax.jit(function)(PROBS, LABELS, num_bins=15)


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm must be 'l1' or 'l2', got 'max'"):
        metrics.calibration_error(metrics.reliability(PROBS, LABELS), "max")


@pytest.mark.parametrize(
    ("confidence", "correct", "error", "message"),
    [
        (PROBS, LABELS, ValueError, r"confidence must be \[B\], B at least 1; got shape \(4, 3\)"),
        (PROBS[:0, 0], LABELS[:0], ValueError, r"confidence must be \[B\], B at least 1; got shape \(0,\)"),
        (LABELS, LABELS, TypeError, "confidence must be floating, got int32"),
        (
            PROBS[:, 0],
            LABELS[:3],
            ValueError,
            r"correct must be \[B\], \(4,\) as confidence; got shape \(3,\)",
        ),
        (PROBS[:, 0] * np.nan, LABELS, ValueError, "confidence must not hold NaN, got 4 of it in 4 values"),
        (PROBS[:, 0] + 1, LABELS, ValueError, r"confidence must lie in \[0, 1\], got values from 1"),
        (PROBS[:, 0], np.array([0, 1, 2, 1]), ValueError, "correct must be bool or hold 0 and 1 alone"),
    ],
)
def test_bad_outcomes_are_refused(confidence, correct, error, message):
    with pytest.raises(error, match=message):
        metrics.smooth_ece(confidence, correct)
