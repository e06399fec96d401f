"""Calibration errors compared with other libraries and known values, and their invariants."""

import itertools
import warnings

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from anchor_jax import metrics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import relplot
    import torch
    from torchmetrics.functional.classification import binary_calibration_error


def confidences(rng, case, size):
    """Draw confidences and correctness of one case."""
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


def equal_mass_gaps(confidence, correct, num_bins):
    """Return accuracy - confidence of bins of equal mass: num_bins copies of each example, B copies per bin."""
    order = np.argsort(confidence, kind="stable")
    residual = np.asarray(correct, np.float64)[order] - np.asarray(confidence, np.float64)[order]
    return np.repeat(residual, num_bins).reshape(num_bins, -1).mean(axis=1)


@st.composite
def confidence_sets(draw):
    """Draw confidences with many ties, and correctness."""
    size = draw(st.sampled_from([1, 2, 24]))  # few shapes, since each compiles anew
    values = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(2**-20, 1, width=32))
    confidence = draw(st.lists(values, min_size=size, max_size=size))
    correct = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return np.array(confidence, np.float32), np.array(correct)


# comparison with other libraries


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("num_bins", [1, 15])
def test_calibration_error_equals_torchmetrics(norm, num_bins):
    confidence, correct = confidences(np.random.default_rng(num_bins), "overconfident", 1000)
    confidence = confidence.astype(np.float32)
    torch_args = torch.from_numpy(confidence), torch.from_numpy(correct.astype(int))
    expected = binary_calibration_error(*torch_args, n_bins=num_bins, norm=norm)
    bins = metrics.reliability_bins(confidence, correct, num_bins)
    np.testing.assert_allclose(metrics.calibration_error(bins, norm), expected.item(), atol=2e-6)


@pytest.mark.parametrize("case", ["calibrated", "overconfident", "peaked", "anti-calibrated", "all wrong"])
def test_adaptive_error_equals_sklearn_quantile_bins(case):
    confidence, correct = confidences(np.random.default_rng(1), case, 1500)
    confidence = confidence.astype(np.float32)
    right, promised = calibration_curve(correct, confidence, n_bins=15, strategy="quantile")
    assert len(right) == 15
    expected = np.mean(np.abs(right - promised))  # each bin holds 100 examples
    np.testing.assert_allclose(metrics.adaptive_calibration_error(confidence, correct), expected, atol=2e-6)


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


# known values


def test_reliability_bins_known_values_with_empty_bins():
    bins = metrics.reliability_bins(np.float32([0.6, 0.7, 0.9, 0.95]), np.array([1, 0, 1, 1]), num_bins=4)
    np.testing.assert_array_equal(bins.count, [0, 0, 2, 2])
    np.testing.assert_allclose(bins.accuracy, [0, 0, 0.5, 1])
    np.testing.assert_allclose(bins.confidence, [0, 0, 0.65, 0.925], rtol=1e-6)
    np.testing.assert_allclose(metrics.calibration_error(bins, "l1"), (0.15 + 0.075) / 2, rtol=1e-5)
    expected = np.sqrt((0.15**2 + 0.075**2) / 2)
    np.testing.assert_allclose(metrics.calibration_error(bins, "l2"), expected, rtol=1e-5)


def test_reliability_bins_the_top_classes():
    probs = np.float32([[0.6, 0.4], [0.3, 0.7], [0.5, 0.5]])
    of_classes = metrics.reliability(probs, np.array([1, 1, 0]), num_bins=5)
    expected = metrics.reliability_bins(np.float32([0.6, 0.7, 0.5]), np.array([0, 1, 1]), num_bins=5)
    jax.tree.map(np.testing.assert_array_equal, of_classes, expected)


