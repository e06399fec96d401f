"""Regression on vectors: losses, metrics and networks compared with other libraries, and their invariants."""

import warnings
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
import sklearn.metrics
from jax.sharding import PartitionSpec

import anchor_jax as aj
from anchor_jax import metrics
from anchor_jax.contrib import pager, regression
from anchor_jax.contrib.regression import Regression, Settings
from anchor_jax.runtime import mesh as mesh_lib

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch

B, D = 6, 3
RNG = np.random.default_rng(0)
MEANS = RNG.normal(size=(B, D)).astype(np.float32)
VARIANCES = RNG.gamma(2, size=(B, D)).astype(np.float32)
TARGETS = RNG.normal(size=(B, D)).astype(np.float32)
MASK = np.array([True, False, False, True, True, False])
CENTRE, SPREAD = np.array([0.5, -1, 2], np.float32), np.array([0.25, 1, 4], np.float32)
ONE = pytest.mark.parametrize("rows", [np.s_[:, 0], np.s_[:]], ids=["one output", "three outputs"])


def over_outputs(values):
    return np.asarray(values).reshape(B, -1).mean(axis=1)


def torch_nll(means, variances, targets):
    loss = torch.nn.GaussianNLLLoss(full=True, reduction="none")
    return over_outputs(loss(*(torch.from_numpy(np.array(a)) for a in (means, targets, variances))))


# losses


@ONE
@pytest.mark.parametrize("mask", [None, np.zeros(B, bool)], ids=["no mask", "mask false"])
def test_squared_error_unmasked_equals_torch_and_optax(rows, mask):
    ours = aj.anchored_squared_error(MEANS[rows], TARGETS[rows], mask)
    assert (ours.shape, ours.dtype) == ((B,), jnp.float32)
    np.testing.assert_allclose(ours, over_outputs(optax.squared_error(MEANS[rows], TARGETS[rows])), rtol=1e-5)
    expected = torch.nn.functional.mse_loss(torch.from_numpy(MEANS[rows]), torch.from_numpy(TARGETS[rows]))
    np.testing.assert_allclose(ours.mean(), expected.numpy(), rtol=1e-5)


@ONE
@pytest.mark.parametrize("mask", [None, np.zeros(B, bool)], ids=["no mask", "mask false"])
def test_gaussian_nll_unmasked_equals_torch_and_scipy(rows, mask):
    ours = aj.anchored_gaussian_nll(MEANS[rows], VARIANCES[rows], TARGETS[rows], mask)
    assert (ours.shape, ours.dtype) == ((B,), jnp.float32)
    np.testing.assert_allclose(ours, torch_nll(MEANS[rows], VARIANCES[rows], TARGETS[rows]), rtol=1e-4)
    log_density = scipy.stats.norm.logpdf(TARGETS[rows], MEANS[rows], np.sqrt(VARIANCES[rows]))
    np.testing.assert_allclose(ours, over_outputs(-log_density), rtol=1e-4)


def test_squared_error_masked_target_is_the_mean():
    ours = aj.anchored_squared_error(MEANS, TARGETS, MASK, target_mean=CENTRE)
    expected = np.where(MASK, over_outputs((MEANS - CENTRE) ** 2), over_outputs((MEANS - TARGETS) ** 2))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    standardized = aj.anchored_squared_error(MEANS, TARGETS, MASK)
    np.testing.assert_allclose(standardized[MASK], over_outputs(MEANS**2)[MASK], rtol=1e-5)


