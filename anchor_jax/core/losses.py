"""Anchored training objectives, one loss per example.

The target of a masked example is its label, or what is known without its input: the uniform distribution over classes,
or the mean and the variance of the training targets. Letters: B examples, C classes.
"""

# JAX leaves some parameters unannotated, such as `device` of `jnp.asarray`
# pyright: reportUnknownMemberType=false
from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Float32, Integer, Real, Shaped

from anchor_jax.core import checks, explicit, modes, precision
from anchor_jax.core.errors import UserError, UserTypeError
from anchor_jax.core.types import AnyArray
from anchor_jax.core.uncertainty import deviation


@explicit.automatic("logits", "labels", "mask")
@modes.in_32_bits
def anchored_cross_entropy(
    logits: Float[AnyArray, "batch classes"],
    labels: Integer[AnyArray, "batch"] | Float[AnyArray, "batch classes"],
    mask: Bool[AnyArray, "batch"] | None = None,
    *,
    masked_target: Literal["label", "uniform"] = "label",
    label_smoothing: Real[ArrayLike, ""] = 0.0,
) -> Float32[Array, "batch"]:
    """Return the cross entropy of each example, in nats.

    Args:
      logits: floating `[B, C]`.
      labels: integer `[B]` in [0, C), or floating `[B, C]`, one distribution over classes per example. Values of NumPy
        labels are checked; those of a JAX array are not, and an integer label outside [0, C) yields a loss of NaN.
      mask: bool `[B]`, true where the reference was masked; none by default. It matters only if `masked_target` is
        "uniform".
      masked_target: target of a masked example: "label", its own label, as in the released code (`CIFAR/train.py`), or
        "uniform", the uniform distribution over classes of the paper's text (arXiv 2406.00529, algorithm 1).
      label_smoothing: weight of the uniform distribution in every target, in [0, 1].

    Returns:
      float32 `[B]`, one loss per example, at least 0.

    Raises:
      UserTypeError: `logits` are not floating, `labels` are neither integers `[B]` nor floating `[B, C]`, `mask` is not
        bool, or `label_smoothing` is not a number.
      UserError: the shapes do not match, an array is empty, labels are not classes or distributions, `label_smoothing`
        is outside [0, 1], or `masked_target` is unknown.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp, numpy as np
      >>> logits = jnp.log(jnp.array([[0.8, 0.2], [0.8, 0.2]]))
      >>> mask = jnp.array([False, True])
      >>> loss = aj.anchored_cross_entropy(logits, jnp.array([0, 0]), mask, masked_target="uniform")
      >>> print(np.asarray(loss).round(3))  # -ln 0.8, and -(ln 0.8 + ln 0.2) / 2
      [0.223 0.916]
    """
    _check(logits, labels, mask, masked_target, label_smoothing)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    num_classes = logits.shape[-1]
    targets = labels.astype(jnp.float32) if labels.ndim == 2 else _one_hot(labels, num_classes)
    smoothing = jnp.asarray(label_smoothing, jnp.float32)
    targets = (1 - smoothing) * targets + smoothing / num_classes
    if mask is not None and masked_target == "uniform":
        targets = jnp.where(mask[:, None], 1 / num_classes, targets)
    # 0·ln 0 counts as 0: a logit of -inf excludes a class that is not the target
    is_impossible = jnp.logical_and(targets == 0, jnp.isneginf(log_probs))
    return -jnp.sum(targets * jnp.where(is_impossible, 0.0, log_probs), axis=-1)


