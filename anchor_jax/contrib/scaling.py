"""Scaling: calibration of the probabilities of a classifier after training, on examples that it was not trained on.

Each scaling changes the logits and takes their softmax again; its few parameters maximize the likelihood of the
calibration examples. They are fitted on the host in float64, and applied in JAX.

`temperature`
  One number for all classes, which never changes the predicted class: the safest, and the best for few examples.
`vector`
  A weight and a bias for each class.
`dirichlet`
  A matrix of weights and a bias, applied to the log-probabilities: needs many examples of each class, or a penalty.

Letters: B examples, C classes.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax, logsumexp

from anchor_jax.core import checks, explicit, modes, precision
from anchor_jax.core.errors import UserError, UserTypeError
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.metrics import validation

__all__ = [
    "DirichletScaling",
    "TemperatureScaling",
    "VectorScaling",
    "fit_dirichlet",
    "fit_temperature",
    "fit_vector",
    "log_probs",
]

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0
_MAX_STEPS = 2_000


@partial(jax.tree_util.register_dataclass, data_fields=("temperature",), meta_fields=())
@dataclasses.dataclass(frozen=True, eq=False)
class TemperatureScaling:
    """The scaling `softmax(logits / temperature)`, as returned by `fit_temperature`; a pytree.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> scaled = aj.scaling.TemperatureScaling(2.0)
      >>> print(f"{scaled(jnp.log(jnp.array([[0.9, 0.1]])))[0, 0]:.3f}")  # 3 to 1, the root of 9 to 1
      0.750
    """

    temperature: Any  # float32 [], above 0; above 1 makes the probabilities less certain

    def __call__(self, logits: ArrayLike) -> jax.Array:
        """Return calibrated probabilities, float32 `[B, C]`.

        Args:
          logits: floating `[B, C]`, of the kind that it was fitted to.

        Raises:
          UserTypeError: `logits` are not floating.
          UserError: `logits` are not `[B, C]` or contain NaN, or the temperature is not above 0.
        """
        if precision.is_concrete(self.temperature) and not precision.on_host(self.temperature) > 0:
            raise UserError(f"temperature must be above 0; got {float(self.temperature):g}")
        return _scaled(logits, self.temperature, 1.0, 0.0)


@partial(jax.tree_util.register_dataclass, data_fields=("weight", "bias"), meta_fields=())
@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class VectorScaling:
    """The scaling `softmax(weight * logits + bias)`, as returned by `fit_vector`; a pytree.

    Example:
      >>> import anchor_jax as aj
      >>> import numpy as np
      >>> scaled = aj.scaling.VectorScaling(np.ones(2), np.log([3.0, 1.0]))
      >>> print(f"{scaled(np.zeros((1, 2)))[0, 0]:.3f}")
      0.750
    """

    weight: Any  # float32 [C]
    bias: Any  # float32 [C]

    def __call__(self, logits: ArrayLike) -> jax.Array:
        """Return calibrated probabilities; see `TemperatureScaling`."""
        return _scaled(logits, 1.0, self.weight, self.bias)


@partial(jax.tree_util.register_dataclass, data_fields=("weight", "bias"), meta_fields=())
@short_repr
@dataclasses.dataclass(frozen=True, eq=False)
class DirichletScaling:
    """The scaling `softmax(weight @ log(softmax(logits)) + bias)`, as returned by `fit_dirichlet`; a pytree.

    Example:
      >>> import anchor_jax as aj
      >>> import numpy as np
      >>> scaled = aj.scaling.DirichletScaling(np.array([[0.0, 1.0], [1.0, 0.0]]), np.zeros(2))  # exchanges the classes
      >>> print(f"{scaled(np.log([[0.75, 0.25]]))[0, 0]:.3f}")
      0.250
    """

    weight: Any  # float32 [C, C]
    bias: Any  # float32 [C]

    def __call__(self, logits: ArrayLike) -> jax.Array:
        """Return calibrated probabilities; see `TemperatureScaling`."""
        return _scaled(logits, 1.0, self.weight, self.bias)


@explicit.automatic("probs")
@modes.in_32_bits
def log_probs(probs: ArrayLike) -> jax.Array:
    """Return log-probabilities, the logits of a classifier that returns probabilities, such as an average of softmaxes.

    Args:
      probs: floating `[B, C]`, in [0, 1]; 0 counts as the smallest normal float32, about 1.2e-38.

    Returns:
      float32 `[B, C]`, in [-87.4, 0].

    Raises:
      UserTypeError: `probs` are not floating.
      UserError: `probs` are not `[B, C]`, or contain NaN or values outside [0, 1].

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> aj.scaling.log_probs(jnp.array([[1.0, 0.0]])).round(2).tolist()
      [[0.0, -87.33999633789062]]
    """
    return jnp.log(jnp.clip(validation.check_scores("probs", probs), jnp.finfo(jnp.float32).tiny, 1.0))


def fit_temperature(logits: Any, labels: Any) -> TemperatureScaling:
    """Fit temperature scaling: the T in [0.01, 100] that minimizes the mean negative log likelihood.

    Args:
      logits: floating `[B, C]`, finite, of calibration examples; of probabilities, `log_probs(probs)`.
      labels: integer `[B]`, in [0, C).

    Returns:
      `TemperatureScaling`, a function of logits.

    Raises:
      UserTypeError: `logits` are not floating or `labels` are not integers, or they are traced.
      UserError: a shape does not match, a label is outside [0, C), or logits are not finite or seem to be
        probabilities.

    Warns:
      UserWarning: T is at the end of its range, as for examples that are all classified correctly.

    Source: Guo et al. 2017, *On calibration of modern neural networks* (arXiv 1706.04599).

    Example:
      >>> import anchor_jax as aj
      >>> import numpy as np
      >>> logits = np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
      >>> fitted = aj.scaling.fit_temperature(logits, np.array([0, 0, 1, 1]))  # 3 of 4 are right
      >>> print(f"{fitted.temperature:.3f} {fitted(logits).max():.3f}")
      1.820 0.750
    """
    z, y = _on_host(logits, labels)
    excess = z - z[np.arange(len(y)), y][:, None]  # of each class over the label

    def slope(log_temperature: float) -> float:
        """Return the derivative of the loss with respect to 1/T, which grows with 1/T: the loss is convex in it."""
        return float(np.mean(np.sum(_softmax(excess * math.exp(-log_temperature)) * excess, axis=1)))

    low, high = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    at_low, at_high = slope(low), slope(high)
    if at_low == at_high == 0:  # all classes have the same logits
        found = 0.0
    elif at_low <= 0:
        found = low
        _warn_of_limit(found, "the calibration examples are all classified correctly; give more")
    elif at_high >= 0:
        found = high
        _warn_of_limit(found, "the logits do not predict the labels; check that both have the same order")
    else:
        found = float(cast(float, brentq(slope, low, high, xtol=1e-12)))
    return TemperatureScaling(np.float32(math.exp(found)))


def fit_vector(logits: Any, labels: Any, *, bias: bool = True) -> VectorScaling:
    """Fit vector scaling: a weight and a bias for each class that minimize the mean negative log likelihood.

    Args:
      logits: see `fit_temperature`.
      labels: see `fit_temperature`; every class must occur.
      bias: whether to fit a bias; without one, it is 0.

    Returns:
      `VectorScaling`, a function of logits.

    Raises:
      UserTypeError: see `fit_temperature`.
      UserError: see `fit_temperature`; also if a class has no example.

    Warns:
      UserWarning: the fit has no optimum, as it classifies all examples correctly, or it has not converged.

    Source: Guo et al. 2017, *On calibration of modern neural networks*, sec. 4.2 (arXiv 1706.04599).

    Example:
      >>> import anchor_jax as aj
      >>> import numpy as np
      >>> logits = np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
      >>> fitted = aj.scaling.fit_vector(logits, np.array([0, 0, 1, 1, 0]))
      >>> [f"{p:.3f}" for p in fitted(logits[2:4])[:, 0]]  # 2 of the 3 first, 1 of the 2 others
      ['0.667', '0.500']
    """
    bias = checks.flag("bias", bias)
    z, y = _on_host(logits, labels)
    num_classes = z.shape[1]
    _check_all_classes(y, num_classes, "vector")

    def scores(params: np.ndarray) -> np.ndarray:
        return z * params[:num_classes] + (params[num_classes:] if bias else 0)

    def gradient(params: np.ndarray, residual: np.ndarray) -> np.ndarray:
        parts = [np.sum(residual * z, axis=0), *([residual.sum(axis=0)] if bias else [])]
        return np.concatenate(parts)

    found = _minimize(scores, gradient, y, np.concatenate([np.ones(num_classes), np.zeros(num_classes * bias)]))
    offsets = found[num_classes:] if bias else np.zeros(num_classes)
    return VectorScaling(np.float32(found[:num_classes]), np.float32(offsets))


def fit_dirichlet(
    logits: Any, labels: Any, *, off_diagonal_penalty: float = 0.0, bias_penalty: float = 0.0
) -> DirichletScaling:
    """Fit Dirichlet scaling: a matrix and a bias, applied to the log-probabilities.

    They minimize the mean negative log likelihood, plus `off_diagonal_penalty` times the mean of the squared weights
    beside the diagonal and `bias_penalty` times the mean of the squared biases (ODIR). Without these penalties it is
    multinomial logistic regression. Choose them by the likelihood of other examples, such as among 1e-3 to 10.

    Args:
      logits: see `fit_temperature`.
      labels: see `fit_temperature`; every class must occur, unless both penalties are above 0.
      off_diagonal_penalty: at least 0.
      bias_penalty: at least 0.

    Returns:
      `DirichletScaling`, a function of logits.

    Raises:
      UserTypeError: see `fit_temperature`; also if a penalty is not a number.
      UserError: see `fit_temperature`; also if a class has no example, or a penalty is negative.

    Warns:
      UserWarning: see `fit_vector`.

    Source: Kull et al. 2019, *Beyond temperature scaling: Obtaining well-calibrated multiclass probabilities with
    Dirichlet calibration* (arXiv 1910.12656).

    Example:
      >>> import anchor_jax as aj
      >>> import numpy as np
      >>> logits = np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
      >>> fitted = aj.scaling.fit_dirichlet(logits, np.array([0, 0, 1, 1, 0]))
      >>> [f"{p:.3f}" for p in fitted(logits[2:4])[:, 0]]
      ['0.667', '0.500']
    """
    beside = checks.static_number("off_diagonal_penalty", off_diagonal_penalty, 0, math.inf)
    of_bias = checks.static_number("bias_penalty", bias_penalty, 0, math.inf)
    z, y = _on_host(logits, labels)
    z, num_classes = log_softmax(z, axis=1), z.shape[1]
    if not (beside and of_bias):
        _check_all_classes(y, num_classes, "Dirichlet")
    # penalty of each parameter's square: the last column holds the biases
    penalty = np.full((num_classes, num_classes + 1), beside / max(num_classes * (num_classes - 1), 1))
    np.fill_diagonal(penalty, 0.0)
    penalty[:, -1] = of_bias / num_classes
    start = np.eye(num_classes, num_classes + 1)
    inputs = np.concatenate([z, np.ones((len(z), 1))], axis=1)

    def scores(params: np.ndarray) -> np.ndarray:
        return inputs @ params.reshape(start.shape).T

    def gradient(params: np.ndarray, residual: np.ndarray) -> np.ndarray:
        return (residual.T @ inputs).ravel()

    found = _minimize(scores, gradient, y, start.ravel(), penalty.ravel()).reshape(start.shape)
    return DirichletScaling(np.float32(found[:, :-1]), np.float32(found[:, -1]))


def _minimize(
    scores: Callable[[np.ndarray], np.ndarray],
    gradient: Callable[[np.ndarray, np.ndarray], np.ndarray],
    labels: np.ndarray,
    start: np.ndarray,
    penalty: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Minimize the mean negative log likelihood plus `sum(penalty * params**2)`; warn if there is no minimum.

    Args:
      scores: parameters -> logits `[B, C]`.
      gradient: parameters and the derivative with respect to the logits -> that with respect to the parameters.
      labels: integer `[B]`.
      start: parameters.
      penalty: of each.
    """
    rows = np.arange(len(labels))

    def loss(params: np.ndarray) -> tuple[float, np.ndarray]:
        found = scores(params)
        value = np.mean(logsumexp(found, axis=1) - found[rows, labels])
        residual = _softmax(found)
        residual[rows, labels] -= 1
        return value + np.sum(penalty * params**2), gradient(params, residual / len(labels)) + 2 * penalty * params

    options = {"maxiter": _MAX_STEPS, "maxfun": 2 * _MAX_STEPS, "ftol": 1e-15, "gtol": 1e-8, "maxcor": 20}
    result = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    if not np.any(penalty) and (scores(result.x).argmax(axis=1) == labels).all():
        _warn("classifies all calibration examples correctly, so that no finite parameters fit best; give more")
    elif result.nit >= _MAX_STEPS:
        _warn(f"has not converged after {_MAX_STEPS:,} steps; give more")
    return result.x


