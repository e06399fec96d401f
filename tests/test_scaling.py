"""Temperature, vector and Dirichlet scaling against scikit-learn, torch-uncertainty and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from sklearn.linear_model import LogisticRegression

from anchor_jax import UserError, metrics, scaling
from anchor_jax.core.errors import UserTypeError


def calibration_set(num_examples=400, num_classes=4):
    """Return logits that are too sure and biased, float64, and labels."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(num_examples, num_classes)) * 2
    labels = (logits * [1.0, 0.6, 0.8, 0.5] + [0, 0.5, 0, -0.3] + rng.gumbel(size=logits.shape)).argmax(1)
    return 1.7 * logits, labels


LOGITS, LABELS = calibration_set()
# TemperatureScaler, VectorScaler and DirichletScaler(lambda_reg=0.5, mu_reg=0.1) of torch-uncertainty 0.13.0, fitted to
# this set in float64 until they converged (lr=1, max_iter=5000)
TORCH_UNCERTAINTY = {
    "temperature": 2.433621482668506,
    "vector": [0.5427606000718053, 0.46024003911171635, 0.4262188725749175, 0.28507398922957145],
    "dirichlet": [
        [0.16748, 0.24607, 0.43707, 0.14937],
        [0.01536, 0.18512, 0.64175, 0.15778],
        [0.22086, 0.13368, 0.26321, 0.38226],
    ],
}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_fit_temperature_recovers_the_true_one(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40_000, 4)) * 2
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(-1)  # drawn from softmax(logits)
    found = scaling.fit_temperature(np.float32(logits * temperature), labels)
    assert found.temperature == pytest.approx(temperature, rel=0.03)
    np.testing.assert_allclose(found(logits * temperature), scipy.special.softmax(logits, axis=1), atol=0.02)


def test_scalings_equal_torch_uncertainty():
    found = scaling.fit_temperature(LOGITS, LABELS).temperature
    assert found == pytest.approx(TORCH_UNCERTAINTY["temperature"], rel=1e-5)
    vector = scaling.fit_vector(LOGITS, LABELS, bias=False)
    np.testing.assert_allclose(vector.weight, TORCH_UNCERTAINTY["vector"], rtol=1e-4)
    np.testing.assert_array_equal(vector.bias, np.zeros(4))
    dirichlet = scaling.fit_dirichlet(LOGITS, LABELS, off_diagonal_penalty=0.5, bias_penalty=0.1)
    np.testing.assert_allclose(dirichlet(LOGITS[:3]), TORCH_UNCERTAINTY["dirichlet"], atol=2e-5)


def test_fit_dirichlet_equals_logistic_regression():
    features = scipy.special.log_softmax(LOGITS, axis=1)
    expected = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(features, LABELS)
    found = scaling.fit_dirichlet(LOGITS, LABELS)
    np.testing.assert_allclose(found(LOGITS), expected.predict_proba(features), atol=2e-5)


def test_fit_vector_is_a_minimum_of_the_likelihood():
    found = scaling.fit_vector(LOGITS, LABELS)

    def loss(weight, bias):
        log_probs = jax.nn.log_softmax(LOGITS * weight + bias)
        return -log_probs[jnp.arange(len(LABELS)), LABELS].mean()

    for gradient in jax.grad(loss, (0, 1))(found.weight, found.bias):
        np.testing.assert_allclose(gradient, np.zeros(4), atol=1e-6)
    without = scaling.fit_vector(LOGITS, LABELS, bias=False)
    by_loss = [metrics.nll(each(LOGITS), LABELS) for each in (found, without, scaling.fit_temperature(LOGITS, LABELS))]
    assert by_loss == sorted(by_loss)


def test_scalings_of_probabilities_equal_those_of_logits():
    probs = np.float32(scipy.special.softmax(LOGITS, axis=1))
    logits = scaling.log_probs(probs)
    for fit in (scaling.fit_temperature, scaling.fit_dirichlet):
        np.testing.assert_allclose(fit(logits, LABELS)(logits), fit(LOGITS, LABELS)(LOGITS), atol=1e-4)
    assert np.isfinite(scaling.log_probs(np.eye(3))).all()
    for fit in (scaling.fit_temperature, scaling.fit_vector, scaling.fit_dirichlet):
        with pytest.raises(UserError, match="logits must not be probabilities; got rows that sum to 1; give log_probs"):
            fit(probs, LABELS)


@pytest.mark.parametrize("fit", [scaling.fit_vector, scaling.fit_dirichlet])
def test_fit_warns_if_all_examples_are_right(fit):
    right = np.float32(4 * np.eye(3)[np.arange(30) % 3] + np.random.default_rng(0).normal(size=(30, 3)) / 4)
    with pytest.warns(UserWarning, match="classifies all calibration examples correctly"):
        fit(right, np.arange(30) % 3)
    with pytest.warns(UserWarning, match="it is set to 0.01: the calibration examples are all classified correctly"):
        assert scaling.fit_temperature(right, np.arange(30) % 3).temperature == np.float32(0.01)
    with pytest.warns(UserWarning, match="it is set to 100: the logits do not predict the labels"):
        scaling.fit_temperature(right, np.arange(1, 31) % 3)
    assert scaling.fit_temperature(np.zeros((2, 3)), np.array([0, 1])).temperature == 1


@pytest.mark.invalid_arguments
def test_fits_reject_invalid_arguments():
    for fit in (scaling.fit_temperature, scaling.fit_vector, scaling.fit_dirichlet):
        with pytest.raises(UserError, match=r"labels must be in \[0, 3\]"):
            fit(LOGITS, LABELS + 1)
        with pytest.raises(UserError, match="logits must be finite"):
            fit(np.where(LOGITS > 3, np.inf, LOGITS), LABELS)
        with pytest.raises(UserTypeError, match="call it outside jit"):
            jax.jit(lambda z, fit=fit: fit(z, LABELS))(LOGITS)
    for fit in (scaling.fit_vector, scaling.fit_dirichlet):
        with pytest.raises(UserError, match=r"labels must contain every class for .* scaling; class 3 has no example"):
            fit(LOGITS, np.minimum(LABELS, 2))
    with pytest.raises(UserError, match=r"off_diagonal_penalty must be in \[0, inf\]; got -1"):
        scaling.fit_dirichlet(LOGITS, LABELS, off_diagonal_penalty=-1)
    with pytest.raises(UserError, match=r"logits must have shape \[B, 4\], as in the fit; got \(2, 3\)"):
        scaling.fit_vector(LOGITS, LABELS)(np.zeros((2, 3)))
    for temperature in (0.0, -1.0, np.nan, jnp.float32(-1)):
        with pytest.raises(UserError, match="temperature must be above 0; got"):
            scaling.TemperatureScaling(temperature)(LOGITS)


def test_dirichlet_scaling_takes_excluded_classes():
    logits = np.array([[0.0, 1.0, -np.inf]], np.float32)
    scaled = scaling.DirichletScaling(np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
    np.testing.assert_allclose(scaled(logits), scipy.special.softmax(logits, axis=1), rtol=1e-6, atol=1e-30)