def test_reliability_bins_edge_belongs_to_upper_bin():
    confidence = np.array([0.5, np.nextafter(np.float32(0.75), np.float32(0)), 0.75], np.float32)
    np.testing.assert_array_equal(metrics.reliability_bins(confidence, np.ones(3), num_bins=4).count, [0, 0, 2, 1])
    tenths = np.arange(6, 10, dtype=np.float32) / np.float32(10)
    bins = metrics.reliability_bins(tenths, np.ones(4), num_bins=10)
    np.testing.assert_array_equal(bins.count, [0] * 6 + [1] * 4)


def test_reliability_bins_confidence_one_is_in_last_bin():
    confidence, correct = np.float32([0.95, 1.0]), np.array([1, 0])
    bins = metrics.reliability_bins(confidence, correct, num_bins=10)
    np.testing.assert_array_equal(bins.count, [0] * 9 + [2])
    np.testing.assert_allclose(metrics.calibration_error(bins), 0.475, rtol=1e-6)
    theirs = binary_calibration_error(torch.from_numpy(confidence), torch.from_numpy(correct), n_bins=10, norm="l1")
    assert abs(theirs.item() - 0.475) > 0.01  # a deliberate difference; remove this when torchmetrics fixes it


def test_calibration_errors_of_one_bin_are_the_mean_gap():
    confidence, correct = confidences(np.random.default_rng(3), "overconfident", 500)
    bins = metrics.reliability_bins(confidence, correct, num_bins=1)
    gap = abs(confidence.mean() - correct.mean())
    np.testing.assert_allclose(metrics.calibration_error(bins, "l1"), gap, rtol=1e-4)
    np.testing.assert_allclose(metrics.calibration_error(bins, "l2"), gap, rtol=1e-4)
    np.testing.assert_allclose(metrics.adaptive_calibration_error(confidence, correct, 1), gap, rtol=1e-4)


def test_calibration_errors_sum_equal_confidences_exactly():
    confidence, wrong = np.full(100_000, 0.9), np.zeros(100_000)
    np.testing.assert_allclose(metrics.reliability_bins(confidence, wrong).confidence[13], 0.9, atol=1e-6)
    np.testing.assert_allclose(metrics.smooth_ece(confidence, wrong), 0.9, atol=5e-5)
    np.testing.assert_allclose(metrics.adaptive_calibration_error(confidence, wrong), 0.9, atol=2e-6)


@pytest.mark.parametrize(("correct", "expected"), [(1, 0.2), (0, 0.8)])
def test_smooth_ece_of_one_example_is_its_residual(correct, expected):
    np.testing.assert_allclose(metrics.smooth_ece(np.array([0.8]), np.array([correct])), expected, atol=5e-5)
    assert metrics.smooth_ece(np.array([1.0]), np.array([0])) <= 1


def test_adaptive_error_known_values():
    confidence, correct = np.float32([0.9, 0.6, 0.8, 0.7]), np.array([1, 0, 1, 1])
    error = metrics.adaptive_calibration_error(confidence, correct, num_bins=2)
    np.testing.assert_allclose(error, (abs(0.5 - 0.65) + abs(1 - 0.85)) / 2, rtol=1e-5)
    # four thirds of an example per bin: 0.6 and 1/3 of 0.7; 2/3 of 0.7 and 2/3 of 0.8; 1/3 of 0.8 and 0.9
    error = metrics.adaptive_calibration_error(confidence, correct, num_bins=3)
    np.testing.assert_allclose(error, (abs(0.6 - 0.3 / 3) + (0.3 + 0.2) * 2 / 3 + 0.2 / 3 + 0.1) / 4, rtol=1e-5)


@pytest.mark.parametrize("num_bins", [2, 3, 15])
def test_adaptive_error_divides_ties_evenly_at_borders(num_bins):
    confidence, correct = np.float32([0.5] * 8 + [0.9] * 2), np.array([1, 0, 0, 0] * 2 + [1, 1])
    # each side has 1 correct example in 4, whatever their order
    if num_bins == 15:
        expected = 0.8 * 0.25 + 0.2 * 0.1  # no bin mixes the two confidences
    else:
        first = 10 - 10 / num_bins  # examples below the last bin, all with confidence 0.5
        expected = (first * 0.25 + abs((8 - first) * 0.25 - 2 * 0.1)) / 10
    error = metrics.adaptive_calibration_error(confidence, correct, num_bins)
    np.testing.assert_allclose(error, expected, atol=1e-6)


