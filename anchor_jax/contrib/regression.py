"""Regression on vectors: an anchored network, its training and its uncertainty, for those who have no training loop.

`fit` standardises inputs and targets and trains a multi-layer perceptron in one compiled call; `predict` asks it with K
references. Both work under `jit` and `vmap`, so that networks of many seeds, an ensemble among them, cost one call:

    network = fit(key, x, y, Settings())
    networks = jax.vmap(fit, in_axes=(0, None, None, None))(jax.random.split(key, 5), x, y, Settings())

The same code trains networks without references, with dropout or not, so that they can be compared.

Letters: N training examples, B examples, C inputs, D outputs, K references. Where targets are `[N]`, what is predicted
is `[B]`.

Source: *Single Model Uncertainty Estimation via Stochastic Data Centering*, NeurIPS 2022 (arXiv 2207.07235).
"""

import dataclasses
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct

from anchor_jax.contrib import pager
from anchor_jax.core import checks
from anchor_jax.core.anchoring import anchored, sample_mask, sample_references
from anchor_jax.core.errors import UserError
from anchor_jax.core.inference import Prediction, predict_ensemble
from anchor_jax.core.inference import predict as predict_with_references
from anchor_jax.core.losses import anchored_gaussian_nll, anchored_squared_error
from anchor_jax.core.uncertainty import deviation

