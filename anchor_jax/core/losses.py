"""Anchored training objectives: a masked example is asked for what is known without its input.

Of a class that is the uniform distribution; of a number, the mean and the variance of the training targets.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError, UserTypeError


def anchored_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    mask: jax.Array | None = None,
    *,
    masked_target: Literal["uniform", "label"] = "uniform",
    label_smoothing: float = 0.0,
) -> jax.Array:
    """Cross entropy of each example, in nats.

    Args:
      logits: floating `[B, C]`, C classes.
      labels: integer `[B]` in [0, C), or floating `[B, C]`, a distribution over classes an example. Those of
        NumPy are refused where they are neither; a JAX array is not looked into, and a label of it that is no
        class has a loss of NaN.
      mask: bool `[B]`, true where the reference was masked.
      masked_target: what a masked example is asked to predict: "uniform", the paper's uniform distribution
        over classes (arXiv 2406.00529, algorithm 1), or "label", what the released code trains on
        (`CIFAR/train.py`).
      label_smoothing: weight of the uniform distribution in the target of every example, in [0, 1].

    Returns:
      float32 `[B]`, one loss an example, at least 0.

    Raises:
      UserTypeError: `logits` are not floating, `labels` neither integers `[B]` nor floating `[B, C]`, `mask` is not
        bool, or `label_smoothing` no number.
      UserError: shapes do not fit or are empty, labels are no classes or distributions, `label_smoothing` is
        outside [0, 1] or `masked_target` unknown.
    """
    _check(logits, labels, mask, masked_target, label_smoothing)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    num_classes = logits.shape[-1]
    targets = labels.astype(jnp.float32) if labels.ndim == 2 else _one_hot(labels, num_classes)
    smoothing = jnp.asarray(label_smoothing, jnp.float32)
    targets = (1 - smoothing) * targets + smoothing / num_classes
    if mask is not None and masked_target == "uniform":
        targets = jnp.where(mask[:, None], 1 / num_classes, targets)
    return -jnp.sum(targets * log_probs, axis=-1)


def anchored_squared_error(
    outputs: jax.Array,
    targets: jax.Array,
    mask: jax.Array | None = None,
    *,
    masked_target: Literal["marginal", "label"] = "marginal",
    target_mean: float | jax.Array = 0.0,
) -> jax.Array:
    """Squared error of each example, mean over its outputs.

    Args:
      outputs: floating `[B, ...]`, predictions.
      targets: real, the shape of `outputs`.
      mask: bool `[B]`, true where the reference was masked.
      masked_target: what a masked example is asked to predict: "marginal", the mean of the targets, which is the best
        that can be said without the input, as the uniform distribution is in classification; or "label", its target.
      target_mean: mean of the training targets, a number or floating, of the shape of one example's targets; 0 if
        they are standardised.

    Returns:
      float32 `[B]`, one loss an example, at least 0.

    Raises:
      UserTypeError: `outputs` are not floating, `targets` not real, `mask` is not bool, or `target_mean` no number.
      UserError: shapes do not fit or are empty, or `masked_target` is unknown.
    """
    _check_regression("outputs", outputs, targets, mask, masked_target)
    centre = _of_one_example("target_mean", target_mean, outputs.shape[1:])
    targets = targets.astype(jnp.float32)
    if mask is not None and masked_target == "marginal":
        targets = jnp.where(_over_outputs(mask, targets), centre[None], targets)
    return _mean_over_outputs((outputs.astype(jnp.float32) - targets) ** 2)


def anchored_gaussian_nll(
    means: jax.Array,
    variances: jax.Array,
    targets: jax.Array,
    mask: jax.Array | None = None,
    *,
    masked_target: Literal["marginal", "label"] = "marginal",
    target_mean: float | jax.Array = 0.0,
    target_variance: float | jax.Array = 1.0,
) -> jax.Array:
    """Negative log likelihood of each example under predicted normal distributions, in nats, mean over its outputs.

    Where masked and "marginal" it is the cross entropy against the normal distribution of `target_mean` μ and
    `target_variance` σ², `½ ln(2π v) + ((m - μ)² + σ²) / 2v`, which is least where `m = μ` and `v = σ²`.

    Args:
      means: floating `[B, ...]`, predicted.
      variances: floating, the shape of `means`, predicted, above 0; elsewhere the loss is NaN or infinite.
      targets: real, the shape of `means`.
      mask: bool `[B]`, true where the reference was masked.
      masked_target: what a masked example is asked to predict: "marginal", the distribution of the targets without
        the input, or "label", its target.
      target_mean: mean of the training targets, a number or floating, of the shape of one example's targets; 0 if
        they are standardised.
      target_variance: their variance, likewise; 1 if they are standardised.

    Returns:
      float32 `[B]`, one loss an example.

    Raises:
      UserTypeError: `means` or `variances` are not floating, `targets` not real, `mask` is not bool, or
        `target_mean` or `target_variance` no number.
      UserError: shapes do not fit or are empty, or `masked_target` is unknown.

    Source: Nix & Weigend 1994, *Estimating the mean and variance of the target probability distribution*.
    """
    _check_regression("means", means, targets, mask, masked_target)
    checks.array("variances", variances, "floating", "[B, ...]")
    if variances.shape != means.shape:
        raise UserError(f"variances must have the shape of means, {means.shape}; got {variances.shape}")
    centre = _of_one_example("target_mean", target_mean, means.shape[1:])
    spread = _of_one_example("target_variance", target_variance, means.shape[1:])
    means, variances, targets = (values.astype(jnp.float32) for values in (means, variances, targets))
    squares = (means - targets) ** 2
    if mask is not None and masked_target == "marginal":
        squares = jnp.where(_over_outputs(mask, targets), (means - centre[None]) ** 2 + spread[None], squares)
    return _mean_over_outputs((jnp.log(2 * jnp.pi * variances) + squares / variances) / 2)


def _mean_over_outputs(losses):
    return jnp.mean(losses.reshape(len(losses), -1), axis=1)


def _over_outputs(mask, targets):
    """The mask `[B]` with an axis of length 1 for each axis of one example's targets."""
    return jnp.reshape(mask, (-1, *[1] * (targets.ndim - 1)))


