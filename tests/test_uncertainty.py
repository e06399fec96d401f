"""Uncertainty of predictions compared with SciPy and NumPy, and known values."""

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anchor_jax.core import uncertainty
from anchor_jax.core.uncertainty import information_gain

predictive_entropy = jax.jit(uncertainty.predictive_entropy)
expected_entropy = jax.jit(uncertainty.expected_entropy)
mutual_information = jax.jit(uncertainty.mutual_information)
probability_spread = jax.jit(uncertainty.probability_spread)
FUNCTIONS = pytest.mark.parametrize(
    "function", [predictive_entropy, expected_entropy, mutual_information, probability_spread]
)

SHAPE = (5, 4, 3)  # K, B, C


def distributions(seed, shape=SHAPE, scale=3.0):
    logits = scale * np.random.default_rng(seed).normal(size=shape)
    return scipy.special.softmax(logits, axis=-1).astype(np.float32)


# extreme logits, to include probabilities of 0 and 1
any_distributions = arrays(np.float32, SHAPE, elements=st.floats(-200, 200, width=32)).map(
    lambda logits: scipy.special.softmax(logits, axis=-1)
)


@pytest.mark.parametrize("shape", [(3,), SHAPE])
def test_predictive_entropy_equals_scipy(shape):
    probs = distributions(0, shape)
    expected = scipy.stats.entropy(probs.astype(np.float64), axis=-1)
    np.testing.assert_allclose(predictive_entropy(probs), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_entropy_decomposition_equals_scipy(scale):
    probs = distributions(1, scale=scale).astype(np.float64)
    expected = scipy.stats.entropy(probs, axis=-1).mean(axis=0)
    gain = scipy.stats.entropy(probs.mean(axis=0), axis=-1) - expected
    np.testing.assert_allclose(expected_entropy(jnp.asarray(probs)), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mutual_information(jnp.asarray(probs)), gain, rtol=1e-4, atol=1e-6)


def test_mutual_information_is_mean_kl_from_mean_prediction():
    probs = distributions(2).astype(np.float64)
    divergences = scipy.stats.entropy(probs, probs.mean(axis=0, keepdims=True), axis=-1)
    np.testing.assert_allclose(mutual_information(jnp.asarray(probs)), divergences.mean(axis=0), rtol=1e-4)


def test_mutual_information_of_full_disagreement_is_ln_2():
    disagreement = jnp.eye(2)[:, None]
    agreement = jnp.stack([jnp.eye(2)[:1]] * 2)
    for probs, predictive, spread in [(disagreement, np.log(2), np.sqrt(0.5)), (agreement, 0.0, 0.0)]:
        np.testing.assert_allclose(mutual_information(probs), [predictive], rtol=1e-6)
        np.testing.assert_allclose(predictive_entropy(probs.mean(axis=0)), [predictive], rtol=1e-6)
        np.testing.assert_array_equal(expected_entropy(probs), [0.0])
        np.testing.assert_allclose(probability_spread(probs), [[spread, spread]], rtol=1e-6)


@pytest.mark.parametrize("num_classes", [2, 1000])
def test_entropy_of_uniform_predictions_is_ln_c(num_classes):
    probs = jnp.full((4, 3, num_classes), 1 / num_classes)
    np.testing.assert_allclose(predictive_entropy(probs), np.full((4, 3), np.log(num_classes)), rtol=1e-5)
    np.testing.assert_allclose(expected_entropy(probs), np.full(3, np.log(num_classes)), rtol=1e-5)
    np.testing.assert_allclose(mutual_information(probs), np.zeros(3), atol=1e-5)


def test_mutual_information_of_equal_references_is_zero():
    probs = np.repeat(distributions(3)[:1], 7, axis=0)
    np.testing.assert_allclose(mutual_information(probs), np.zeros(4), atol=1e-6)
    np.testing.assert_allclose(probability_spread(probs), np.zeros((4, 3)), atol=1e-6)


def test_information_gain_is_difference_clipped_at_zero():
    gain = information_gain(jnp.array([0.5, 0.25, 0.25]), jnp.array([0.125, 0.25, 0.5]))
    np.testing.assert_array_equal(gain, [0.375, 0.0, 0.0])


@settings(deadline=None, max_examples=50)
@given(any_distributions)
def test_uncertainty_is_in_range_for_any_probabilities(probs):
    upper = np.log(SHAPE[-1]) + 1e-5
    for value in (predictive_entropy(probs), expected_entropy(probs), mutual_information(probs)):
        assert np.all((np.asarray(value) >= 0) & (np.asarray(value) <= upper))
    spread = np.asarray(probability_spread(probs))
    assert np.all((spread >= 0) & (spread <= 0.71))


def test_predictive_entropy_ignores_zero_probabilities():
    probs = jnp.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [1.0, -1e-8, 0.0]])  # one is rounded
    np.testing.assert_allclose(predictive_entropy(probs), [np.log(2), 0.0, 0.0], rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(any_distributions)
def test_probability_spread_equals_numpy(probs):
    expected = np.std(probs.astype(np.float64), axis=0, ddof=1)
    np.testing.assert_allclose(probability_spread(probs), expected, rtol=1e-4, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(any_distributions, st.permutations(range(SHAPE[0])))
def test_uncertainty_ignores_order_of_references(probs, order):
    for function in (expected_entropy, mutual_information, probability_spread):
        np.testing.assert_allclose(function(probs[order]), function(probs), rtol=1e-5, atol=1e-6)


@FUNCTIONS
def test_uncertainty_under_jit_vmap_and_strict_promotion(function):
    probs = distributions(4)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        expected = function(probs)
    assert expected.dtype == jnp.float32
    np.testing.assert_allclose(function.__wrapped__(probs), expected, rtol=1e-5, atol=1e-6)
    mapped = jax.jit(jax.vmap(function, in_axes=1))(probs)  # over examples
    axis = 1 if function is predictive_entropy else 0  # keeps the axis of references, after that of examples
    np.testing.assert_allclose(np.moveaxis(mapped, 0, axis), expected, rtol=1e-5, atol=1e-6)


@FUNCTIONS
def test_uncertainty_gradients_equal_finite_differences(function):
    jax.test_util.check_grads(function, (distributions(5, scale=0.5),), order=1, modes=("rev",), rtol=2e-2)


def test_uncertainty_gradients_are_finite_at_zero():
    probs = jnp.repeat(jnp.array([[[1.0, 0.0, 0.0], [0.5, 0.25, 0.25]]]), 3, axis=0)
    np.testing.assert_array_equal(jax.grad(lambda p: jnp.sum(probability_spread(p)))(probs), np.zeros(probs.shape))
    saturated = jax.grad(lambda logits: jnp.sum(predictive_entropy(jax.nn.softmax(logits))))(jnp.array([200.0, 0, 0]))
    np.testing.assert_array_equal(saturated, np.zeros(3))


def test_energy_equals_scipy_and_is_higher_for_anomalies():
    logits = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32) * 100
    np.testing.assert_allclose(uncertainty.energy(logits), -scipy.special.logsumexp(logits, axis=-1), rtol=1e-6)
    assert uncertainty.energy(jnp.zeros(3)) == pytest.approx(-np.log(3))
    assert uncertainty.energy(jnp.zeros(3)) > uncertainty.energy(jnp.array([9.0, 0, 0]))


@pytest.mark.parametrize("function", [*FUNCTIONS.args[1], jax.jit(uncertainty.energy)])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(dtype, function):
    probs = jnp.asarray(distributions(0, scale=0.1), dtype)  # of similar members: a mutual information of 1e-3 nats
    found = function(probs)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, function(probs.astype(jnp.float32)), rtol=1e-6)
