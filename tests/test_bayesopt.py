"""Expected improvement compared with its closed form and its integral in SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

import anchor_jax as aj


def test_expected_improvement_equals_closed_form_and_integral():
    rng, best = np.random.default_rng(0), 0.3
    mean, std = rng.normal(size=200), rng.gamma(1, size=200) + 0.05
    z = (mean - best) / std
    closed = (mean - best) * scipy.stats.norm.cdf(z) + std * scipy.stats.norm.pdf(z)
    ours = jax.jit(aj.expected_improvement)(mean, std, best)
    np.testing.assert_allclose(ours, closed, rtol=1e-4, atol=1e-6)
    density = scipy.stats.norm(mean[0], std[0]).pdf
    integral, _ = scipy.integrate.quad(lambda y: (y - best) * density(y), best, np.inf)
    np.testing.assert_allclose(ours[0], integral, rtol=1e-4)


def test_expected_improvement_without_spread_is_the_gain():
    mean, std = np.array([1.0, 0.5, -1.0]), np.zeros(3)
    np.testing.assert_allclose(aj.expected_improvement(mean, std, 0.5), [0.5, 0, 0])
    gradients = jax.grad(lambda mean, std: aj.expected_improvement(mean, std, 0.5).sum(), (0, 1))(mean, std)
    assert np.all(np.isfinite(np.concatenate(gradients)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_expected_improvement_takes_half_precision(dtype):
    mean, std = jnp.array([1.0, 0.5, -1.0], dtype), jnp.array([0.5, 0.25, 2.0], dtype)
    found = aj.expected_improvement(mean, std, 0.5)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, aj.expected_improvement(mean.astype("f4"), std.astype("f4"), 0.5))


@pytest.mark.parametrize("spread", [1e-25, 1e-8])
def test_expected_improvement_has_a_gradient_at_any_spread(spread):
    mean, std = np.array([1.0, -1.0, 0.0]), np.full(3, spread)
    value, gradients = jax.value_and_grad(lambda *a: aj.expected_improvement(*a, 0.0).sum(), (0, 1))(mean, std)
    assert value == pytest.approx(1, abs=1e-6)
    assert np.isfinite(np.concatenate(gradients)).all()