_LEAST_VARIANCE = 1e-6  # of standardised targets: nothing is predicted more surely


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is trained, and how; static under `jit`. Other values of the last two compile nothing anew."""

    references: bool = True  # whether the network is anchored
    noise: bool = True  # whether it predicts the variance of each target (Gaussian likelihood), or its mean alone
    hidden: tuple[int, ...] = (64, 64)  # width of each hidden layer, ReLU
    dropout: float = 0.0  # after each hidden layer, in [0, 1)
    mask_prob: float = 0.0  # probability that a reference is masked, in [0, 1]
    mask_per: Literal["batch", "example"] = "batch"
    masked_target: Literal["marginal", "label"] = "marginal"  # see `anchored_gaussian_nll`
    steps: int = 1_000
    batch_size: int = 32  # drawn with replacement; all N examples where they are no more
    learning_rate: float = 1e-3  # of AdamW at the first step; falls to 0 as a cosine
    weight_decay: float = 0.0

    def __post_init__(self):
        checks.several("hidden", self.hidden)
        for width in self.hidden:
            checks.count("hidden", width)
        for name in ("steps", "batch_size"):
            checks.count(name, getattr(self, name))
        for name in ("dropout", "mask_prob"):
            checks.number(name, getattr(self, name))
        for name in ("learning_rate", "weight_decay"):
            checks.number(name, getattr(self, name), 0, float("inf"))
        if self.dropout == 1:
            raise UserError("dropout must be below 1, which leaves nothing; got 1")
        if self.mask_prob and not self.references:
            raise UserError(f"mask_prob must be 0 without references; got {self.mask_prob}")
        checks.choice("mask_per", self.mask_per, ("batch", "example"))
        checks.choice("masked_target", self.masked_target, ("marginal", "label"))


class Scale(NamedTuple):
    """What standardises columns."""

    mean: jax.Array  # float32 [C]
    std: jax.Array  # float32 [C], above 0


@struct.dataclass
class RegressionNetwork:
    """A trained network, as `fit` gives it; with a leading axis in each array, networks of many seeds."""

    params: Any
    inputs: Scale
    targets: Scale
    bank: jax.Array  # float32 [N, C], the training inputs, standardised
    labels: jax.Array  # float32 [N, D], their targets, standardised
    settings: Settings = struct.field(pytree_node=False)
    target_shape: tuple[int, ...] = struct.field(pytree_node=False)  # of one example: () or (D,)


class Regression(NamedTuple):
    """Predictions in the unit of the targets; where these are `[N, D]` they are `[B, D]`."""

    mean: jax.Array  # float32 [B]
    epistemic: jax.Array | None  # float32 [B], unbiased spread of the mean, at least 0; None where it was asked once
    noise: jax.Array | None  # float32 [B], predicted standard deviation of a target; None where none is predicted

    @property
    def std(self) -> jax.Array:
        """Standard deviation of a target, all told, float32 `[B]`; of nothing known, 0."""
        parts = [part**2 for part in (self.epistemic, self.noise) if part is not None]
        return deviation(sum(parts, jnp.zeros_like(self.mean)))


class MLP(nn.Module):
    """Dense layers with ReLU and dropout, and a linear one: `[B, features]` -> `[B, outputs]`."""

    hidden: tuple[int, ...]
    outputs: int
    dropout: float

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """With `train` it takes a key named "dropout"."""
        for width in self.hidden:
            inputs = nn.relu(nn.Dense(width)(inputs))
            inputs = nn.Dropout(self.dropout, deterministic=not train)(inputs)
        return nn.Dense(self.outputs)(inputs)


def fit(key: jax.Array, x: jax.Array, y: jax.Array, settings: Settings) -> RegressionNetwork:
    """Train a network on vectors.

    Args:
      key: a JAX random key; the same key gives the same network.
      x: inputs, real `[N, C]`, of any scale. A column that does not vary is left where it is.
      y: targets, real `[N]` or `[N, D]`.
      settings: what is trained.

    Returns:
      The trained network.

    Raises:
      UserTypeError: `key` is no key, `x` or `y` not real, or `settings` no `Settings`.
      UserError: shapes do not fit or are empty, there are less than 2 examples, or an array of NumPy holds NaN or
        infinity.

    Source: *Single Model Uncertainty Estimation via Stochastic Data Centering* (arXiv 2207.07235), section 3.
    """
    checks.key("key", key)
    checks.instance("settings", settings, Settings, "anchor_jax.contrib.regression.Settings(...)")
    _check_vectors("x", x, "[N, C]")
    _check_vectors("y", y, "[N, ...]")
    if y.ndim > 2 or len(y) != len(x) or len(x) < 2:
        raise UserError(f"y must be [N] or [N, D] for x [N, C], N at least 2; got shapes {y.shape} and {x.shape}")
    rates = jnp.float32(settings.learning_rate), jnp.float32(settings.weight_decay)
    of_any_rates = dataclasses.replace(settings, learning_rate=0.0, weight_decay=0.0)
    trained = _fit(key, jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), of_any_rates, *rates)
    return trained.replace(settings=settings)


def predict(key: jax.Array, network: RegressionNetwork, x: jax.Array, num: int = 10) -> Regression:
    """Means and uncertainties of a trained network.

    An anchored network is asked with `num` references, all different, of its training inputs; one with dropout instead,
    `num` times with units dropped (MC dropout, arXiv 1506.02142); one with neither is asked once, whatever `num` is.

    Args:
      key: a JAX random key, of the references or of dropout; all inputs have the same ones.
      network: what `fit` gave.
      x: inputs, real `[B, C]`.
      num: K, at least 1; of references at most N.

    Raises:
      UserTypeError: `key` is no key, `network` no `Network`, `x` not real, or `num` no integer.
      UserError: shapes do not fit or are empty, `num` is out of range, or an array of NumPy holds NaN or infinity.
    """
    checks.key("key", key)
    _check_asked(network, x)
    num = checks.count("num", num)
    return _predict(key, network, jnp.asarray(x, jnp.float32), num)


def nonconformity(
    network: RegressionNetwork, x: jax.Array, *, refined: bool = False, chunk_size: int | None = None
) -> jax.Array:
    """How strange inputs are to an anchored network: `anchor_jax.contrib.pager` with all of its training examples.

    Args:
      network: what `fit` gave, anchored.
      x: inputs, real `[B, C]`.
      refined: Score 2, `refined_nonconformity`, in deviations of the inputs, rather than Score 1, in deviations of the
        targets.
      chunk_size: training examples looked at once; one after the other by default.

    Returns:
      float32 `[B]`, at least 0; higher is stranger.

    Raises:
      UserTypeError: `network` is no `Network`, `x` not real, or `chunk_size` no integer.
      UserError: the network is not anchored, shapes do not fit or are empty, `chunk_size` is below 1, or an array of
        NumPy holds NaN or infinity.
    """
    _check_asked(network, x)
    if not network.settings.references:
        raise UserError("network must be anchored, Settings(references=True): without references there is no reverse")
    score = pager.refined_nonconformity if refined else pager.nonconformity
    model, num_targets = _model(network.settings, len(network.targets.mean)), len(network.targets.mean)

    def means(params, inputs):
        outputs: Any = model.apply(params, inputs, train=False)
        return outputs[:, :num_targets]

    rows = _standardised(jnp.asarray(x, jnp.float32), network.inputs)
    return jax.jit(partial(score, means, chunk_size=chunk_size))(network.params, rows, network.bank, network.labels)


def combine_members(members: Regression) -> Regression:
    """One prediction of many, such as of an ensemble: moments of the mixture of its members.

    Args:
      members: predictions with a leading axis of M members, at least 2, as `jax.vmap(predict, ...)` gives them.

    Returns:
      `mean` of the means; `epistemic` from the unbiased variance of the means over members, and the mean of what each
      member has of it; `noise` from the mean of the variances.

    Raises:
      UserTypeError: `members` are no `Regression`.
      UserError: there are less than 2 members.

    Source: Lakshminarayanan et al. 2017, *Simple and scalable predictive uncertainty estimation using deep ensembles*
    (arXiv 1612.01474).
    """
    checks.instance("members", members, Regression, "anchor_jax.contrib.regression.predict")
    checks.array("members.mean", members.mean, "floating", "[M, B, ...]")
    if len(members.mean) < 2:
        raise UserError(f"members must be at least 2, [M, B, ...]; got shape {members.mean.shape}")
    between = jnp.var(members.mean, axis=0, ddof=1)
    within = 0.0 if members.epistemic is None else jnp.mean(members.epistemic**2, axis=0)
    noise = None if members.noise is None else deviation(jnp.mean(members.noise**2, axis=0))
    return Regression(jnp.mean(members.mean, axis=0), deviation(between + within), noise)


def fourier_features(frequencies: jax.Array, x: jax.Array) -> jax.Array:
    """Sines and cosines of inputs, for functions that vary faster than a plain network follows.

    Anchored on them instead of on the inputs, a network sees references and residuals of the features, as in the
    released code of Δ-UQ (`lib/modeldefs.py`).

    Args:
      frequencies: floating `[F, C]`, in periods a unit of each input.
      x: real `[B, C]`.

    Returns:
      float32 `[B, 2F]`: sines first, then cosines of `2π·frequencies·x`.

    Raises:
      UserTypeError: `frequencies` are not floating, or `x` not real.
      UserError: shapes do not fit or are empty.

    Source: Tancik et al. 2020, *Fourier features let networks learn high frequency functions* (arXiv 2006.10739).
    """
    checks.array("frequencies", frequencies, "floating", "[F, C]")
    checks.array("x", x, "real", "[B, C]")
    if x.shape[1] != frequencies.shape[1]:
        raise UserError(f"x must be [B, {frequencies.shape[1]}] for these frequencies; got shape {x.shape}")
    angles = 2 * jnp.pi * jnp.asarray(x, jnp.float32) @ jnp.asarray(frequencies, jnp.float32).T
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


@partial(jax.jit, static_argnames="settings")
def _fit(
    key: jax.Array, x: jax.Array, y: jax.Array, settings: Settings, learning_rate: jax.Array, weight_decay: jax.Array
) -> RegressionNetwork:
    init_key, steps_key = jax.random.split(key)
    inputs, targets = _scale_of(x), _scale_of(y.reshape(len(y), -1))
    bank, labels = _standardised(x, inputs), _standardised(y.reshape(len(y), -1), targets)
    model = _model(settings, labels.shape[1])
    params = model.init(init_key, jnp.zeros((1, bank.shape[1] * (1 + settings.references))), train=False)
    falling = optax.cosine_decay_schedule(1.0, settings.steps)
    optimizer = optax.adamw(lambda step: learning_rate * falling(step), weight_decay=weight_decay)

    def loss_of(params, rows, key):
        reference_key, mask_key, dropout_key = jax.random.split(key, 3)
        network = partial(model.apply, train=True, rngs={"dropout": dropout_key})
        mask = None
        if settings.references:
            references = sample_references(reference_key, bank, len(rows))
            mask = sample_mask(mask_key, len(rows), settings.mask_prob, settings.mask_per)
            outputs: Any = anchored(network)(params, bank[rows], references, mask=mask)
        else:
            outputs: Any = network(params, bank[rows])
        target = settings.masked_target
        if settings.noise:
            return anchored_gaussian_nll(*_moments(outputs), labels[rows], mask, masked_target=target).mean()
        return anchored_squared_error(outputs, labels[rows], mask, masked_target=target).mean()

    all_rows = jnp.arange(len(bank))

    def step(state, key):
        params, moments = state
        rows_key, loss_key = jax.random.split(key)
        rows = all_rows
        if settings.batch_size < len(bank):
            rows = jax.random.randint(rows_key, (settings.batch_size,), 0, len(bank))
        gradient = jax.grad(loss_of)(params, rows, loss_key)
        updates, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments), None

    keys = jax.random.split(steps_key, settings.steps)
    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), keys)
    return RegressionNetwork(params, inputs, targets, bank, labels, settings, y.shape[1:])


@partial(jax.jit, static_argnames="num")
def _predict(key: jax.Array, network: RegressionNetwork, x: jax.Array, num: int) -> Regression:
    settings, targets = network.settings, network.targets
    model, rows = _model(settings, len(targets.mean)), _standardised(x, network.inputs)

    def moments(outputs):
        """Means, and variances behind them where they are predicted: `[B, D, 1 or 2]`."""
        return jnp.stack(_moments(outputs), axis=-1) if settings.noise else outputs[..., None]

    if settings.references:
        references = sample_references(key, network.bank, num, replace=False)
        asked = predict_with_references(
            lambda params, inputs: moments(model.apply(params, inputs, train=False)), network.params, rows, references
        )
    elif settings.dropout:
        asked = predict_ensemble(
            lambda key: moments(model.apply(network.params, rows, train=True, rngs={"dropout": key})),
            jax.random.split(key, num),
        )
    else:
        asked = Prediction(moments(model.apply(network.params, rows, train=False)), None)

    def as_targets(values):
        return values.reshape(len(x), *network.target_shape)

    return Regression(
        as_targets(asked.mean[..., 0] * targets.std + targets.mean),
        None if asked.std is None else as_targets(asked.std[..., 0] * targets.std),
        as_targets(jnp.sqrt(asked.mean[..., 1]) * targets.std) if settings.noise else None,
    )


def _model(settings, num_targets):
    return MLP(settings.hidden, num_targets * (1 + settings.noise), settings.dropout)


def _moments(outputs):
    """Means and variances, `[B, D]` each, of what a network gives, `[B, 2D]`."""
    means, logits = jnp.split(outputs, 2, axis=-1)
    return means, nn.softplus(logits) + _LEAST_VARIANCE


def _scale_of(columns):
    std = jnp.std(columns, axis=0)
    return Scale(jnp.mean(columns, axis=0), jnp.where(std == 0, 1.0, std))


def _standardised(columns, scale):
    return (columns - scale.mean[None]) / scale.std[None]


def _check_asked(network, x):
    checks.instance("network", network, RegressionNetwork, "anchor_jax.contrib.regression.fit")
    _check_vectors("x", x, "[B, C]")
    if x.shape[1] != network.bank.shape[-1]:
        raise UserError(f"x must be [B, {network.bank.shape[-1]}], as the network was trained on; got shape {x.shape}")


def _check_vectors(name, values, shape):
    checks.array(name, values, "real", shape)
    if isinstance(values, np.ndarray):
        most = float(np.finfo(np.float32).max)
        checks.within(name, values, -most, most)