def test_gaussian_nll_masked_is_cross_entropy_of_marginal():
    ours = aj.anchored_gaussian_nll(MEANS, VARIANCES, TARGETS, MASK, target_mean=CENTRE, target_variance=SPREAD)
    marginal = torch.distributions.Normal(torch.from_numpy(CENTRE), torch.from_numpy(SPREAD).sqrt())
    predicted = torch.distributions.Normal(torch.from_numpy(MEANS), torch.from_numpy(VARIANCES).sqrt())
    cross_entropy = torch.distributions.kl_divergence(marginal, predicted) + marginal.entropy()
    expected = np.where(MASK, over_outputs(cross_entropy), torch_nll(MEANS, VARIANCES, TARGETS))
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_gaussian_nll_masked_is_minimal_at_the_marginal():
    def loss(means, variances):
        masked = np.ones(B, bool)
        return aj.anchored_gaussian_nll(
            means, variances, TARGETS, masked, target_mean=CENTRE, target_variance=SPREAD
        ).sum()

    best = np.tile(CENTRE, (B, 1)), np.tile(SPREAD, (B, 1))
    for gradient in jax.grad(loss, (0, 1))(*best):
        np.testing.assert_allclose(gradient, np.zeros((B, D)), atol=1e-6)
    assert loss(*best) < loss(MEANS, VARIANCES)


def test_losses_masked_target_label_ignores_the_mask():
    options = {"masked_target": "label", "target_mean": CENTRE}
    np.testing.assert_allclose(
        aj.anchored_squared_error(MEANS, TARGETS, MASK, **options), over_outputs((MEANS - TARGETS) ** 2), rtol=1e-5
    )
    ours = aj.anchored_gaussian_nll(MEANS, VARIANCES, TARGETS, MASK, **options)
    np.testing.assert_allclose(ours, torch_nll(MEANS, VARIANCES, TARGETS), rtol=1e-4)


