"""The columns that metrics take, checked and in the dtype that is computed in."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError, UserTypeError

Column = jax.Array | np.ndarray


def predictions(
    name: str, scores: ArrayLike, labels: ArrayLike, low: float = 0, high: float = 1
) -> tuple[jax.Array, jax.Array]:
    """The scores as float32 `[B, C]`, in [low, high], and the labels as int32 `[B]`; refuses all else."""
    scores, labels = _floating(name, scores), checks.numbers("labels", labels)
    if scores.ndim != 2 or scores.size == 0:
        raise UserError(f"{name} must be [B, C], B and C at least 1; got shape {scores.shape}")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UserTypeError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != scores.shape[:1]:
        raise UserError(f"labels must be [B], {scores.shape[:1]} for this {name}; got shape {labels.shape}")
    _check_values(name, scores, low, high)
    _check_values("labels", labels, 0, scores.shape[1] - 1)
    return jnp.asarray(scores, jnp.float32), jnp.asarray(labels, jnp.int32)


def regressions(means: ArrayLike, targets: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Predicted numbers and their targets, float32 `[B, ...]` each; refuses all else."""
    means, targets = _floating("means", means), checks.numbers("targets", targets)
    if means.ndim == 0 or means.size == 0:
        raise UserError(f"means must be [B, ...], B at least 1; got shape {means.shape}")
    _check_like_means("targets", targets, means)
    _check_values("means", means, -np.inf, np.inf)
    _check_values("targets", targets, -np.inf, np.inf)
    return jnp.asarray(means, jnp.float32), jnp.asarray(targets, jnp.float32)


def spread_regressions(means: ArrayLike, stds: ArrayLike, targets: ArrayLike) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As `regressions`, with standard deviations above 0 between them."""
    stds = _floating("stds", stds)
    means, targets = regressions(means, targets)
    _check_like_means("stds", stds, means)
    _check_positive("stds", stds)
    return means, jnp.asarray(stds, jnp.float32), targets


def levels(values: ArrayLike) -> jax.Array:
    """Levels of intervals, float32 `[L]`, in [0, 1]."""
    values = _floating("levels", values)
    if values.ndim != 1 or values.size == 0:
        raise UserError(f"levels must be [L], L at least 1; got shape {values.shape}")
    _check_values("levels", values, 0, 1)
    return jnp.asarray(values, jnp.float32)


def judged(confidence: ArrayLike, correct: ArrayLike, low: float = 0, high: float = 1) -> tuple[jax.Array, jax.Array]:
    """The confidences as float32 `[B]`, in [low, high], and whether they were right as bool `[B]`."""
    confidence = checks.numbers("confidence", confidence)
    if confidence.ndim != 1 or confidence.size == 0:
        raise UserError(f"confidence must be [B], B at least 1; got shape {confidence.shape}")
    correct = flags("correct", correct, confidence.shape)
    return numbers("confidence", confidence, confidence.shape, low, high), correct


def numbers(name: str, values: ArrayLike, shape: tuple[int, ...], low: float, high: float) -> jax.Array:
    """A column beside the confidences as float32 `[B]`, in [low, high]."""
    values = _floating(name, values)
    _check_shape(name, values, shape)
    _check_values(name, values, low, high)
    return jnp.asarray(values, jnp.float32)


def flags(name: str, values: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """A column of yes and no beside the confidences as bool `[B]`."""
    values = checks.numbers(name, values)
    _check_shape(name, values, shape)
    if not isinstance(values, Tracer):
        with jax.ensure_compile_time_eval():
            is_binary = bool((values.astype(bool).astype(values.dtype) == values).all())
        if not is_binary:
            raise UserError(f"{name} must be bool or hold 0 and 1 alone, got other values")
    return jnp.asarray(values, jnp.bool_)


def _floating(name: str, values: ArrayLike) -> Column:
    values = checks.numbers(name, values)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise UserTypeError(f"{name} must be floating, got {values.dtype}")
    return values


def _check_like_means(name: str, values: Column, means: Column) -> None:
    if values.shape != means.shape:  # these might broadcast
        raise UserError(f"{name} must have the shape of means, {means.shape}; got {values.shape}")


def _check_shape(name: str, values: Column, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise UserError(f"{name} must be [B], {shape} as confidence; got shape {values.shape}")


def _check_positive(name: str, values: Column) -> None:
    _check_values(name, values, 0, np.inf)
    if not isinstance(values, Tracer):
        with jax.ensure_compile_time_eval():
            least = float(values.min())
        if least <= 0:
            raise UserError(f"{name} must be above 0, got {least:g}: what has no spread has no likelihood")


def _check_values(name: str, values: Column, low: float, high: float) -> None:
    """Refuses NaN and values outside [low, high], where they can be seen: the values under `jit` cannot."""
    if not isinstance(values, Tracer):
        with jax.ensure_compile_time_eval():  # what a traced function takes from outside has values, too
            checks.within(name, values, low, high)
