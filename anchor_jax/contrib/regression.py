"""Regression on vectors: train an anchored network and predict with uncertainty, without a training loop of your own.

`fit` standardizes inputs and targets and trains a multi-layer perceptron in one compiled call; `predict` averages it
over K references. Both work under `jit` and `vmap`, so networks of multiple seeds, such as an ensemble, take one call:

    network = fit(key, x, y, Settings())
    networks = jax.vmap(fit, in_axes=(0, None, None, None))(jax.random.split(key, 5), x, y, Settings())

The same code trains networks without references, with or without dropout, for comparison.

Inputs and targets are standardized in float64 on the host, and predictions are returned in float64, so that data far
from zero, such as times in UNIX seconds, keep their digits. Arrays that `jit` or `vmap` traces are float32 before they
get here: pass such data as NumPy arrays that are not mapped, or subtract a constant before.

Letters: N training examples, B examples, C inputs, D outputs, K references. If targets are `[N]`, predictions are
`[B]`.

Source: *Single Model Uncertainty Estimation via Stochastic Data Centering*, NeurIPS 2022 (arXiv 2207.07235).
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from anchor_jax.contrib import float64, tables
from anchor_jax.contrib.regression_network import (
    MLP,
    RegressionNetwork,
    Scale,
    Settings,
    create_model,
    deviations_in_unit_of,
    in_unit_of,
    measure_scale,
    split_moments,
    standardize,
)
from anchor_jax.contrib.regression_result import Regression, combine_members
from anchor_jax.contrib.regression_scores import reverse_score
from anchor_jax.core import checks, explicit, modes, precision
from anchor_jax.core.anchoring import anchored, sample_mask, sample_references
from anchor_jax.core.errors import UserError
from anchor_jax.core.inference import Prediction, predict_ensemble
from anchor_jax.core.inference import predict as predict_with_references
from anchor_jax.core.losses import anchored_gaussian_nll, anchored_squared_error

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


@explicit.automatic()
def fit(key: jax.Array, x: tables.Numbers, y: tables.Numbers, settings: Settings) -> RegressionNetwork:
    """Train a network on vectors.

    Args:
      key: a JAX random key; the same key returns the same network.
      x: inputs, real `[N, C]`, of any scale: an array, lists or a DataFrame, whose names of columns are kept. The
        scale of a column that is constant, up to rounding, is left unchanged.
      y: targets, real `[N]` or `[N, D]`: an array, a list, a Series or a DataFrame.
      settings: settings of the network and its training.

    Returns:
      The trained network.

    Raises:
      UserTypeError: `key` is not a key, `x` or `y` is not real, or `settings` are not `Settings`.
      UserError: the shapes do not match, an array is empty, there are fewer than 2 examples, two columns have the same
        name, or a NumPy array contains NaN or infinity, or varies by less than float32 can represent.

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
    x, columns = tables.numbers("x", x, "[N, C]")
    y, _ = tables.numbers("y", y, "[N, ...]")
    if y.ndim > 2 or len(y) != len(x) or len(x) < 2:
        raise UserError(
            f"y must have shape [N] or [N, D] for x [N, C], N at least 2; got shapes {y.shape} and {x.shape}"
        )
    targets = y.reshape(len(y), -1)
    scales = measure_scale("x", x), measure_scale("y", targets)
    bank, labels = standardize(x, scales[0]), standardize(targets, scales[1])
    rates = jnp.float32(settings.learning_rate), jnp.float32(settings.weight_decay)
    static_settings = dataclasses.replace(settings, learning_rate=0.0, weight_decay=0.0)  # so that no rate recompiles
    params = _fit(key, bank, labels, static_settings, *rates)
    return RegressionNetwork(params, *scales, bank, labels, settings.untraced(), y.shape[1:], columns)


