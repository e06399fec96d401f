"""PAGER: scores compared with loops and closed forms, regime errors with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.contrib import pager
from anchor_jax.contrib.pager import Regime

RNG = np.random.default_rng(0)
B, K, C, D = 5, 7, 3, 2
X, REFERENCES = (RNG.normal(size=(num, C)).astype(np.float32) for num in (B, K))
TARGETS = RNG.normal(size=(K, D)).astype(np.float32)
PARAMS = {"a": RNG.normal(size=(2 * C, 8)).astype(np.float32), "b": RNG.normal(size=(8, D)).astype(np.float32)}


def network(params, inputs):
    return jnp.tanh(inputs @ params["a"]) @ params["b"]


@pytest.mark.parametrize("chunk_size", [None, 3, 100])
def test_nonconformity_equals_loop_over_references(chunk_size):
    expected = np.zeros(B)
    for row, x in enumerate(X):
        for reference, target in zip(REFERENCES, TARGETS, strict=True):
            output = np.tanh(np.concatenate([x, reference - x]) @ PARAMS["a"]) @ PARAMS["b"]
            expected[row] = max(expected[row], np.abs(target - output).sum())
    score = jax.jit(pager.nonconformity, static_argnames=("apply_fn", "chunk_size"))
    ours = score(network, PARAMS, X, REFERENCES, TARGETS, chunk_size=chunk_size)
    assert (ours.shape, ours.dtype) == ((B,), jnp.float32)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_nonconformity_of_exact_predictions_is_zero():
    def exact(params, inputs):
        return 3 * inputs.sum(axis=1)

    references = REFERENCES[:, :1]
    scores = pager.nonconformity(exact, None, X[:, :1], references, 3 * references[:, 0])
    np.testing.assert_allclose(scores, np.zeros(B), atol=1e-5)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_refined_nonconformity_is_distance_to_minimum(chunk_size):
    a, b = 2.0, 0.5

    def linear(params, inputs):  # y - f([x, r - x]) is 0 at x = (y - b·r) / (a - b)
        return a * inputs[:, 0] + b * inputs[:, 1]

    x, references, targets = X[:, :1], REFERENCES[:, :1], TARGETS[:, 0]
    minimum = (targets - b * references[:, 0]) / (a - b)
    ours = pager.refined_nonconformity(
        linear, None, x, references, targets, steps=400, learning_rate=0.03, chunk_size=chunk_size
    )
    np.testing.assert_allclose(ours, np.abs(x - minimum).max(axis=1), atol=0.1)


def test_refined_nonconformity_regularizer_holds_inputs():
    x = X[:, :1]

    def held(inputs):
        return 1e3 * jnp.sum((inputs - x) ** 2, axis=1)

    def score(regularizer):
        return pager.refined_nonconformity(
            lambda params, inputs: inputs[:, 0], None, x, REFERENCES[:, :1], TARGETS[:, 0], regularizer=regularizer
        )

    assert np.all(score(held) < 0.1)
    assert np.all(score(None) > 0.5)


def test_risk_regimes_are_the_four_combinations():
    uncertainty, nonconformity = np.array([0.1, 0.9, 0.1, 0.9]), np.array([1.0, 1.0, 3.0, 3.0])
    regimes = jax.jit(pager.risk_regimes)(uncertainty, nonconformity, 0.5, 2.0)
    np.testing.assert_array_equal(regimes, [Regime.ID, Regime.LOW, Regime.MODERATE, Regime.HIGH])


def test_regime_errors_equal_numpy():
    errors, regimes = RNG.gamma(2, size=400).astype(np.float32), RNG.integers(0, 4, 400)
    ours = jax.jit(pager.regime_errors)(regimes, errors)
    trusted = regimes <= Regime.LOW
    large, small = np.quantile(errors, 0.8), np.quantile(errors, 0.2)
    expected = (
        np.mean(errors[trusted] > large),
        np.mean(errors[~trusted] < small),
        np.quantile(errors[regimes == 0], 0.8) / np.quantile(errors[regimes == 1], 0.2),
        np.quantile(errors[regimes == 2], 0.8) / np.quantile(errors[regimes == 3], 0.2),
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_regime_errors_of_ordered_and_reversed_regimes():
    errors = np.linspace(0.01, 1, 400, dtype=np.float32)
    right = pager.regime_errors(np.arange(400) // 100, errors)
    wrong = pager.regime_errors(3 - np.arange(400) // 100, errors)
    assert right.false_negatives == right.false_positives == 0
    assert max(right.confusion_low, right.confusion_high) < 1 < min(wrong.confusion_low, wrong.confusion_high)
    np.testing.assert_allclose((wrong.false_negatives, wrong.false_positives), (0.4, 0.4), atol=0.01)


def test_regime_errors_of_empty_regime_are_nan():
    measured = pager.regime_errors(np.zeros(10, int), np.linspace(0, 1, 10))
    np.testing.assert_array_equal(np.isnan(measured), [False, True, True, True])