def test_gaussian_nll_gradients_equal_torch():
    weights = np.arange(1, B + 1, dtype=np.float32)

    def weighted(means, variances):
        return jnp.sum(weights * aj.anchored_gaussian_nll(means, variances, TARGETS))

    means, variances = (torch.from_numpy(a.copy()).requires_grad_() for a in (MEANS, VARIANCES))
    loss = torch.nn.GaussianNLLLoss(full=True, reduction="none")(means, torch.from_numpy(TARGETS), variances)
    (torch.from_numpy(weights) * loss.mean(dim=1)).sum().backward()
    ours = jax.jit(jax.grad(weighted, (0, 1)))(MEANS, VARIANCES)
    for gradient, expected in zip(ours, (means.grad, variances.grad), strict=True):
        np.testing.assert_allclose(gradient, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_losses_under_transformations_and_in_float32():
    for loss, predicted in (
        (aj.anchored_squared_error, (MEANS,)),
        (aj.anchored_gaussian_nll, (MEANS, VARIANCES)),
    ):
        args = (*predicted, TARGETS, MASK)
        expected = loss(*args)
        np.testing.assert_allclose(jax.jit(loss)(*args), expected, rtol=1e-6)
        mapped = jax.vmap(lambda *rows, loss=loss: loss(*(row[None] for row in rows))[0])(*args)
        np.testing.assert_allclose(mapped, expected, rtol=1e-6)
        spec = PartitionSpec(mesh_lib.AXIS)
        sharded = jax.shard_map(loss, mesh=mesh_lib.mesh(2), in_specs=spec, out_specs=spec)
        np.testing.assert_allclose(jax.jit(sharded)(*args), expected, rtol=1e-6)
        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            half_precision = loss(*(jnp.asarray(a, jnp.bfloat16) for a in args[:-1]), MASK)
        assert half_precision.dtype == jnp.float32


# metrics


def test_rmse_equals_sklearn():
    expected = sklearn.metrics.root_mean_squared_error(TARGETS[:, 0], MEANS[:, 0])
    np.testing.assert_allclose(jax.jit(metrics.rmse)(MEANS[:, 0], TARGETS[:, 0]), expected, rtol=1e-6)
    np.testing.assert_allclose(metrics.rmse(MEANS, TARGETS), np.sqrt(np.mean((MEANS - TARGETS) ** 2)), rtol=1e-6)


def test_gaussian_nll_metric_equals_scipy_and_the_loss():
    stds = np.sqrt(VARIANCES)
    ours = metrics.gaussian_nll(MEANS, stds, TARGETS)
    np.testing.assert_allclose(ours, -scipy.stats.norm.logpdf(TARGETS, MEANS, stds).mean(), rtol=1e-5)
    loss = aj.anchored_gaussian_nll(MEANS, VARIANCES, TARGETS).mean()
    np.testing.assert_allclose(jax.jit(metrics.gaussian_nll)(MEANS, stds, TARGETS), loss, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_interval_coverage_equals_scipy_intervals(scale):
    rng = np.random.default_rng(1)
    means, stds = rng.normal(size=2_000), scale * rng.gamma(2, size=2_000)
    targets, levels = means + stds * rng.normal(size=2_000) / scale, np.array([0.1, 0.5, 0.9, 0.99])
    covered = metrics.interval_coverage(means, stds, targets, levels)
    for level, share in zip(levels, covered, strict=True):
        low, high = scipy.stats.norm.interval(level, means, stds)
        np.testing.assert_allclose(share, np.mean((low <= targets) & (targets <= high)), atol=1e-3)
    error = jax.jit(metrics.coverage_error)(means, stds, targets)
    levels = np.arange(1, 20, dtype=np.float32) / 20
    expected = np.abs(np.asarray(metrics.interval_coverage(means, stds, targets, levels)) - levels).mean()
    np.testing.assert_allclose(error, expected, rtol=1e-4)
    assert (error < 0.03) == (scale == 1.0)  # a factor of three in the standard deviations shows


# networks

N, C = 64, 2
X = 100 + 30 * RNG.normal(size=(N, C))
Y = 1e4 + 500 * np.sin(X[:, 0] / 30) + 50 * RNG.normal(size=N)
TINY = Settings(hidden=(16,), steps=150, learning_rate=1e-2)
KEY = jax.random.key(0)


def fitted(settings=TINY, y=Y):
    return regression.fit(KEY, X, y, settings)


KINDS = {
    "anchored": TINY,
    "masked": replace(TINY, mask_prob=0.25, mask_per="example"),
    "without noise": replace(TINY, noise=False, mask_prob=0.25),
    "plain": replace(TINY, references=False),
    "dropout": replace(TINY, references=False, dropout=0.1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_fit_learns_and_predict_has_expected_parts(kind):
    settings = KINDS[kind]
    predicted = regression.predict(KEY, fitted(settings), X, 8)
    assert predicted.mean.shape == (N,)
    assert metrics.rmse(predicted.mean, Y) < 0.6 * np.std(Y)
    assert (predicted.epistemic is None) == (kind == "plain")
    assert (predicted.noise is None) == (kind == "without noise")
    parts = [part for part in (predicted.epistemic, predicted.noise) if part is not None]
    np.testing.assert_allclose(predicted.std, np.sqrt(sum(np.asarray(part) ** 2 for part in parts)), rtol=1e-5)
    assert np.all(predicted.std > 0)


def test_predict_equals_loop_over_references():
    network, num = fitted(), 5
    predicted = regression.predict(KEY, network, X[:7], num)
    rows = (X[:7] - X.mean(axis=0)) / X.std(axis=0)
    references = np.asarray(aj.sample_references(KEY, network.bank, num, replace=False))
    model = regression.MLP(TINY.hidden, 2, 0.0)
    outputs = np.stack(
        [
            model.apply(network.params, np.concatenate([np.broadcast_to(r, rows.shape), rows - r], axis=1), train=False)
            for r in references
        ]
    )
    means, variances = outputs[..., 0], np.logaddexp(0, outputs[..., 1])
    np.testing.assert_allclose(predicted.mean, means.mean(0) * Y.std() + Y.mean(), rtol=1e-5)
    np.testing.assert_allclose(predicted.epistemic, means.std(0, ddof=1) * Y.std(), rtol=1e-3)
    np.testing.assert_allclose(predicted.noise, np.sqrt(variances.mean(0)) * Y.std(), rtol=1e-3)


def test_fit_is_invariant_to_units():
    scaled = regression.fit(KEY, 8 * X, 4 * Y - 16, TINY)
    expected = regression.predict(KEY, fitted(), X, 4)
    ours = regression.predict(KEY, scaled, 8 * X, 4)
    np.testing.assert_allclose(ours.mean, 4 * expected.mean - 16, rtol=1e-2)
    np.testing.assert_allclose(ours.noise, 4 * expected.noise, rtol=0.2)


def test_fit_accepts_multiple_targets_and_constant_column():
    x = np.concatenate([X, np.full((N, 1), 7.0)], axis=1)
    y = np.stack([Y, -3 * Y], axis=1)
    predicted = regression.predict(KEY, regression.fit(KEY, x, y, TINY), x, 4)
    assert predicted.mean.shape == predicted.std.shape == (N, 2)
    assert np.all(np.abs(np.asarray(predicted.mean).mean(0) / y.mean(0) - 1) < 0.05)


def test_fit_under_vmap_equals_single_fits():
    keys = jax.random.split(KEY, 3)
    together = jax.vmap(regression.fit, in_axes=(0, None, None, None))(keys, X, Y, TINY)
    members = jax.vmap(regression.predict, in_axes=(None, 0, None, None))(KEY, together, X, 4)
    alone = regression.predict(KEY, regression.fit(keys[1], X, Y, TINY), X, 4)
    np.testing.assert_allclose(members.mean[1], alone.mean, rtol=1e-3)
    assert np.std(members.mean, axis=0).max() > 1


def test_combine_members_has_moments_of_the_mixture():
    rng = np.random.default_rng(2)
    means, noise = rng.normal(size=(4, 3)), rng.gamma(2, size=(4, 3))
    combined = regression.combine_members(
        Regression(*(jnp.asarray(a, jnp.float32) for a in (means, np.full((4, 3), 0.5), noise)))
    )
    np.testing.assert_allclose(combined.mean, means.mean(0), rtol=1e-5)
    np.testing.assert_allclose(combined.epistemic, np.sqrt(means.var(0, ddof=1) + 0.25), rtol=1e-5)
    np.testing.assert_allclose(combined.noise, np.sqrt((noise**2).mean(0)), rtol=1e-5)


def test_nonconformity_equals_loop_over_training_examples():
    network = fitted()
    rows = (X[:5] - X.mean(axis=0)) / X.std(axis=0)
    model = regression.MLP(TINY.hidden, 2, 0.0)
    expected = np.zeros(5)
    for reference, label in zip(np.asarray(network.bank), (Y - Y.mean()) / Y.std(), strict=True):
        outputs = model.apply(network.params, np.concatenate([rows, reference - rows], axis=1), train=False)[:, 0]
        expected = np.maximum(expected, np.abs(label - outputs))
    np.testing.assert_allclose(regression.nonconformity(network, X[:5]), expected, rtol=1e-3)
    assert regression.nonconformity(network, X[:5] + 300).mean() > 1.2 * expected.mean()


def test_nonconformity_draws_the_same_examples_by_key():
    network, inputs = fitted(), X[:5] + 100
    singles = [regression.nonconformity(network, inputs, key=jax.random.key(seed), num=1) for seed in range(20)]
    assert len({float(scores[0]) for scores in singles}) > 5
    drawn = regression.nonconformity(network, inputs, key=KEY, num=N // 2)
    np.testing.assert_array_equal(drawn, regression.nonconformity(network, inputs, key=KEY, num=N // 2))
    everything = regression.nonconformity(network, inputs)
    assert np.all(drawn <= everything)
    np.testing.assert_allclose(regression.nonconformity(network, inputs, key=KEY, num=N), everything, rtol=1e-5)


def test_nonconformity_refined_accepts_autoencoder_on_any_scale():
    network, inputs = fitted(), X[:4] + 30
    sample = 50 + 3 * X[:40]  # an autoencoder of other data
    autoencoder = regression.fit(KEY, sample, sample, replace(TINY, noise=False))
    model = regression.MLP(TINY.hidden, C, 0.0)
    assert np.abs(autoencoder.inputs.std / network.inputs.std - 1).min() > 0.5

    def reconstruct(params, anchored_inputs):  # through the original unit
        references, residuals = jnp.split(anchored_inputs, 2, axis=1)
        scale, unit = autoencoder.inputs, np.float32(network.inputs.std)
        references = (references * unit + np.float32(network.inputs.mean - scale.mean)) / np.float32(scale.std)
        anchored = jnp.concatenate([references, residuals * unit / np.float32(scale.std)], axis=1)
        outputs = model.apply(params, anchored, train=False) * np.float32(scale.std)
        return (outputs + np.float32(scale.mean - network.inputs.mean)) / unit

    rows = ((inputs - network.inputs.mean) / network.inputs.std).astype(np.float32)
    expected = pager.refined_nonconformity(
        lambda params, anchored: regression.MLP(TINY.hidden, 2, 0.0).apply(params, anchored, train=False)[:, :1],
        network.params,
        rows,
        network.bank,
        network.labels,
        regularizer=partial(pager.cyclic_reconstruction, reconstruct, autoencoder.params),
        weight=0.3,
    )
    ours = regression.nonconformity(network, inputs, refined=True, autoencoder=autoencoder, weight=0.3)
    np.testing.assert_allclose(ours, expected, rtol=0.02)
    assert np.abs(ours - regression.nonconformity(network, inputs, refined=True)).max() > 0.05


@pytest.mark.parametrize("noise", [True, False])
def test_fit_with_masking_predicts_the_mean_when_masked(noise):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(256, 10)).astype(np.float32)
    y = x[:, 0] + 0.1 * rng.normal(size=256)

    def spread_where_masked(masked_target):
        settings = Settings(
            noise=noise, steps=600, learning_rate=3e-3, mask_prob=0.5, mask_per="example", masked_target=masked_target
        )
        network = regression.fit(KEY, x, y, settings)
        inputs = aj.anchor(network.bank, jnp.roll(network.bank, 1, axis=0), np.ones(256, bool))
        return np.std(regression.MLP(settings.hidden, 1 + noise, 0.0).apply(network.params, inputs, train=False)[:, 0])

    assert spread_where_masked("marginal") < 0.5 < spread_where_masked("label")


def test_fourier_features_are_sines_and_cosines():
    frequencies = np.array([[0.5, 0.0], [0.0, 2.0], [1.0, 1.0]], np.float32)
    x = RNG.normal(size=(5, 2))
    angles = 2 * np.pi * np.stack([x[:, 0] / 2, 2 * x[:, 1], x.sum(axis=1)], axis=1)
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(regression.fourier_features(frequencies, x), expected, atol=1e-5)


@pytest.mark.parametrize("unit", [1e-17, 1e17])
@pytest.mark.parametrize("mask", [None, MASK])
def test_gaussian_nll_gradients_in_units_of_any_size(unit, mask):
    def gradients(unit):
        marginal = {"target_mean": unit * CENTRE, "target_variance": unit**2 * SPREAD}

        def loss(means, variances):
            return aj.anchored_gaussian_nll(means, variances, unit * TARGETS, mask, **marginal).sum()

        means, variances = np.float32(unit) * MEANS, np.float32(unit**2) * VARIANCES
        return [unit * gradient for gradient in jax.grad(loss, (0, 1))(means, variances)]

    by_mean, by_variance = gradients(unit)
    expected = gradients(1.0)
    np.testing.assert_allclose(by_mean, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(unit * by_variance, expected[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_regression_metrics_in_units_of_any_size(unit):
    rng = np.random.default_rng(0)
    means, targets = unit * rng.normal(size=(2, 50)).astype(np.float32)
    stds = unit * rng.gamma(2, size=50).astype(np.float32)
    expected = sklearn.metrics.root_mean_squared_error(np.float64(targets), np.float64(means))
    np.testing.assert_allclose(metrics.rmse(means, targets), expected, rtol=1e-5)
    expected = -scipy.stats.norm.logpdf(*map(np.float64, (targets, means, stds))).mean()
    np.testing.assert_allclose(metrics.gaussian_nll(means, stds, targets), expected, rtol=1e-5)
    gradient = jax.jit(jax.grad(metrics.rmse))(means, targets)
    np.testing.assert_allclose(gradient, jax.grad(metrics.rmse)(means / unit, targets / unit), rtol=1e-5)


def test_rmse_of_the_largest_errors_is_finite():
    assert metrics.rmse(np.zeros(3, np.float32), np.full(3, 3e38, np.float32)) == pytest.approx(3e38, rel=1e-6)
