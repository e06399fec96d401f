"""Regression on vectors: train an anchored network and predict with uncertainty, without a training loop of your own.

`fit` standardizes inputs and targets and trains a multi-layer perceptron in one compiled call; `predict` averages it
over K references. Both work under `jit` and `vmap`, so networks of multiple seeds, such as an ensemble, take one call:

    network = fit(key, x, y, Settings())
    networks = jax.vmap(fit, in_axes=(0, None, None, None))(jax.random.split(key, 5), x, y, Settings())

The same code trains networks without references, with or without dropout, for comparison.

Letters: N training examples, B examples, C inputs, D outputs, K references. If targets are `[N]`, predictions are
`[B]`.

Source: *Single Model Uncertainty Estimation via Stochastic Data Centering*, NeurIPS 2022 (arXiv 2207.07235).
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from anchor_jax.contrib import pager
from anchor_jax.contrib.regression_network import (
    MLP,
    RegressionNetwork,
    Scale,
    Settings,
    create_model,
    measure_scale,
    split_moments,
    standardize,
)
from anchor_jax.core import checks
from anchor_jax.core.anchoring import anchored, sample_mask, sample_references
from anchor_jax.core.errors import UserError
from anchor_jax.core.inference import Prediction, predict_ensemble
from anchor_jax.core.inference import predict as predict_with_references
from anchor_jax.core.losses import anchored_gaussian_nll, anchored_squared_error
from anchor_jax.core.uncertainty import deviation

__all__ = [
    "MLP",
    "Regression",
    "RegressionNetwork",
    "Scale",
    "Settings",
    "combine_members",
    "fit",
    "fourier_features",
    "nonconformity",
    "predict",
]


class Regression(NamedTuple):
    """Predictions in the unit of the targets, as returned by `predict`; `[B, D]` if the targets are `[N, D]`.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> aj.regression.Regression(jnp.zeros(1), epistemic=jnp.array([3.0]), noise=jnp.array([4.0])).std.tolist()
      [5.0]
    """

    mean: jax.Array  # float32 [B]
    epistemic: jax.Array | None  # float32 [B], unbiased spread of the mean, at least 0; None for a single evaluation
    noise: jax.Array | None  # float32 [B], predicted standard deviation of a target; None if not predicted

    @property
    def std(self) -> jax.Array:
        """Total standard deviation of a target, float32 `[B]`; 0 if neither part is available."""
        parts = [part**2 for part in (self.epistemic, self.noise) if part is not None]
        return deviation(sum(parts, jnp.zeros_like(self.mean)))


def fit(key: jax.Array, x: jax.Array, y: jax.Array, settings: Settings) -> RegressionNetwork:
    """Train a network on vectors.

    Args:
      key: a JAX random key; the same key returns the same network.
      x: inputs, real `[N, C]`, of any scale. The scale of a constant column is left unchanged.
      y: targets, real `[N]` or `[N, D]`.
      settings: settings of the network and its training.

    Returns:
      The trained network.

    Raises:
      UserTypeError: `key` is not a key, `x` or `y` is not real, or `settings` are not `Settings`.
      UserError: the shapes do not match, an array is empty, there are fewer than 2 examples, or a NumPy array contains
        NaN or infinity.

    Source: *Single Model Uncertainty Estimation via Stochastic Data Centering* (arXiv 2207.07235), section 3.

    Example:
      >>> import anchor_jax as aj
      >>> import jax, jax.numpy as jnp
      >>> x = jnp.linspace(0, 1, 8)[:, None]
      >>> settings = aj.regression.Settings(hidden=(4,), steps=10)
      >>> network = aj.regression.fit(jax.random.key(0), x, jnp.sin(x[:, 0]), settings)
      >>> network.bank.shape
      (8, 1)
    """
    checks.key("key", key)
    checks.instance("settings", settings, Settings, "anchor_jax.regression.Settings(...)")
    _check_vectors("x", x, "[N, C]")
    _check_vectors("y", y, "[N, ...]")
    if y.ndim > 2 or len(y) != len(x) or len(x) < 2:
        raise UserError(
            f"y must have shape [N] or [N, D] for x [N, C], N at least 2; got shapes {y.shape} and {x.shape}"
        )
    rates = jnp.float32(settings.learning_rate), jnp.float32(settings.weight_decay)
    static_settings = dataclasses.replace(settings, learning_rate=0.0, weight_decay=0.0)  # so that no rate recompiles
    network = _fit(key, jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), static_settings, *rates)
    return network.replace(settings=settings)


def predict(key: jax.Array, network: RegressionNetwork, x: jax.Array, num: int = 10) -> Regression:
    """Predict means and uncertainties with a trained network.

    An anchored network is evaluated with `num` distinct references from its training inputs. A network with dropout is
    evaluated `num` times with dropped units (MC dropout, arXiv 1506.02142). A network with neither is evaluated once,
    whatever `num` is.

    Args:
      key: a JAX random key for the references or for dropout, which are shared by all inputs.
      network: result of `fit`.
      x: inputs, real `[B, C]`.
      num: K, at least 1; at most N references.

    Returns:
      `Regression` of B inputs.

    Raises:
      UserTypeError: `key` is not a key, `network` is not a `RegressionNetwork`, `x` is not real, or `num` is not an
        integer.
      UserError: the shapes do not match, an array is empty, `num` is out of range, or a NumPy array contains NaN or
        infinity.

    Example:
      >>> import anchor_jax as aj
      >>> import jax, jax.numpy as jnp
      >>> key, x = jax.random.key(0), jnp.linspace(0, 1, 8)[:, None]
      >>> network = aj.regression.fit(key, x, jnp.sin(x[:, 0]), aj.regression.Settings(hidden=(4,), steps=10))
      >>> predicted = aj.regression.predict(key, network, x[:3], num=4)
      >>> predicted.mean.shape, predicted.epistemic.shape, predicted.noise.shape
      ((3,), (3,), (3,))
    """
    checks.key("key", key)
    _check_inputs(network, x)
    num = checks.count("num", num)
    return _predict(key, network, jnp.asarray(x, jnp.float32), num)


def nonconformity(
    network: RegressionNetwork, x: jax.Array, *, refined: bool = False, chunk_size: int | None = None
) -> jax.Array:
    """Return the nonconformity of inputs to an anchored network: `anchor_jax.pager` with all its training examples.

    Args:
      network: result of `fit`, anchored.
      x: inputs, real `[B, C]`.
      refined: whether to return Score 2, `pager.refined_nonconformity`, in standard deviations of the inputs, instead
        of Score 1, in standard deviations of the targets.
      chunk_size: number of training examples evaluated at once; one at a time by default.

    Returns:
      float32 `[B]`, at least 0; higher is more anomalous.

    Raises:
      UserTypeError: `network` is not a `RegressionNetwork`, `x` is not real, or `chunk_size` is not an integer.
      UserError: the network is not anchored, the shapes do not match, an array is empty, `chunk_size` is below 1, or a
        NumPy array contains NaN or infinity.

    Example:
      >>> import anchor_jax as aj
      >>> import jax, jax.numpy as jnp
      >>> x = jnp.linspace(0, 1, 8)[:, None]
      >>> settings = aj.regression.Settings(hidden=(4,), steps=10)
      >>> network = aj.regression.fit(jax.random.key(0), x, jnp.sin(x[:, 0]), settings)
      >>> aj.regression.nonconformity(network, x[:3]).shape
      (3,)
    """
    _check_inputs(network, x)
    if not network.settings.references:
        raise UserError("network must be anchored, Settings(references=True); got a network without references")
    score = pager.refined_nonconformity if refined else pager.nonconformity
    num_targets = len(network.targets.mean)
    model = create_model(network.settings, num_targets)

    def means(params: Any, inputs: jax.Array) -> jax.Array:
        outputs: Any = model.apply(params, inputs, train=False)
        return outputs[:, :num_targets]

    rows = standardize(jnp.asarray(x, jnp.float32), network.inputs)
    return jax.jit(partial(score, means, chunk_size=chunk_size))(network.params, rows, network.bank, network.labels)


def combine_members(members: Regression) -> Regression:
    """Combine the predictions of an ensemble into one: the moments of the mixture of its members.

    Args:
      members: predictions with a leading axis of M members, at least 2, as returned by `jax.vmap(predict, ...)`.

    Returns:
      `mean`, the mean of the means; `epistemic`, from the unbiased variance of the means over members plus the mean of
      the members' own; `noise`, from the mean of the variances.

    Raises:
      UserTypeError: `members` are not a `Regression`.
      UserError: there are fewer than 2 members.

    Source: Lakshminarayanan et al. 2017, *Simple and scalable predictive uncertainty estimation using deep ensembles*
    (arXiv 1612.01474).

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> members = aj.regression.Regression(jnp.array([[1.0], [2.0], [3.0]]), None, jnp.full((3, 1), 2.0))
      >>> combined = aj.regression.combine_members(members)
      >>> combined.mean.tolist(), combined.epistemic.tolist(), combined.noise.tolist()
      ([2.0], [1.0], [2.0])
    """
    checks.instance("members", members, Regression, "anchor_jax.regression.predict")
    checks.array("members.mean", members.mean, "floating", "[M, B, ...]")
    if len(members.mean) < 2:
        raise UserError(f"members must be at least 2, [M, B, ...]; got shape {members.mean.shape}")
    between = jnp.var(members.mean, axis=0, ddof=1)
    within = 0.0 if members.epistemic is None else jnp.mean(members.epistemic**2, axis=0)
    noise = None if members.noise is None else deviation(jnp.mean(members.noise**2, axis=0))
    return Regression(jnp.mean(members.mean, axis=0), deviation(between + within), noise)


def fourier_features(frequencies: jax.Array, x: jax.Array) -> jax.Array:
    """Return sines and cosines of inputs, to fit functions that vary too fast for a plain network.

    A network anchored on these features takes references and residuals of the features instead of the inputs, as in the
    released code of Δ-UQ (`lib/modeldefs.py`).

    Args:
      frequencies: floating `[F, C]`, in periods per unit of each input.
      x: real `[B, C]`.

    Returns:
      float32 `[B, 2F]`: the sines, then the cosines of `2π·frequencies·x`.

    Raises:
      UserTypeError: `frequencies` are not floating, or `x` is not real.
      UserError: the shapes do not match, or an array is empty.

    Source: Tancik et al. 2020, *Fourier features let networks learn high frequency functions* (arXiv 2006.10739).

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp, numpy as np
      >>> features = aj.regression.fourier_features(jnp.array([[0.25]]), jnp.array([[0.0], [1.0]]))
      >>> print(abs(np.asarray(features)).round(3))
      [[0. 1.]
       [1. 0.]]
    """
    checks.array("frequencies", frequencies, "floating", "[F, C]")
    checks.array("x", x, "real", "[B, C]")
    if x.shape[1] != frequencies.shape[1]:
        raise UserError(f"x must have shape [B, {frequencies.shape[1]}] for these frequencies; got {x.shape}")
    angles = 2 * jnp.pi * jnp.asarray(x, jnp.float32) @ jnp.asarray(frequencies, jnp.float32).T
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


# old names, of version 0.1
Network = RegressionNetwork
mixture = combine_members


@partial(jax.jit, static_argnames="settings")
def _fit(
    key: jax.Array, x: jax.Array, y: jax.Array, settings: Settings, learning_rate: jax.Array, weight_decay: jax.Array
) -> RegressionNetwork:
    init_key, steps_key = jax.random.split(key)
    inputs, targets = measure_scale(x), measure_scale(y.reshape(len(y), -1))
    bank, labels = standardize(x, inputs), standardize(y.reshape(len(y), -1), targets)
    model = create_model(settings, labels.shape[1])
    params = model.init(init_key, jnp.zeros((1, bank.shape[1] * (1 + settings.references))), train=False)
    decay = optax.cosine_decay_schedule(1.0, settings.steps)
    optimizer = optax.adamw(lambda step: learning_rate * decay(step), weight_decay=weight_decay)

    def loss_fn(params: Any, rows: jax.Array, key: jax.Array) -> jax.Array:
        reference_key, mask_key, dropout_key = jax.random.split(key, 3)
        apply_fn = partial(model.apply, train=True, rngs={"dropout": dropout_key})
        mask = None
        if settings.references:
            references = sample_references(reference_key, bank, len(rows))
            mask = sample_mask(mask_key, len(rows), settings.mask_prob, settings.mask_per)
            outputs: Any = anchored(apply_fn)(params, bank[rows], references, mask=mask)
        else:
            outputs: Any = apply_fn(params, bank[rows])
        masked_target = settings.masked_target
        if settings.noise:
            means, variances = split_moments(outputs)
            return anchored_gaussian_nll(means, variances, labels[rows], mask, masked_target=masked_target).mean()
        return anchored_squared_error(outputs, labels[rows], mask, masked_target=masked_target).mean()

    all_rows = jnp.arange(len(bank))

    def train_step(state: Any, key: jax.Array) -> tuple[Any, None]:
        params, opt_state = state
        rows_key, loss_key = jax.random.split(key)
        rows = all_rows
        if settings.batch_size < len(bank):
            rows = jax.random.randint(rows_key, (settings.batch_size,), 0, len(bank))
        gradient = jax.grad(loss_fn)(params, rows, loss_key)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    keys = jax.random.split(steps_key, settings.steps)
    (params, _), _ = jax.lax.scan(train_step, (params, optimizer.init(params)), keys)
    return RegressionNetwork(params, inputs, targets, bank, labels, settings, y.shape[1:])


@partial(jax.jit, static_argnames="num")
def _predict(key: jax.Array, network: RegressionNetwork, x: jax.Array, num: int) -> Regression:
    settings, targets = network.settings, network.targets
    model, rows = create_model(settings, len(targets.mean)), standardize(x, network.inputs)

    def moments(outputs: Any) -> jax.Array:
        """Return means, and variances if they are predicted, `[B, D, 1 or 2]`."""
        return jnp.stack(split_moments(outputs), axis=-1) if settings.noise else outputs[..., None]

    if settings.references:
        references = sample_references(key, network.bank, num, replace=False)
        prediction = predict_with_references(
            lambda params, inputs: moments(model.apply(params, inputs, train=False)), network.params, rows, references
        )
    elif settings.dropout:
        prediction = predict_ensemble(
            lambda key: moments(model.apply(network.params, rows, train=True, rngs={"dropout": key})),
            jax.random.split(key, num),
        )
    else:
        prediction = Prediction(moments(model.apply(network.params, rows, train=False)), None)

    def as_targets(values: jax.Array) -> jax.Array:
        return values.reshape(len(x), *network.target_shape)

    return Regression(
        as_targets(prediction.mean[..., 0] * targets.std + targets.mean),
        None if prediction.std is None else as_targets(prediction.std[..., 0] * targets.std),
        as_targets(jnp.sqrt(prediction.mean[..., 1]) * targets.std) if settings.noise else None,
    )


def _check_inputs(network: RegressionNetwork, x: jax.Array) -> None:
    checks.instance("network", network, RegressionNetwork, "anchor_jax.regression.fit")
    _check_vectors("x", x, "[B, C]")
    if x.shape[1] != network.bank.shape[-1]:
        raise UserError(f"x must have shape [B, {network.bank.shape[-1]}], as in training; got {x.shape}")


def _check_vectors(name: str, values: jax.Array, shape: str) -> None:
    checks.array(name, values, "real", shape)
    if isinstance(values, np.ndarray):
        limit = float(np.finfo(np.float32).max)
        checks.within(name, values, -limit, limit)