def _of_one_example(name, value, shape):
    """A number, or an array of the shape of one example's targets, as float32 of that shape."""
    if jnp.ndim(value) == 0:
        checks.number(name, value, -float("inf"), float("inf"))
    else:
        checks.array(name, value, "floating", "[...]")
        if jnp.shape(value) != shape:
            raise UserError(f"{name} must be a number or of shape {shape}, as one target is; got {jnp.shape(value)}")
    return jnp.broadcast_to(jnp.asarray(value, jnp.float32), shape)


def _check_regression(name, outputs, targets, mask, masked_target):
    checks.array(name, outputs, "floating", "[B, ...]")
    checks.array("targets", targets, "real", "[B, ...]")
    if targets.shape != outputs.shape:  # these might broadcast
        raise UserError(f"targets must have the shape of {name}, {outputs.shape}; got {targets.shape}")
    if isinstance(targets, np.ndarray):
        checks.within("targets", targets, -np.inf, np.inf)
    _check_mask(mask, outputs)
    checks.choice("masked_target", masked_target, ("marginal", "label"))


def _one_hot(labels, num_classes):
    """The distributions of labels, NaN for one that is no class: of it there is no loss, 0 least of all."""
    is_class = (labels >= 0) & (labels < num_classes)
    return jnp.where(is_class[:, None], jax.nn.one_hot(labels, num_classes, dtype=jnp.float32), jnp.nan)


def _check(logits, labels, mask, masked_target, label_smoothing):
    checks.array("logits", logits, "floating", "[B, C]")
    checks.array("labels", labels, "real", "[...]")
    is_hard = jnp.issubdtype(labels.dtype, jnp.integer) and labels.ndim == 1
    is_soft = jnp.issubdtype(labels.dtype, jnp.floating) and labels.ndim == 2
    if not (is_hard or is_soft):
        raise UserTypeError(
            f"labels must be integers [B] or floating [B, C], got {labels.dtype} of shape {labels.shape}"
        )
    if labels.shape != logits.shape[: labels.ndim]:
        raise UserError(f"labels of shape {labels.shape} do not fit logits of shape {logits.shape}")
    if isinstance(labels, np.ndarray):
        _check_values(labels, logits.shape[1])
    _check_mask(mask, logits)
    checks.choice("masked_target", masked_target, ("uniform", "label"))
    checks.number("label_smoothing", label_smoothing)


def _check_mask(mask, outputs):
    if mask is not None:
        checks.array("mask", mask, "bool", "[B]")
        if mask.shape != outputs.shape[:1]:
            raise UserError(f"mask must be {outputs.shape[:1]}, got shape {mask.shape}")


def _check_values(labels, num_classes):
    is_soft = labels.ndim == 2
    checks.within("labels", labels, 0, 1 if is_soft else num_classes - 1)
    if is_soft:
        checks.within("sums of labels over classes", labels.sum(axis=1, dtype=np.float32), 0.99, 1.01)
