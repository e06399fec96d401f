"""Invalid arguments of `anchor_jax.contrib`: one line that names the argument, raised before anything is compiled."""

import numpy as np
import pandas as pd
import pytest
from invalid_arguments import (
    BANK,
    KEY,
    LABELS,
    NAN,
    RAGGED,
    X,
    assert_raises_before_compilation,
    each_of,
    kind,
    network,
    value,
)

import anchor_jax as aj
from anchor_jax.contrib import pager, regression

pytestmark = pytest.mark.invalid_arguments

PLAIN = regression.Settings(references=False, hidden=(2,), steps=1)
SCALES = regression.Scale(X[0], X[0]), regression.Scale(X[0, :1], X[0, :1])
NETWORK = regression.RegressionNetwork(None, *SCALES, BANK, BANK[:, :1], PLAIN, ())
ANCHORED = NETWORK.replace(settings=regression.Settings(hidden=(2,), steps=1))
NAMED = NETWORK.replace(columns=("size", "age"))
TABLE = pd.DataFrame({"size": X[:, 0], "weight": X[:, 0], "town": list("abba"), "when": pd.to_datetime(range(4))})
PREDICTIONS = regression.Regression(X[:1], None, None)

CONTRIB = [
    kind(lambda: pager.nonconformity(None, None, X, X, X[:, 0]), "apply_fn must be a function; got None"),
    kind(lambda: pager.nonconformity(network, None, LABELS[:, None], X, X), "x must have a floating dtype; got int64"),
    value(
        lambda: pager.nonconformity(network, None, X, X[:, :3], X), r"references \(4, 3\) do not match inputs \(4, 5\)"
    ),
    value(
        lambda: pager.nonconformity(network, None, X, X, X[:3]), r"targets must be one for each of 4 references; got"
    ),
    value(lambda: pager.nonconformity(network, None, X, X, X, chunk_size=0), "chunk_size must be at least 1; got 0"),
    value(lambda: pager.refined_nonconformity(network, None, X, X, X, steps=0), "steps must be at least 1; got 0"),
    kind(lambda: pager.refined_nonconformity(network, None, X, X, X, regularizer=1), "regularizer must be a function"),
    kind(
        lambda: pager.refined_nonconformity(network, None, X, X, X, regularizer=lambda moved: moved[:, 0]),
        "regularizer must be a function of two arguments, moved inputs and inputs; got .*: too many positional",
    ),
    value(lambda: pager.refined_nonconformity(network, None, X, X, X, weight=-1), r"weight must be in \[0, inf\]; got"),
    value(
        lambda: pager.cyclic_reconstruction(network, None, X, X[:3]),
        r"moved and x must have the same shape; got \(4, 5\) and \(3, 5\)",
    ),
    value(
        lambda: pager.risk_regimes(X[0], X[:, 0]),
        r"uncertainty and nonconformity must have the same shape; got \(5,\)",
    ),
    kind(lambda: pager.risk_regimes(X[0], X[0], 0.5, 2.0), r"uncertainty_limits must be two numbers, .*; got 0.5"),
    value(lambda: pager.risk_regimes(X[0], X[0], (-1, 1)), r"uncertainty_limits must be in \[0, inf\]; got -1"),
    value(
        lambda: pager.risk_regimes(X[0], X[0], None, [2.0, 1.0]),
        r"nonconformity_limits must be in increasing order; got \(2.0, 1.0\)",
    ),
    value(lambda: pager.score_limits(X[0], (0.5,)), r"quantiles must be two numbers, \(low, high\); got 1"),
    value(lambda: pager.score_limits(X[0], (25, 75)), r"quantiles must be in \[0, 1\]; got 25"),
    value(
        lambda: pager.regime_errors(LABELS, X[0]), r"regimes and errors must have the same shape; got \(4,\) and \(5,\)"
    ),
    kind(lambda: pager.regime_errors(X[:, 0], X[:, 0]), "regimes must be integers, values of Regime; got float32"),
    value(lambda: pager.regime_errors(LABELS + 4, X[:, 0]), r"regimes must be in \[0, 3\]; got values from"),
    value(lambda: pager.regime_errors(LABELS, X[:, 0], 0.6), r"share must be in \[0, 0.5\]; got 0.6"),
    value(
        lambda: pager.regime_errors(LABELS, X[:, 0], upper_quantile=90), r"upper_quantile must be in \[0, 1\]; got 90"
    ),
    value(
        lambda: aj.expected_improvement(X, X[0], 1.0), r"mean and std must have the same shape; got \(4, 5\) and \(5,\)"
    ),
    value(lambda: aj.expected_improvement(X, -X - 1, 1.0), r"std must be in \[0, inf\]; got values from -"),
    kind(lambda: aj.expected_improvement(X, X, "1"), r"best must be a number in \[-inf, inf\]; got '1'"),
    kind(lambda: regression.Settings(hidden=64), r"hidden must be a tuple; got 64; pass \(64,\)"),
    kind(lambda: regression.Settings(hidden="64"), r"hidden must be a tuple; got '64'; pass \('64',\)"),
    kind(lambda: regression.Settings(hidden={64, 32}), "hidden must be a tuple; got set"),
    kind(lambda: regression.Settings(hidden=np.array(64)), r"hidden must be a tuple; got int64 of shape \(\)"),
    kind(lambda: regression.Settings(hidden=[8.0]), "hidden must be an integer, static under jit; got 8.0"),
    kind(lambda: regression.Settings(noise="no"), "noise must be True or False; got 'no'"),
    value(lambda: regression.Settings(steps=0), "steps must be at least 1; got 0"),
    value(lambda: regression.Settings(dropout=1), "dropout must be below 1; got 1, which drops every unit"),
    value(lambda: regression.Settings(mask_prob=1.5), r"mask_prob must be in \[0, 1\]; got 1.5"),
    value(
        lambda: regression.Settings(references=False, mask_prob=0.2), "mask_prob must be 0 without references; got 0.2"
    ),
    value(lambda: regression.Settings(learning_rate=-1.0), r"learning_rate must be in \[0, inf\]; got -1.0"),
    value(lambda: regression.Settings(masked_target="mean"), "masked_target must be 'marginal' or 'label'; got 'mean'"),
    kind(lambda: regression.fit(0, X, X[:, 0], PLAIN), "key must be a PRNG key, .*; got 0"),
    kind(lambda: regression.fit(KEY, X, X[:, 0], {}), "settings must have type Settings, .* got dict"),
    kind(lambda: regression.fit(KEY, RAGGED, X[:2, 0], PLAIN), "x must be an array of numbers; got list"),
    kind(lambda: regression.fit(KEY, X.astype("M8[s]"), X[:, 0], PLAIN), "x must have a real dtype; got datetime64"),
    kind(lambda: regression.fit(KEY, TABLE, X[:, 0], PLAIN), "column 'town' of x must have a real dtype; got .*; conv"),
    kind(
        lambda: regression.fit(KEY, TABLE[["when"]], X[:, 0], PLAIN),
        "column 'when' of x must have a real dtype; got datetime64.*; convert times to numbers, such as seconds since",
    ),
    value(
        lambda: regression.fit(KEY, TABLE[["size", "size"]], X[:, 0], PLAIN),
        "x must have columns of different names; got 'size' more than once",
    ),
    value(
        lambda: regression.predict(KEY, NAMED, TABLE[["size", "weight"]]),
        "x must have the columns of training, size, age; got columns without age and with weight; select them by name",
    ),
    value(
        lambda: regression.fit(KEY, 1e-40 * np.arange(8).reshape(4, 2), X[:, 0], PLAIN),
        "x must vary by more than 1e-38, .* got a standard deviation of 2.24e-40; give it in a smaller unit",
    ),
    value(lambda: regression.fit(KEY, X[:, 0], X[:, 0], PLAIN), r"x must have shape \[N, C\]; got \(4,\)"),
    value(
        lambda: regression.fit(KEY, X, X[:3, 0], PLAIN),
        r"y must have shape \[N\] or \[N, D\] for x .*\(3,\) and \(4, 5\)",
    ),
    value(
        lambda: regression.fit(KEY, X[:1], X[:1, 0], PLAIN), r"y must have shape .* N at least 2; got shapes \(1,\) and"
    ),
    value(lambda: regression.fit(KEY, X * NAN, X[:, 0], PLAIN), "x must not contain NaN; got 20 NaN"),
    value(lambda: regression.fit(KEY, X, X[:, 0] * np.float32(np.inf), PLAIN), "y must be in .* from inf to inf"),
    kind(
        lambda: regression.predict(KEY, PLAIN, X),
        "network must have type RegressionNetwork, as returned by anchor_jax.regression.fit; got",
    ),
    value(lambda: regression.predict(KEY, NETWORK, X[:, :3]), r"x must have shape \[B, 5\], as in training; got"),
    value(lambda: regression.predict(KEY, NETWORK, X, 0), "num must be at least 1; got 0"),
    value(lambda: regression.nonconformity(NETWORK, X), r"network must be anchored, Settings\(references=True\)"),
    value(lambda: regression.nonconformity(NETWORK, X[:, :3]), r"x must have shape \[B, 5\], as in training; got"),
    kind(
        lambda: regression.nonconformity(ANCHORED, X, refined=True, autoencoder=network),
        "autoencoder must have type RegressionNetwork, .* got function",
    ),
    value(
        lambda: regression.nonconformity(ANCHORED, X, autoencoder=ANCHORED), "autoencoder is for Score 2: set refined="
    ),
    value(
        lambda: regression.nonconformity(ANCHORED, X, refined=True, autoencoder=ANCHORED),
        r"autoencoder must map the 5 inputs of network to themselves, fit\(key, x, x, settings\); got 5 .* 1 targets",
    ),
    value(
        lambda: regression.nonconformity(ANCHORED, X, refined=True, autoencoder=NETWORK),
        r"autoencoder must be anchored, Settings\(references=True\)",
    ),
    value(lambda: regression.nonconformity(ANCHORED, X, num=3), "key and num must be given together"),
    value(lambda: regression.nonconformity(ANCHORED, X, key=KEY, num=7), r"num must be in 1..6; got 7"),
    kind(lambda: regression.combine_members([PREDICTIONS]), "members must have type Regression, .* got list"),
    value(
        lambda: regression.combine_members(PREDICTIONS),
        r"members must be at least 2, \[M, B, ...\]; got shape \(1, 5\)",
    ),
    value(
        lambda: regression.fourier_features(X, X[:, :2]),
        r"x must have shape \[B, 5\] for these frequencies; got \(4, 2\)",
    ),
]


@each_of(CONTRIB)
def test_contrib_raises_before_compilation(invalid, caplog):
    assert_raises_before_compilation(invalid, caplog)