@explicit.automatic("x")
def predict(key: jax.Array, network: RegressionNetwork, x: tables.Numbers, num: int = 10) -> Regression:
    """Predict means and uncertainties with a trained network.

    An anchored network is evaluated with `num` distinct references from its training inputs, without dropout. Any other
    network with dropout is evaluated `num` times with dropped units (MC dropout, arXiv 1506.02142). A network with
    neither is evaluated once, whatever `num` is.

    Args:
      key: a JAX random key for the references or for dropout, which are shared by all inputs.
      network: result of `fit`.
      x: inputs, real `[B, C]`: an array, lists, or a DataFrame. If the network was trained on one, too, columns are
        matched by name.
      num: K, at least 1; at most N for an anchored network.

    Returns:
      `Regression` of B inputs.

    Raises:
      UserTypeError: `key` is not a key, `network` is not a `RegressionNetwork`, `x` is not real, or `num` is not an
        integer.
      UserError: the shapes or the names of columns do not match, an array is empty, `num` is out of range, or a NumPy
        array contains NaN or infinity.

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
    x = _inputs(network, x)
    num = checks.count("num", num)
    return _predict(key, network, standardize(x, network.inputs), num)


@explicit.automatic("x")
def nonconformity(
    network: RegressionNetwork,
    x: tables.Numbers,
    *,
    refined: bool = False,
    autoencoder: RegressionNetwork | None = None,
    weight: float = 1.0,
    key: jax.Array | None = None,
    num: int | None = None,
    chunk_size: int | None = None,
) -> jax.Array:
    """Return the nonconformity of inputs to an anchored network: `anchor_jax.pager` with its training examples.

    Args:
      network: result of `fit`, anchored.
      x: inputs, real `[B, C]`.
      refined: whether to return Score 2, `pager.refined_nonconformity`, in standard deviations of the inputs, instead
        of Score 1, in standard deviations of the targets.
      autoencoder: an anchored autoencoder for Score 2, such as
        `fit(key, x, x, Settings(noise=False, hidden=(64, 4, 64)))`. It adds `pager.cyclic_reconstruction` to what is
        minimized, in standard deviations of the inputs of `network`. By default nothing is added.
      weight: `λ`, the weight of the reconstruction, at least 0.
      key: a JAX random key for the training examples, with `num`; the same key draws the same ones.
      num: K, the number of training examples, drawn without replacement, at least 1 and at most N; about 100 in the
        paper. By default all are used.
      chunk_size: number of training examples evaluated at once; one at a time by default.

    Returns:
      float32 `[B]`, at least 0; higher is more anomalous.

    Raises:
      UserTypeError: `network` or `autoencoder` is not a `RegressionNetwork`, `x` is not real, `key` is not a key,
        `weight` is not a number, `num` or `chunk_size` is not an integer, or `refined` is not a flag.
      UserError: a network is not anchored, the autoencoder is not one of these inputs or `refined` is not set, the
        shapes do not match, an array is empty, `weight`, `num` or `chunk_size` is out of range, only one of `key` and
        `num` is given, or a NumPy array contains NaN or infinity.

    Example:
      >>> import anchor_jax as aj
      >>> import jax, jax.numpy as jnp
      >>> key, x = jax.random.key(0), jnp.linspace(0, 1, 8)[:, None]
      >>> settings = aj.regression.Settings(hidden=(4,), steps=10)
      >>> network = aj.regression.fit(key, x, jnp.sin(x[:, 0]), settings)
      >>> aj.regression.nonconformity(network, x[:3]).shape
      (3,)
      >>> autoencoder = aj.regression.fit(key, x, x, settings)
      >>> aj.regression.nonconformity(network, x[:3], refined=True, autoencoder=autoencoder, key=key, num=4).shape
      (3,)
    """
    x, refined = _inputs(network, x), checks.flag("refined", refined)
    if not network.settings.references:
        raise UserError("network must be anchored, Settings(references=True); got a network without references")
    if autoencoder is not None:
        _check_autoencoder(network, autoencoder, refined)
    checks.number("weight", weight, 0, float("inf"))
    chunk_size = None if chunk_size is None else checks.count("chunk_size", chunk_size)
    examples = network.bank, network.labels
    if (key is None) != (num is None):
        raise UserError("key and num must be given together: the key draws num training examples")
    if key is not None:
        checks.key("key", key)
        num = checks.count("num", num, 1, len(network.bank))
        drawn = sample_references(key, jnp.arange(len(network.bank)), num, replace=False)
        examples = network.bank[drawn], network.labels[drawn]
    rows = standardize(x, network.inputs)
    return reverse_score(network, autoencoder, rows, examples, weight, refined=refined, chunk_size=chunk_size)


@explicit.automatic("x")
@modes.any_promotion
def fourier_features(frequencies: jax.Array, x: tables.Numbers) -> jax.Array:
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
    x, _ = tables.numbers("x", x, "[B, C]")
    if x.shape[1] != frequencies.shape[1]:
        raise UserError(f"x must have shape [B, {frequencies.shape[1]}] for these frequencies; got {x.shape}")
    if precision.is_concrete(x, frequencies):
        turns = precision.on_host(x) @ precision.on_host(frequencies).T
    else:  # in full precision also on GPUs and TPUs, whose default keeps few digits of many turns
        dtype = jnp.promote_types(jnp.result_type(x, frequencies), jnp.float32)
        rows, waves = jnp.asarray(x, dtype), jnp.asarray(frequencies, dtype)
        turns = jnp.matmul(rows, waves.T, precision=jax.lax.Precision.HIGHEST)
    turns = turns - (np if isinstance(turns, np.ndarray) else jnp).round(turns)  # while there are digits for the rest
    angles = jnp.asarray(2 * np.pi * turns, jnp.float32)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


# old names, of version 0.1
Network = RegressionNetwork
mixture = combine_members


@partial(jax.jit, static_argnames="settings")
@modes.in_32_bits
def _fit(
    key: jax.Array,
    bank: jax.Array,
    labels: jax.Array,
    settings: Settings,
    learning_rate: jax.Array,
    weight_decay: jax.Array,
) -> Any:
    """Return trained parameters, from standardized inputs and targets."""
    init_key, steps_key = jax.random.split(key)
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
    return params


@partial(jax.jit, static_argnames="num")
@modes.in_32_bits
def _predict(key: jax.Array, network: RegressionNetwork, rows: jax.Array, num: int) -> Regression:
    """Return the predictions for standardized inputs."""
    settings, targets = network.settings, network.targets
    model = create_model(settings, network.labels.shape[-1])

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

    def as_targets(parts: float64.Parts) -> float64.Parts:
        high, middle, low = (part.reshape(len(rows), *network.target_shape) for part in parts)
        return high, middle, low

    def as_deviations(values: jax.Array) -> float64.Parts:
        return as_targets(float64.split(deviations_in_unit_of(targets, values)))

    return Regression.of_parts(
        as_targets(in_unit_of(targets, prediction.mean[..., 0])),
        None if prediction.std is None else as_deviations(prediction.std[..., 0]),
        as_deviations(jnp.sqrt(prediction.mean[..., 1])) if settings.noise else None,
    )


def _inputs(network: RegressionNetwork, x: tables.Numbers) -> Any:
    """Return inputs as an array, checked, with the columns of training."""
    checks.instance("network", network, RegressionNetwork, "anchor_jax.regression.fit")
    _check_single("network", network)
    values, columns = tables.numbers("x", x, "[B, C]")
    values = tables.order_columns("x", values, columns, network.columns)
    if values.shape[1] != network.bank.shape[-1]:
        raise UserError(f"x must have shape [B, {network.bank.shape[-1]}], as in training; got {values.shape}")
    return values


def _check_single(name: str, network: RegressionNetwork) -> None:
    if network.bank.ndim != 2:
        raise UserError(
            f"{name} must be a single network; got networks stacked by jax.vmap, with a bank of shape "
            f"{network.bank.shape}; map over them with jax.vmap"
        )


def _check_autoencoder(network: RegressionNetwork, autoencoder: RegressionNetwork, refined: bool) -> None:
    checks.instance("autoencoder", autoencoder, RegressionNetwork, "anchor_jax.regression.fit")
    _check_single("autoencoder", autoencoder)
    if not refined:
        raise UserError("autoencoder is for Score 2: set refined=True, or leave it out")
    if not autoencoder.settings.references:
        raise UserError("autoencoder must be anchored, Settings(references=True); got a network without references")
    size, shape = network.bank.shape[-1], (autoencoder.bank.shape[-1], autoencoder.labels.shape[-1])
    if shape != (size, size):
        raise UserError(
            f"autoencoder must map the {size} inputs of network to themselves, fit(key, x, x, settings); got "
            f"{shape[0]} inputs and {shape[1]} targets"
        )
    if None not in (columns := (network.columns, autoencoder.columns)) and columns[0] != columns[1]:
        raise UserError(f"autoencoder must have the columns of network, {columns[0]}, in this order; got {columns[1]}")
