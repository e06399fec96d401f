"""Checks of the arguments of metrics; each returns them in the dtype that the metrics compute in."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float32, Int32

from anchor_jax.core import checks, precision
from anchor_jax.core.errors import UserError, UserTypeError
from anchor_jax.core.types import AnyArray


def check_predictions(
    name: str, scores: ArrayLike, labels: ArrayLike, low: float = 0, high: float = 1
) -> tuple[Float32[Array, "examples classes"], Int32[Array, "examples"]]:
    """Return scores in [low, high] as float32 `[B, C]` and labels as int32 `[B]`; raise for anything else."""
    scores, labels = _floating(name, scores), checks.numbers("labels", labels)
    if scores.ndim != 2 or scores.size == 0:
        raise UserError(f"{name} must have shape [B, C], B and C at least 1; got {scores.shape}")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UserTypeError(f"labels must be integers; got {labels.dtype}")
    if labels.shape != scores.shape[:1]:
        raise UserError(f"labels must have shape {scores.shape[:1]}, one per row of {name}; got {labels.shape}")
    _check_values(name, scores, low, high)
    _check_values("labels", labels, 0, scores.shape[1] - 1)
    return jnp.asarray(scores, jnp.float32), jnp.asarray(labels, jnp.int32)


def check_regression(means: ArrayLike, targets: ArrayLike) -> Float32[Array, "examples *targets"]:
    """Return the errors of predicted means, `targets - means`, as float32 `[B, ...]`; raise for anything else."""
    means, targets = _floating("means", means), checks.numbers("targets", targets)
    if means.ndim == 0 or means.size == 0:
        raise UserError(f"means must have shape [B, ...], B at least 1; got {means.shape}")
    _check_like_means("targets", targets, means)
    _check_values("means", means, -np.inf, np.inf)
    _check_values("targets", targets, -np.inf, np.inf)
    return precision.difference(targets, means)


def check_gaussian_regression(
    means: ArrayLike, stds: ArrayLike, targets: ArrayLike
) -> tuple[Float32[Array, "examples *targets"], Float32[Array, "examples *targets"]]:
    """Return errors, `targets - means`, and standard deviations above 0 as float32 `[B, ...]`; raise otherwise."""
    means, stds = _floating("means", means), _floating("stds", stds)
    _check_like_means("stds", stds, means)
    _check_positive("stds", stds)
    return check_regression(means, targets), jnp.asarray(stds, jnp.float32)


def check_levels(values: ArrayLike) -> Float32[Array, "levels"]:
    """Return the levels of intervals as float32 `[L]`, in [0, 1]; raise for anything else."""
    values = _floating("levels", values)
    if values.ndim != 1 or values.size == 0:
        raise UserError(f"levels must have shape [L], L at least 1; got {values.shape}")
    _check_values("levels", values, 0, 1)
    return jnp.asarray(values, jnp.float32)


def check_confidence(
    confidence: ArrayLike, correct: ArrayLike, low: float = 0, high: float = 1
) -> tuple[Float32[Array, "examples"], Bool[Array, "examples"]]:
    """Return confidences in [low, high] as float32 `[B]` and correctness as bool `[B]`; raise for anything else."""
    confidence = checks.numbers("confidence", confidence)
    if confidence.ndim != 1 or confidence.size == 0:
        raise UserError(f"confidence must have shape [B], B at least 1; got {confidence.shape}")
    correct = check_flags("correct", correct, confidence.shape)
    return check_column("confidence", confidence, confidence.shape, low, high), correct


def check_column(
    name: str, values: ArrayLike, shape: tuple[int, ...], low: float, high: float
) -> Float32[Array, "examples"]:
    """Return one number per example, in [low, high], as float32 `[B]`; raise for anything else."""
    values = _floating(name, values)
    _check_shape(name, values, shape)
    _check_values(name, values, low, high)
    return jnp.asarray(values, jnp.float32)


def check_flags(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Bool[Array, "examples"]:
    """Return one flag per example, given as bool or as 0 and 1, as bool `[B]`; raise for anything else."""
    values = checks.numbers(name, values)
    _check_shape(name, values, shape)
    if not isinstance(values, Tracer):
        with jax.ensure_compile_time_eval():
            is_binary = bool((values.astype(bool).astype(values.dtype) == values).all())
        if not is_binary:
            raise UserError(f"{name} must be bool or contain only 0 and 1; got other values")
    return jnp.asarray(values, jnp.bool_)


def _floating(name: str, values: ArrayLike) -> AnyArray:
    values = checks.numbers(name, values)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise UserTypeError(f"{name} must have a floating dtype; got {values.dtype}")
    return values


def _check_like_means(name: str, values: AnyArray, means: AnyArray) -> None:
    if values.shape != means.shape:  # these might broadcast
        raise UserError(f"{name} must have the shape of means, {means.shape}; got {values.shape}")


def _check_shape(name: str, values: AnyArray, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise UserError(f"{name} must have the shape of confidence, {shape}; got {values.shape}")


def _check_positive(name: str, values: AnyArray) -> None:
    _check_values(name, values, 0, np.inf)
    if not isinstance(values, Tracer):
        with jax.ensure_compile_time_eval():
            least = float(values.min())
        if least <= 0:
            raise UserError(f"{name} must be above 0; got {least:g}")


def _check_values(name: str, values: AnyArray, low: float, high: float) -> None:
    """Raise for NaN and values outside [low, high], unless the values are traced."""
    if not isinstance(values, Tracer):
        with jax.ensure_compile_time_eval():  # constants of a traced function are checked, too
            checks.within(name, values, low, high)
