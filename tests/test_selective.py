"""Risk and coverage compared with scikit-learn, all orders of small sets and known values; their invariants."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from anchor_jax import metrics


@st.composite
def confidence_sets(draw):
    """Draw scores of any sign with many ties, and correctness."""
    size = draw(st.sampled_from([1, 2, 24]))  # few shapes, since each compiles anew
    values = st.one_of(
        st.sampled_from([-1.0, -0.0, 0.0, 1.0]), st.floats(-(2**20), 2**20, width=32, allow_subnormal=False)
    )
    confidence = draw(st.lists(values, min_size=size, max_size=size))
    correct = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return np.array(confidence, np.float32), np.array(correct)


def risks_in_order(confidence, correct):
    """Return the error rates among the first 1, 2 ... examples by decreasing confidence, ties in their given order."""
    wrong = ~np.asarray(correct, bool)[np.argsort(-np.asarray(confidence), kind="stable")]
    return np.cumsum(wrong) / np.arange(1, len(wrong) + 1)


# comparison with other code


@pytest.mark.parametrize("num_values", [10, 100_000])
def test_risk_is_one_minus_sklearn_precision(num_values):
    rng = np.random.default_rng(num_values)
    confidence = (rng.integers(1, num_values + 1, 2000) / num_values).astype(np.float32)
    correct = rng.uniform(size=2000) < confidence
    precision, _, thresholds = precision_recall_curve(correct, confidence)
    accepted = (confidence[None, :] >= thresholds[:, None]).sum(axis=1)
    coverage, risk = metrics.risk_coverage(confidence, correct)
    np.testing.assert_allclose(coverage, np.arange(1, 2001) / 2000, rtol=1e-6)
    np.testing.assert_allclose(risk[accepted - 1], 1 - precision[:-1], atol=1e-6)


@pytest.mark.parametrize(
    ("confidence", "correct"),
    [
        ([0.9, 0.9, 0.9, 0.9], [1, 1, 1, 0]),
        ([0.9, 0.5, 0.5, 0.5, 1.0], [1, 1, 0, 0, 0]),
        ([0.3, 0.3, 0.7, 0.7, 0.7, 0.7], [0, 1, 1, 0, 0, 1]),
        ([0.2, 0.4, 0.6, 0.8], [1, 0, 0, 1]),
        ([-3.0, -3.0, -np.inf, 0.0, -0.0], [1, 0, 1, 0, 1]),
        ([0.5], [0]),
    ],
)
def test_risk_averages_over_orders_of_ties(confidence, correct):
    confidence, correct = np.array(confidence), np.array(correct)
    orders = [list(order) for order in itertools.permutations(range(len(correct)))]
    expected = np.mean([risks_in_order(confidence[order], correct[order]) for order in orders], axis=0)
    np.testing.assert_allclose(metrics.risk_coverage(confidence, correct).risk, expected, atol=1e-6)
    np.testing.assert_allclose(metrics.aurc(confidence, correct), expected.mean(), atol=1e-6)
    best = min(risks_in_order(range(len(correct)), correct[order]).mean() for order in orders)
    np.testing.assert_allclose(metrics.excess_aurc(confidence, correct), expected.mean() - best, atol=1e-6)


def test_risk_of_large_set_is_exact():
    rng = np.random.default_rng(0)
    confidence = rng.permutation(200_000).astype(np.float32) / 200_000  # no ties
    correct = rng.uniform(size=200_000) < 0.5 + confidence / 2
    expected = risks_in_order(confidence, correct)
    np.testing.assert_allclose(metrics.risk_coverage(confidence, correct).risk, expected, atol=1e-7)
    np.testing.assert_allclose(metrics.aurc(confidence, correct), expected.mean(), atol=1e-6)


@pytest.mark.parametrize("error_rate", [0.05, 0.5, 0.95])
def test_aurc_of_best_ranking_has_published_limit(error_rate):
    correct = np.arange(100_000) >= error_rate * 100_000
    limit = error_rate + (1 - error_rate) * np.log(1 - error_rate)
    np.testing.assert_allclose(metrics.aurc(correct.astype(np.float32), correct), limit, atol=1e-4)


# known values


def test_risk_and_areas_known_values():
    confidence, correct = np.float32([0.6, 0.9, 0.8, 0.7]), np.array([0, 1, 0, 1])
    coverage, risk = metrics.risk_coverage(confidence, correct)
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 2], rtol=1e-6)
    np.testing.assert_allclose(metrics.aurc(confidence, correct), 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(metrics.excess_aurc(confidence, correct), 1 / 3 - 5 / 24, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 50])
@pytest.mark.parametrize(("outcome", "risk"), [(True, 0), (False, 1)])
def test_risk_of_all_correct_and_all_wrong(size, outcome, risk):
    examples = np.linspace(0.1, 1, size), np.full(size, outcome)
    np.testing.assert_array_equal(metrics.risk_coverage(*examples).risk, np.full(size, risk))
    assert metrics.aurc(*examples) == risk
    assert metrics.excess_aurc(*examples) == 0


def test_risk_of_all_ties_is_the_error_rate():
    examples = np.full(40, 0.9), np.arange(40) < 30
    np.testing.assert_allclose(metrics.risk_coverage(*examples).risk, np.full(40, 0.25), atol=1e-6)
    np.testing.assert_allclose(metrics.aurc(*examples), 0.25, rtol=1e-6)


# invariants


@settings(deadline=None, max_examples=50)
@given(confidence_sets(), st.integers(0, 1000))
def test_risk_ignores_order_of_examples(drawn, seed):
    confidence, correct = drawn
    order = np.random.default_rng(seed).permutation(len(correct))
    permuted = metrics.risk_coverage(confidence[order], correct[order])
    jax.tree.map(np.testing.assert_array_equal, permuted, metrics.risk_coverage(confidence, correct))


@settings(deadline=None, max_examples=50)
@given(confidence_sets())
def test_risk_is_in_range_and_ends_at_the_error_rate(drawn):
    confidence, correct = drawn
    risk = np.asarray(metrics.risk_coverage(confidence, correct).risk)
    assert ((risk >= -1e-6) & (risk <= 1 + 1e-6)).all()
    np.testing.assert_allclose(risk[-1], 1 - correct.mean(), atol=1e-6)
    excess = float(metrics.excess_aurc(confidence, correct))
    worst = metrics.aurc((~correct).astype(np.float32), correct) - metrics.aurc(correct.astype(np.float32), correct)
    assert -1e-6 <= excess <= worst + 1e-6


@settings(deadline=None, max_examples=50)
@given(confidence_sets())
def test_risk_depends_only_on_order_of_confidence(drawn):
    confidence, correct = drawn
    rank = np.unique(confidence, return_inverse=True)[1].astype(np.float32)
    jax.tree.map(
        np.testing.assert_array_equal,
        metrics.risk_coverage(rank, correct),
        metrics.risk_coverage(confidence, correct),
    )


# under jit, and dtypes


FUNCTIONS = [metrics.risk_coverage, metrics.aurc, metrics.excess_aurc]
CONFIDENCE, CORRECT = np.float32([0.9, 0.8, 0.4, 0.4]), np.array([1, 1, 0, 1])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_selective_functions_under_jit(function):
    jax.tree.map(
        lambda jitted, plain: np.testing.assert_allclose(jitted, plain, atol=1e-6),
        jax.jit(function)(CONFIDENCE, CORRECT),
        function(CONFIDENCE, CORRECT),
    )


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_selective_functions_return_float32(function, dtype):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        result = function(jnp.asarray(CONFIDENCE, dtype), CORRECT.astype(bool))
    with jax.enable_x64(True):
        wide = function(CONFIDENCE.astype(np.float64), CORRECT)
    assert {value.dtype for value in jax.tree.leaves((result, wide))} == {jnp.dtype(jnp.float32)}


# invalid arguments


@pytest.mark.invalid_arguments
@pytest.mark.parametrize(
    ("confidence", "correct", "error", "message"),
    [
        (CONFIDENCE[:0], CORRECT[:0], ValueError, r"confidence must have shape \[B\], B at least 1; got \(0,\)"),
        (CORRECT, CORRECT, TypeError, "confidence must have a floating dtype; got int64"),
        (CONFIDENCE, CORRECT[:3], ValueError, r"correct must have the shape of confidence, \(4,\); got \(3,\)"),
        (CONFIDENCE * np.nan, CORRECT, ValueError, "confidence must not contain NaN; got 4 NaN in 4 values"),
        (CONFIDENCE, np.array([0, 1, 2, 1]), ValueError, "correct must be bool or contain only 0 and 1"),
    ],
)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_selective_arguments_are_checked(function, confidence, correct, error, message):
    with pytest.raises(error, match=message):
        function(confidence, correct)


def test_risk_orders_float64_before_rounding():
    confidence, correct = 1 - np.array([1e-12, 1e-9, 1e-11, 1e-10]), np.array([True, False, True, False])
    np.testing.assert_allclose(metrics.risk_coverage(confidence, correct).risk, [0, 0, 1 / 3, 0.5], rtol=1e-6)
    assert metrics.excess_aurc(confidence, correct) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_risk_orders_numbers_below_the_normal_ones(as_array):
    confidence = as_array(np.array([2e-45, -3e-40, 1e-39, 0], np.float32))
    risk = metrics.risk_coverage(confidence, np.array([True, False, True, False])).risk
    np.testing.assert_allclose(risk, [0, 0, 1 / 3, 0.5], rtol=1e-6)
