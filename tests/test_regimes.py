"""Risk regimes: the grid at one point per cell, its invariants, and regime errors compared with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor_jax.contrib import pager
from anchor_jax.contrib.pager import Regime

RNG = np.random.default_rng(0)
ID, LOW, MODERATE, HIGH = Regime
GRID = np.array([[ID, LOW, LOW], [LOW, LOW, MODERATE], [MODERATE, HIGH, HIGH]])  # uncertainty × nonconformity
UNCERTAINTY, NONCONFORMITY = (levels.ravel() for levels in np.meshgrid([0.1, 0.2, 0.7], [1.0, 5.0, 6.0], indexing="ij"))


@pytest.mark.parametrize(
    "limits", [(), ((0.1, 0.7), (1.0, 6.0)), ([0.15, 0.5], np.array([1.5, 5.5])), (None, jnp.array([2.0, 6.0]))]
)
@pytest.mark.parametrize("compiled", [False, True])
def test_risk_regimes_are_those_of_the_grid(limits, compiled):
    function = jax.jit(pager.risk_regimes) if compiled else pager.risk_regimes
    regimes = function(UNCERTAINTY, NONCONFORMITY, *limits)
    assert regimes.dtype == jnp.int32
    np.testing.assert_array_equal(regimes.reshape(3, 3), GRID)


def test_risk_regimes_split_at_the_quartiles():
    scores = RNG.permutation(400).astype(np.float32)
    as_uncertainty = np.bincount(pager.risk_regimes(scores, np.zeros(400, np.float32)), minlength=4)
    as_nonconformity = np.bincount(pager.risk_regimes(np.zeros(400, np.float32), scores), minlength=4)
    np.testing.assert_array_equal(as_uncertainty, [100, 200, 100, 0])
    np.testing.assert_array_equal(as_nonconformity, [100, 300, 0, 0])


def test_risk_regimes_of_nan_are_high_and_of_ties_low():
    scores = np.float32([1, 2, 3, 4, np.nan])
    np.testing.assert_array_equal(pager.risk_regimes(scores, scores), [ID, LOW, LOW, HIGH, HIGH])
    tied = np.full(7, 0.3, np.float32)
    np.testing.assert_array_equal(pager.risk_regimes(tied, tied), np.full(7, ID))


SCORES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8)


@given(SCORES, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_risk_regimes_keep_order_of_both_scores(pairs, random):
    pairs = [*pairs, *pairs[:1] * (8 - len(pairs))]  # one shape, so that it compiles once
    uncertainty, nonconformity = np.float32(pairs).T
    regimes = np.asarray(pager.risk_regimes(uncertainty, nonconformity))
    for first, (u, n) in zip(regimes, pairs, strict=True):
        assert all(first <= other for other, (v, m) in zip(regimes, pairs, strict=True) if u <= v and n <= m)
    order = random.sample(range(8), 8)
    np.testing.assert_array_equal(pager.risk_regimes(uncertainty[order], nonconformity[order]), regimes[order])
    np.testing.assert_array_equal(pager.risk_regimes(uncertainty**3, 2 * nonconformity + 1), regimes)


@pytest.mark.parametrize("quantiles", [(0.25, 0.75), (0.1, 0.5), np.array([0.0, 1.0])])
def test_score_limits_equal_numpy(quantiles):
    scores = RNG.gamma(2, size=38).astype(np.float32)
    expected = [np.quantile(scores, q, method=method) for q, method in zip(quantiles, ("lower", "higher"), strict=True)]
    np.testing.assert_array_equal(pager.score_limits(scores, quantiles), expected)
    np.testing.assert_array_equal(pager.score_limits(np.append(scores, np.nan), quantiles), expected)


@pytest.mark.parametrize("options", [{}, {"share": 0.1, "upper_quantile": 0.8, "lower_quantile": 0.25}])
def test_regime_errors_equal_numpy(options):
    errors, regimes = RNG.gamma(2, size=400).astype(np.float32), RNG.integers(0, 4, 400)
    share, upper, lower = {"share": 0.2, "upper_quantile": 0.9, "lower_quantile": 0.1, **options}.values()
    ours = jax.jit(pager.regime_errors)(regimes, errors, **options)
    trusted = regimes <= Regime.LOW
    large, small = np.quantile(errors, 1 - share), np.quantile(errors, share)
    expected = (
        np.mean(errors[trusted] > large),
        np.mean(errors[~trusted] < small),
        np.quantile(errors[regimes == 0], upper) / np.quantile(errors[regimes == 1], lower),
        np.quantile(errors[regimes == 2], upper) / np.quantile(errors[regimes == 3], lower),
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_regime_errors_of_ordered_and_reversed_regimes():
    errors = np.linspace(0.01, 1, 400, dtype=np.float32)
    right = pager.regime_errors(np.arange(400) // 100, errors)
    wrong = pager.regime_errors(3 - np.arange(400) // 100, errors)
    assert right.false_negatives == right.false_positives == 0
    assert max(right.confusion_low, right.confusion_high) < 1 < min(wrong.confusion_low, wrong.confusion_high)
    np.testing.assert_allclose((wrong.false_negatives, wrong.false_positives), (0.4, 0.4), atol=0.01)


def test_regime_errors_of_empty_regime_or_nan_are_nan():
    measured = pager.regime_errors(np.zeros(10, int), np.linspace(0, 1, 10))
    np.testing.assert_array_equal(np.isnan(measured), [False, True, True, True])
    assert np.isnan(pager.regime_errors(np.arange(8) % 4, np.float32([*range(7), np.nan]))).all()