@pytest.mark.parametrize("num_bins", [1, 2, 3, 5, 7])
@pytest.mark.parametrize(
    ("confidence", "correct"),
    [
        ([0.9, 0.9, 0.9, 0.9], [1, 1, 0, 0]),
        ([0.9, 0.5, 0.5, 0.5, 1.0], [1, 1, 0, 0, 0]),
        ([0.3, 0.3, 0.7, 0.7, 0.7, 0.7], [0, 1, 1, 0, 0, 1]),
        ([1.0], [0]),
    ],
)
def test_adaptive_error_averages_over_orders_of_ties(confidence, correct, num_bins):
    confidence, correct = np.array(confidence), np.array(correct)
    orders = [list(order) for order in itertools.permutations(range(len(correct)))]
    gaps = np.mean([equal_mass_gaps(confidence[order], correct[order], num_bins) for order in orders], axis=0)
    error = metrics.adaptive_calibration_error(confidence, correct, num_bins)
    np.testing.assert_allclose(error, np.mean(np.abs(gaps)), atol=1e-6)


# invariants


@pytest.mark.parametrize("size", [5, 14, 15, 16, 1007])
def test_adaptive_error_is_close_to_rounded_borders(size):
    confidence, correct = confidences(np.random.default_rng(size), "overconfident", size)
    error = metrics.adaptive_calibration_error(confidence, correct)
    np.testing.assert_allclose(error, np.mean(np.abs(equal_mass_gaps(confidence, correct, 15))), atol=2e-6)
    order = np.argsort(confidence)
    whole = np.array_split(correct[order] - confidence[order], 15)
    assert abs(error - sum(abs(part.sum()) for part in whole) / size) < 2 * 15 / size


@settings(deadline=None, max_examples=50)
@given(confidence_sets(), st.integers(0, 1000))
def test_adaptive_error_ignores_order_of_examples(drawn, seed):
    confidence, correct = drawn
    order = np.random.default_rng(seed).permutation(len(correct))
    permuted = metrics.adaptive_calibration_error(confidence[order], correct[order], 5)
    assert permuted == metrics.adaptive_calibration_error(confidence, correct, 5)  # bit for bit


@settings(deadline=None, max_examples=50)
@given(confidence_sets())
def test_adaptive_error_does_not_increase_with_fewer_bins(drawn):
    errors = [float(metrics.adaptive_calibration_error(*drawn, num_bins)) for num_bins in (1, 2, 4, 48)]
    confidence, correct = drawn
    np.testing.assert_allclose(errors[0], abs(correct.mean() - confidence.mean()), atol=2e-6)
    assert errors[-1] <= 1 + 2e-6
    assert all(few <= many + 2e-6 for few, many in itertools.pairwise(errors))


@settings(deadline=None, max_examples=30)
@given(confidence_sets(), st.sampled_from([1, 30]))
def test_reliability_bins_hold_each_example_once(drawn, num_bins):
    confidence, correct = drawn
    bins = metrics.reliability_bins(confidence, correct, num_bins)
    assert bins.count.sum() == len(correct)
    np.testing.assert_allclose(bins.count @ bins.accuracy, correct.sum(), rtol=1e-5)
    np.testing.assert_allclose(bins.count @ bins.confidence, confidence.sum(), rtol=1e-5)


@settings(deadline=None, max_examples=30)
@given(confidence_sets())
def test_calibration_errors_of_duplicated_set_are_unchanged(drawn):
    errors = [
        (
            metrics.calibration_error(metrics.reliability_bins(*examples)),
            metrics.adaptive_calibration_error(*examples),
            metrics.smooth_ece(*examples),
        )
        for examples in (drawn, [np.tile(column, 2) for column in drawn])
    ]
    np.testing.assert_allclose(*errors, atol=2e-6)