def _warn_of_limit(log_temperature: float, reason: str) -> None:
    warnings.warn(
        f"the temperature that fits best is outside [{MIN_TEMPERATURE:g}, {MAX_TEMPERATURE:g}]; it is set to "
        f"{math.exp(log_temperature):g}: {reason}",
        stacklevel=3,
    )


def _warn(problem: str) -> None:
    warnings.warn(f"the scaling {problem} examples, a penalty, or fit a temperature instead", stacklevel=4)


def _on_host(logits: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return logits as float64 `[B, C]` and labels as int32 `[B]` of NumPy; raise for anything else."""
    if isinstance(logits, Tracer) or isinstance(labels, Tracer):
        raise UserTypeError(
            "logits and labels must be arrays with values, as a fit runs on the host; call it outside jit"
        )
    checked, labels = validation.check_predictions("logits", logits, labels, -math.inf, math.inf)
    on_host = np.asarray(jax.device_get(logits)).astype(np.float64)
    if not np.isfinite(np.asarray(checked)).all():
        raise UserError("logits must be finite; got infinite ones; for probabilities of 0, give log_probs(probs)")
    if on_host.min() >= 0 and on_host.shape[1] > 1 and np.allclose(on_host.sum(axis=1), 1, atol=1e-3):
        raise UserError("logits must not be probabilities; got rows that sum to 1; give log_probs(probs)")
    return on_host, np.asarray(labels)


def _check_all_classes(labels: np.ndarray, num_classes: int, name: str) -> None:
    missing = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
    if len(missing):
        raise UserError(
            f"labels must contain every class for {name} scaling; class {missing[0]} has no example; give more "
            "examples, or fit a temperature"
        )


def _softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


@explicit.automatic("logits")
@modes.in_32_bits
def _scaled(logits: ArrayLike, temperature: Any, weight: Any, bias: Any) -> jax.Array:
    """Return `softmax(logits / temperature * weight + bias)`; a matrix of weights applies to log-probabilities."""
    z = validation.check_scores("logits", logits, -math.inf, math.inf)
    if jnp.ndim(bias) and jnp.shape(bias)[-1] != z.shape[1]:
        raise UserError(f"logits must have shape [B, {jnp.shape(bias)[-1]}], as in the fit; got {z.shape}")
    if jnp.ndim(weight) == 2:
        of_excluded = jnp.log(jnp.finfo(jnp.float32).tiny)  # as in `log_probs`, since a weight may be 0
        known = jax.nn.log_softmax(z)
        known = jnp.where(known < jnp.finfo(jnp.float32).min, of_excluded, known)
        weighted = jnp.matmul(known, jnp.asarray(weight).T, precision=jax.lax.Precision.HIGHEST)
    else:
        weighted = z / temperature * weight
    return jax.nn.softmax(weighted + bias)
