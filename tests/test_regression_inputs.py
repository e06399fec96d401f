"""Inputs of regression: far from zero, constant, in lists and tables; float64 in, through `jit`, `vmap` and files."""

import copyreg
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import serialization

import anchor_jax as aj
from anchor_jax import metrics
from anchor_jax.contrib import regression
from anchor_jax.contrib.regression import Regression, Scale, Settings

RNG = np.random.default_rng(0)
T = RNG.uniform(size=(40, 2))
Y = np.sin(5 * T[:, 0]) + T[:, 1]
KEY = jax.random.key(0)
TINY = Settings(hidden=(8,), steps=30, learning_rate=1e-2, noise=False)
FAR = 1.75e9 + 64 * T  # UNIX seconds of a minute
OFFSET = 1e9


def prediction(x, y=Y, settings=TINY):
    return regression.predict(KEY, regression.fit(KEY, x, y, settings), x, 4)


NEAR = prediction((T - T.mean(0)) / T.std(0))


def assert_near(predicted, offset=0.0):
    assert predicted.mean.dtype == np.float64
    np.testing.assert_allclose(predicted.mean - offset, NEAR.mean, atol=2e-3)
    np.testing.assert_allclose(predicted.epistemic, NEAR.epistemic, atol=2e-3)


@pytest.mark.parametrize(
    "x",
    [FAR, 5.4e6 + 5 * T, -1e12 + T, (1.75e18 + 1e12 * T).astype(np.int64), FAR.tolist(), pd.DataFrame(FAR), 1e-30 * T],
    ids=["seconds", "UTM", "minus 1e12", "int64 ns", "lists", "DataFrame", "1e-30"],
)
def test_fit_far_from_zero_equals_standardized_by_hand(x):
    assert_near(prediction(x))


@pytest.mark.parametrize("y", [OFFSET + Y, pd.Series(OFFSET + Y), (OFFSET + Y)[:, None]], ids=["array", "series", "N1"])
def test_predict_adds_the_offset_of_targets_in_float64(y):
    predicted = prediction(FAR, y)
    assert predicted.mean.shape == np.shape(y)
    assert_near(Regression(predicted.mean.ravel(), predicted.epistemic.ravel()), OFFSET)


def reloaded_by_flax(network):
    like = regression.fit(KEY, T, Y, TINY)
    return serialization.from_bytes(like, serialization.to_bytes(network))


@pytest.mark.parametrize(
    "reload",
    [
        lambda network: pickle.loads(pickle.dumps(network)),
        reloaded_by_flax,
        lambda network: jax.tree.map(jnp.asarray, network),
        lambda network: jax.jit(lambda network: network)(network),
    ],
    ids=["pickle", "flax", "tree.map", "jit"],
)
def test_networks_keep_float64_when_saved_and_reloaded(reload):
    network = reload(regression.fit(KEY, FAR, OFFSET + Y, TINY))
    assert_near(regression.predict(KEY, network, FAR, 4), OFFSET)
    assert_near(jax.jit(lambda network: regression.predict(KEY, network, FAR, 4))(network), OFFSET)


def test_ensembles_under_vmap_keep_float64():
    keys = jax.random.split(KEY, 3)

    def ensemble(x, y):
        networks = jax.vmap(regression.fit, in_axes=(0, None, None, None))(keys, x, y, TINY)
        members = jax.vmap(regression.predict, in_axes=(0, 0, None, None))(keys, networks, x, 4)
        return members, regression.combine_members(members)

    (members, combined), (far_members, far) = ensemble(T, Y), ensemble(FAR, OFFSET + Y)
    np.testing.assert_allclose(far_members.mean - OFFSET, members.mean, atol=2e-3)
    np.testing.assert_allclose(far.mean - OFFSET, combined.mean, atol=2e-3)
    np.testing.assert_allclose(far.std, combined.std, atol=2e-3)
    traced = jax.jit(regression.combine_members)(far_members)
    np.testing.assert_allclose(traced.mean - OFFSET, combined.mean, atol=2e-3)


def test_scales_saved_as_tuples_of_float32_load():
    mean, std = np.float32([1, 2]), np.float32([3, 4])
    unpickled = copyreg.__newobj__(Scale, mean, std)  # what a pickled NamedTuple calls
    restored = serialization.from_state_dict(Scale(std, mean), {"mean": mean, "std": std})
    for scale in (unpickled, restored):
        assert (scale.mean.tolist(), scale.std.tolist()) == ([1, 2], [3, 4])


@pytest.mark.parametrize(
    "column",
    [
        np.full(40, 0.1),
        np.full(40, 1e15 + 1),
        1e9 + 1e-7 * RNG.normal(size=40),
        np.where(np.arange(40) % 2, np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1))),
        np.full(40, 2**53 - 1),
    ],
    ids=["0.1", "1e15", "rounding", "float32 rounding", "int64"],
)
def test_fit_leaves_columns_that_do_not_vary_alone(column):
    network = regression.fit(KEY, np.stack([column, T[:, 0].astype(column.dtype)], axis=1), column, TINY)
    assert (network.inputs.std[0], network.targets.std[0]) == (1, 1)
    assert np.abs(np.asarray(network.bank)[:, 0]).max() < 1e-6