@explicit.automatic("outputs", "targets", "mask")
@modes.any_promotion
def anchored_squared_error(
    outputs: Float[AnyArray, "batch *targets"],
    targets: Shaped[AnyArray, "batch *targets"],
    mask: Bool[AnyArray, "batch"] | None = None,
    *,
    masked_target: Literal["marginal", "label"] = "marginal",
    target_mean: Real[ArrayLike, ""] | Float[AnyArray, "*targets"] = 0.0,
) -> Float32[Array, "batch"]:
    """Return the squared error of each example, averaged over its outputs.

    Args:
      outputs: predictions, floating `[B, ...]`.
      targets: real, same shape as `outputs`.
      mask: bool `[B]`, true where the reference was masked; none by default.
      masked_target: target of a masked example: "marginal", the mean of the targets, the best prediction without the
        input (as the uniform distribution is in classification); or "label", its own target.
      target_mean: mean of the training targets, a number or a floating array of the shape of one target; 0 for
        standardized targets.

    Returns:
      float32 `[B]`, one loss per example, at least 0.

    Raises:
      UserTypeError: `outputs` are not floating, `targets` are not real, `mask` is not bool, or `target_mean` is not a
        number.
      UserError: the shapes do not match, an array is empty, or `masked_target` is unknown.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> outputs, targets = jnp.array([1.0, 1.0]), jnp.array([3.0, 3.0])
      >>> aj.anchored_squared_error(outputs, targets, mask=jnp.array([False, True])).tolist()
      [4.0, 1.0]
    """
    _check_regression("outputs", outputs, targets, mask, masked_target)
    mean = _broadcast_to_target("target_mean", target_mean, outputs)
    errors = precision.difference(outputs, targets)
    if mask is not None and masked_target == "marginal":
        errors = jnp.where(_align_mask(mask, errors), precision.difference(outputs, mean), errors)
    return _mean_over_outputs(errors**2)


@explicit.automatic("means", "variances", "targets", "mask")
@modes.any_promotion
def anchored_gaussian_nll(
    means: Float[AnyArray, "batch *targets"],
    variances: Float[AnyArray, "batch *targets"],
    targets: Shaped[AnyArray, "batch *targets"],
    mask: Bool[AnyArray, "batch"] | None = None,
    *,
    masked_target: Literal["marginal", "label"] = "marginal",
    target_mean: Real[ArrayLike, ""] | Float[AnyArray, "*targets"] = 0.0,
    target_variance: Real[ArrayLike, ""] | Float[AnyArray, "*targets"] = 1.0,
) -> Float32[Array, "batch"]:
    """Return the negative log likelihood of each example under predicted normal distributions, averaged over outputs.

    For a masked example and "marginal" it is the cross entropy against the normal distribution of mean `target_mean`
    (μ) and variance `target_variance` (σ²), `½ ln(2π v) + ((m - μ)² + σ²) / 2v`, whose minimum is at `m = μ`, `v = σ²`.

    Args:
      means: predicted means, floating `[B, ...]`.
      variances: predicted variances, floating, same shape as `means`, above 0; otherwise the loss is NaN or infinite.
      targets: real, same shape as `means`.
      mask: bool `[B]`, true where the reference was masked; none by default.
      masked_target: target of a masked example: "marginal", the distribution of the targets without the input, or
        "label", its own target.
      target_mean: mean of the training targets, a number or a floating array of the shape of one target; 0 for
        standardized targets.
      target_variance: variance of the training targets, a number or a floating array of the shape of one target; 1 for
        standardized targets.

    Returns:
      float32 `[B]`, one loss per example, in nats.

    Raises:
      UserTypeError: `means` or `variances` are not floating, `targets` are not real, `mask` is not bool, or
        `target_mean` or `target_variance` is not a number.
      UserError: the shapes do not match, an array is empty, or `masked_target` is unknown.

    Source: Nix & Weigend 1994, *Estimating the mean and variance of the target probability distribution*.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> means, variances, targets = jnp.zeros(1), jnp.ones(1), jnp.ones(1)
      >>> print(f"{aj.anchored_gaussian_nll(means, variances, targets)[0]:.3f}")  # (ln 2π + 1) / 2
      1.419
    """
    _check_regression("means", means, targets, mask, masked_target)
    checks.array("variances", variances, "floating", "[B, ...]")
    if variances.shape != means.shape:
        raise UserError(f"variances must have the shape of means, {means.shape}; got {variances.shape}")
    mean = _broadcast_to_target("target_mean", target_mean, means)
    variance = jnp.asarray(_broadcast_to_target("target_variance", target_variance, means), jnp.float32)
    variances = jnp.asarray(variances, jnp.float32)
    stds = jnp.sqrt(variances)  # gradients of `squares / variances` divide by `variances**2`, beyond float32 for some
    squares = (precision.difference(means, targets) / stds) ** 2
    if mask is not None and masked_target == "marginal":
        masked_squares = (precision.difference(means, mean) / stds) ** 2 + (deviation(variance) / stds) ** 2
        squares = jnp.where(_align_mask(mask, squares), masked_squares, squares)
    return _mean_over_outputs((math.log(2 * math.pi) + jnp.log(variances) + squares) / 2)