# under jit, and invalid arguments


def test_calibration_functions_under_jit():
    examples = confidences(np.random.default_rng(5), "peaked", 500)
    probs, labels = np.float32([[0.6, 0.4], [0.3, 0.7]]), np.array([1, 1])
    for function, args in [
        (metrics.reliability, (probs, labels)),
        (metrics.reliability_bins, examples),
        (metrics.calibration_error, (metrics.reliability_bins(*examples),)),
        (metrics.adaptive_calibration_error, examples),
        (metrics.smooth_ece, examples),
    ]:
        jax.tree.map(
            lambda jitted, plain: np.testing.assert_allclose(jitted, plain, rtol=1e-5, atol=1e-6),
            jax.jit(function)(*args),
            function(*args),
        )


def test_calibration_num_bins_and_norm_are_static_under_jit():
    examples = confidences(np.random.default_rng(6), "overconfident", 500)
    bins = jax.jit(metrics.reliability_bins, static_argnames="num_bins")(*examples, num_bins=7)
    for norm in ("l1", "l2"):
        error = jax.jit(metrics.calibration_error, static_argnames="norm")(bins, norm=norm)
        np.testing.assert_allclose(error, metrics.calibration_error(bins, norm), rtol=1e-5)
    jitted = jax.jit(metrics.adaptive_calibration_error, static_argnames="num_bins")(*examples, num_bins=7)
    np.testing.assert_allclose(jitted, metrics.adaptive_calibration_error(*examples, 7), rtol=1e-5)


CONFIDENCE, CORRECT = np.float32([0.9, 0.8, 0.4, 0.3]), np.array([1, 1, 0, 1])


@pytest.mark.invalid_arguments
@pytest.mark.parametrize("function", [metrics.reliability_bins, metrics.adaptive_calibration_error])
def test_calibration_num_bins_is_checked(function):
    with pytest.raises(ValueError, match="num_bins must be at least 1; got 0"):
        function(CONFIDENCE, CORRECT, num_bins=0)
    with pytest.raises(TypeError, match=r"num_bins must be an integer, static under jit; got 15\.0"):
        function(CONFIDENCE, CORRECT, num_bins=15.0)
    with pytest.raises(TypeError, match="num_bins must be an integer, static under jit"):
        jax.jit(function)(CONFIDENCE, CORRECT, num_bins=15)


@pytest.mark.invalid_arguments
def test_calibration_error_norm_is_checked():
    with pytest.raises(ValueError, match="norm must be 'l1' or 'l2'; got 'max'"):
        metrics.calibration_error(metrics.reliability_bins(CONFIDENCE, CORRECT), "max")


@pytest.mark.invalid_arguments
@pytest.mark.parametrize(
    ("confidence", "correct", "error", "message"),
    [
        (np.ones((4, 3)), CORRECT, ValueError, r"confidence must have shape \[B\], B at least 1; got \(4, 3\)"),
        (CONFIDENCE[:0], CORRECT[:0], ValueError, r"confidence must have shape \[B\], B at least 1; got \(0,\)"),
        (CORRECT, CORRECT, TypeError, "confidence must have a floating dtype; got int64"),
        (CONFIDENCE, CORRECT[:3], ValueError, r"correct must have the shape of confidence, \(4,\); got \(3,\)"),
        (CONFIDENCE * np.nan, CORRECT, ValueError, "confidence must not contain NaN; got 4 NaN in 4 values"),
        (CONFIDENCE + 1, CORRECT, ValueError, r"confidence must be in \[0, 1\]; got values from 1"),
        (CONFIDENCE, np.array([0, 1, 2, 1]), ValueError, "correct must be bool or contain only 0 and 1"),
    ],
)
@pytest.mark.parametrize("metric", [metrics.reliability_bins, metrics.adaptive_calibration_error, metrics.smooth_ece])
def test_calibration_arguments_are_checked(metric, confidence, correct, error, message):
    with pytest.raises(error, match=message):
        metric(confidence, correct)