def test_predict_matches_columns_by_name():
    table = pd.DataFrame(FAR, columns=["size", "age"])
    network = regression.fit(KEY, table, Y, TINY)
    expected = regression.predict(KEY, network, FAR, 4).mean  # an array is taken in the order of training
    np.testing.assert_array_equal(regression.predict(KEY, network, table[["age", "size"]], 4).mean, expected)
    numbered = regression.fit(KEY, pd.DataFrame(FAR), Y, TINY)  # only numbered columns have no names
    np.testing.assert_array_equal(regression.predict(KEY, numbered, table, 4).mean, expected)


def test_fit_accepts_nullable_columns_without_nulls():
    table = pd.DataFrame({"a": pd.array(FAR[:, 0], "Float64"), "b": pd.array(range(40), "Int64")})
    assert regression.fit(KEY, table, Y, TINY).inputs.std[1] == pytest.approx(np.std(range(40)))
    table.loc[3, "b"] = pd.NA
    with pytest.raises(aj.UserError, match="x must not contain NaN; got 1 NaN"):
        regression.fit(KEY, table, Y, TINY)


@pytest.mark.parametrize(
    "measure",
    [
        lambda offset: metrics.rmse(offset + Y, offset + Y[::-1]),
        lambda offset: metrics.gaussian_nll(offset + Y, np.ones(40), offset + Y[::-1]),
        lambda offset: metrics.interval_coverage(offset + Y, np.ones(40), offset + Y[::-1], np.array([0.5])),
        lambda offset: aj.anchored_squared_error(offset + Y, offset + Y[::-1]),
        lambda offset: aj.anchored_gaussian_nll(
            offset + Y, np.ones(40), offset + Y[::-1], np.arange(40) < 20, target_mean=offset + 0.25
        ),
        lambda offset: aj.expected_improvement(offset + Y, np.ones(40), offset + Y.max()),
        lambda offset: regression.fourier_features(np.array([[0.25, 2.5]]), offset + T),
    ],
    ids=["rmse", "nll", "coverage", "squared error", "nll loss", "improvement", "fourier"],
)
def test_differences_are_taken_in_float64(measure):
    np.testing.assert_allclose(measure(8e9), measure(0.0), atol=3e-5)
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.jit(measure)(8e9), measure(0.0), atol=3e-5)


@pytest.mark.parametrize("as_type", [list, np.array, jnp.array, iter, pd.Series], ids=lambda kind: kind.__name__)
def test_settings_accept_any_sequence_and_numbers_of_arrays(as_type):
    numbers = {"steps": np.int64(3), "learning_rate": jnp.float32(0.5), "dropout": np.array(0.25), "noise": np.True_}
    settings = Settings(hidden=as_type([8, 8]), references=False, **numbers)
    expected = Settings(hidden=(8, 8), steps=3, learning_rate=0.5, dropout=0.25, references=False)
    assert settings == expected
    assert hash(settings) == hash(expected)
    regression.predict(KEY, regression.fit(KEY, T, Y, settings), T, 2)


def test_fit_under_vmap_over_rates_returns_networks():
    networks = jax.vmap(lambda rate: regression.fit(KEY, T, Y, Settings(hidden=[8], steps=3, learning_rate=rate)))(
        jnp.array([1e-3, 1e-1])
    )
    members = jax.vmap(regression.predict, in_axes=(None, 0, None))(KEY, networks, T)
    assert np.abs(members.mean[0] - members.mean[1]).max() > 1e-3


def test_fourier_features_keep_their_digits_when_traced():
    frequencies, x = jnp.array([[1.0, 0.5]]), 2.0 ** np.arange(8, 16)[:, None] + np.array([[0.25, 0.5]])  # in float32
    found = jax.jit(regression.fourier_features)(frequencies, jnp.asarray(x))
    np.testing.assert_allclose(found, regression.fourier_features(frequencies, x), atol=1e-6)


def network_of(bank):
    arrays = {"bank": bank, "labels": bank, "settings": TINY, "target_shape": (2,)}
    return regression.RegressionNetwork(None, None, None, **arrays)


@pytest.mark.parametrize(
    "call",
    [
        lambda stacked, _: regression.predict(KEY, stacked, T),
        lambda stacked, _: regression.nonconformity(stacked, T),
        lambda stacked, single: regression.nonconformity(single, T, refined=True, autoencoder=stacked),
    ],
    ids=["predict", "nonconformity", "autoencoder"],
)
def test_stacked_networks_are_an_error_without_vmap(call):
    stacked, single = network_of(np.zeros((3, 4, 2))), network_of(np.zeros((4, 2)))
    with pytest.raises(aj.UserError, match=r"stacked by jax.vmap, with a bank of shape \(3, 4, 2\); map over them"):
        call(stacked, single)
