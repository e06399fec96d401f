"""Checks of the arguments of metrics; each returns them in the dtype that the metrics compute in."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float32, Int32, Real

from anchor_jax.core import checks, precision
from anchor_jax.core.errors import UserError, UserTypeError
from anchor_jax.core.types import AnyArray


def check_predictions(
    name: str, scores: ArrayLike, labels: ArrayLike, low: float = 0, high: float = 1
) -> tuple[Float32[Array, "examples classes"], Int32[Array, "examples"]]:
    """Return scores in [low, high] as float32 `[B, C]` and labels as int32 `[B]`; raise for anything else."""
    scores = check_scores(name, scores, low, high)
    return scores, check_labels(name, scores, labels)


def check_scores(name: str, scores: ArrayLike, low: float = 0, high: float = 1) -> Float32[Array, "examples classes"]:
    """Return scores in [low, high] as float32 `[B, C]`; raise for anything else."""
    scores = _floating(name, scores)
    if scores.ndim != 2 or scores.size == 0:
        raise UserError(f"{name} must have shape [B, C], B and C at least 1; got {scores.shape}")
    check_values(name, scores, low, high)
    return jnp.asarray(scores, jnp.float32)


def check_regression(means: ArrayLike, targets: ArrayLike) -> Float32[Array, "examples *targets"]:
    """Return the errors of predicted means, `targets - means`, as float32 `[B, ...]`; raise for anything else."""
    means, targets = _floating("means", means), checks.numbers("targets", targets)
    if means.ndim == 0 or means.size == 0:
        raise UserError(f"means must have shape [B, ...], B at least 1; got {means.shape}")
    _check_like_means("targets", targets, means)
    check_values("means", means, -np.inf, np.inf)
    check_values("targets", targets, -np.inf, np.inf)
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
    check_values("levels", values, 0, 1)
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


def check_detection(scores: ArrayLike, positive: ArrayLike) -> tuple[Real[Array, "examples"], Bool[Array, "examples"]]:
    """Return scores `[B]`, see `_in_order`, and flags, some true and some false, as bool `[B]`; raise otherwise."""
    scores, positive = checks.numbers("scores", scores), checks.numbers("positive", positive)
    if scores.ndim != 1 or scores.size == 0:
        raise UserError(f"scores must have shape [B], B at least 1; got {scores.shape}")
    if positive.shape != scores.shape:
        raise UserError(f"positive must have the shape of scores, {scores.shape}; got {positive.shape}")
    check_values("scores", scores, -np.inf, np.inf)
    flags = check_flags("positive", positive, positive.shape)
    if not isinstance(flags, Tracer):
        with jax.ensure_compile_time_eval():
            num = int(flags.sum())
        if num in (0, flags.size):
            raise UserError(f"positive must contain both 0 and 1; got {num} of 1 in {flags.size} values")
    return _in_order(scores), flags


def check_ranking(confidence: ArrayLike, correct: ArrayLike) -> tuple[Real[Array, "examples"], Bool[Array, "examples"]]:
    """Return real confidences `[B]`, see `_in_order`, and correctness as bool `[B]`; raise for anything else."""
    confidence = checks.numbers("confidence", confidence)
    _, flags = check_confidence(confidence, correct, -np.inf, np.inf)
    return _in_order(confidence), flags


def check_sets(
    sets: ArrayLike, labels: ArrayLike | None = None
) -> tuple[Bool[Array, "examples classes"], Int32[Array, "examples"]]:
    """Return sets of classes as bool `[B, C]` and labels, 0 if there are none, as int32 `[B]`; raise otherwise."""
    sets = checks.numbers("sets", sets)
    if sets.ndim != 2 or sets.size == 0:
        raise UserError(f"sets must have shape [B, C], B and C at least 1; got {sets.shape}")
    labels = jnp.zeros(sets.shape[0], jnp.int32) if labels is None else labels
    return check_flags("sets", sets, sets.shape), check_labels("sets", sets, labels)


def check_column(
    name: str, values: ArrayLike, shape: tuple[int, ...], low: float, high: float
) -> Float32[Array, "examples"]:
    """Return one number per example, in [low, high], as float32 `[B]`; raise for anything else."""
    values = _floating(name, values)
    _check_shape(name, values, shape)
    check_values(name, values, low, high)
    return jnp.asarray(values, jnp.float32)


def check_flags(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """Return flags, given as bool or as 0 and 1, as bool of this shape; raise for anything else."""
    values = checks.numbers(name, values)
    _check_shape(name, values, shape)
    if not isinstance(values, Tracer):
        with jax.ensure_compile_time_eval():
            is_binary = bool((values.astype(bool).astype(values.dtype) == values).all())
        if not is_binary:
            raise UserError(f"{name} must be bool or contain only 0 and 1; got other values")
    return jnp.asarray(values, jnp.bool_)


def check_labels(name: str, scores: AnyArray, labels: ArrayLike) -> Int32[Array, "examples"]:
    """Return the labels of scores `[B, C]` as int32 `[B]`; raise for anything else."""
    labels = checks.numbers("labels", labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UserTypeError(f"labels must be integers; got {labels.dtype}")
    if labels.shape != scores.shape[:1]:
        raise UserError(f"labels must have shape {scores.shape[:1]}, one per row of {name}; got {labels.shape}")
    check_values("labels", labels, 0, scores.shape[1] - 1)
    return jnp.asarray(labels, jnp.int32)


def _in_order(values: AnyArray) -> Real[Array, "examples"]:
    """Return values, or integers in the same order, in 32 bits.

    float32 would tie close float64 and large integers, and devices compare numbers below 1.2e-38 as if they were 0.
    """
    if isinstance(values, np.ndarray) and values.dtype.itemsize >= 8:
        return jnp.asarray(np.unique(values, return_inverse=True)[1], jnp.int32)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        return jnp.asarray(values)
    bits = lax.bitcast_convert_type(jnp.asarray(values, jnp.float32), jnp.int32)
    return jnp.where(bits < 0, jnp.iinfo(jnp.int32).min - bits, bits)  # a sign and a magnitude; 0 for -0.0


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
    check_values(name, values, 0, np.inf)
    if not isinstance(values, Tracer):
        with jax.ensure_compile_time_eval():
            least = float(values.min())
        if least <= 0:
            raise UserError(f"{name} must be above 0; got {least:g}")
        if least < float(np.finfo(np.float32).tiny):
            raise UserError(f"{name} must be at least 1.2e-38, as float32 has no smaller ones; got {least:g}")


def check_values(name: str, values: AnyArray, low: float, high: float) -> None:
    """Raise for NaN and values outside [low, high], unless the values are traced."""
    if not isinstance(values, Tracer):
        with jax.ensure_compile_time_eval():  # constants of a traced function are checked, too
            checks.within(name, values, low, high)