def _mean_over_outputs(losses: AnyArray) -> Array:
    return jnp.mean(losses.reshape(losses.shape[0], -1), axis=1)


def _align_mask(mask: AnyArray, targets: AnyArray) -> AnyArray:
    """Return the mask `[B]` with trailing axes of length 1, to broadcast against the targets."""
    return jnp.reshape(mask, (-1, *[1] * (targets.ndim - 1)))


def _broadcast_to_target(name: str, value: ArrayLike, outputs: AnyArray) -> AnyArray:
    """Return a number, or an array of the shape of one target, in a shape that broadcasts to the outputs `[B, ...]`."""
    shape = outputs.shape[1:]
    if jnp.ndim(value) == 0:
        checks.number(name, value, -float("inf"), float("inf"))
    else:
        checks.array(name, value, "floating", "[...]")
        if jnp.shape(value) != shape:
            raise UserError(f"{name} must be a number or have the shape of one target, {shape}; got {jnp.shape(value)}")
    numpy = jnp if isinstance(value, jax.Array) else np
    return numpy.broadcast_to(numpy.asarray(value)[None], (1, *shape))


def _one_hot(labels: AnyArray, num_classes: int) -> Array:
    """Return one-hot distributions; NaN for a label outside the classes, so that its loss is not 0."""
    labels = labels.astype(jnp.int32)  # the number of classes may exceed 8 bits
    is_class = (labels >= 0) & (labels < num_classes)
    return jnp.where(is_class[:, None], jax.nn.one_hot(labels, num_classes, dtype=jnp.float32), jnp.nan)


def _check(logits: AnyArray, labels: AnyArray, mask: AnyArray | None, masked_target: str, label_smoothing: Any) -> None:
    checks.array("logits", logits, "floating", "[B, C]")
    checks.array("labels", labels, "real", "[...]")
    is_hard = jnp.issubdtype(labels.dtype, jnp.integer) and labels.ndim == 1
    is_soft = jnp.issubdtype(labels.dtype, jnp.floating) and labels.ndim == 2
    if not (is_hard or is_soft):
        raise UserTypeError(
            f"labels must be integers [B] or floating [B, C]; got {labels.dtype} of shape {labels.shape}"
        )
    if labels.shape != logits.shape[: labels.ndim]:
        raise UserError(f"labels of shape {labels.shape} do not match logits of shape {logits.shape}")
    if isinstance(labels, np.ndarray):
        _check_values(labels, logits.shape[1])
    _check_mask(mask, logits)
    checks.choice("masked_target", masked_target, ("label", "uniform"))
    checks.number("label_smoothing", label_smoothing)


def _check_values(labels: AnyArray, num_classes: int) -> None:
    is_soft = labels.ndim == 2
    checks.within("labels", labels, 0, 1 if is_soft else num_classes - 1)
    if is_soft:
        checks.within("sums of labels over classes", labels.sum(axis=1, dtype=np.float32), 0.99, 1.01)


def _check_regression(
    name: str, outputs: AnyArray, targets: AnyArray, mask: AnyArray | None, masked_target: str
) -> None:
    checks.array(name, outputs, "floating", "[B, ...]")
    checks.array("targets", targets, "real", "[B, ...]")
    if targets.shape != outputs.shape:  # these might broadcast
        raise UserError(f"targets must have the shape of {name}, {outputs.shape}; got {targets.shape}")
    if isinstance(targets, np.ndarray):
        checks.within("targets", targets, -np.inf, np.inf)
    _check_mask(mask, outputs)
    checks.choice("masked_target", masked_target, ("marginal", "label"))


def _check_mask(mask: AnyArray | None, outputs: AnyArray) -> None:
    if mask is not None:
        checks.array("mask", mask, "bool", "[B]")
        if mask.shape != outputs.shape[:1]:
            raise UserError(f"mask must have shape {outputs.shape[:1]}; got {mask.shape}")
