"""What the metrics ask of their arguments; each check returns them in the dtype that is computed in."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

_TOLERANCE = 1e-3  # a probability rounded to half precision may pass 1 by less than this


def predictions(
    name: str, scores: ArrayLike, labels: ArrayLike, low: float = 0, high: float = 1
) -> tuple[jax.Array, jax.Array]:
    """The scores as float32 `[B, C]`, in [low, high], and the labels as int32 `[B]`; refuses all else."""
    scores, labels = jnp.asarray(scores), jnp.asarray(labels)
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got {scores.dtype}")
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"{name} must be [B, C], B and C at least 1; got shape {scores.shape}")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != scores.shape[:1]:
        raise ValueError(f"labels must be [B], {scores.shape[:1]} for this {name}; got shape {labels.shape}")
    _check_values(name, scores, low, high)
    _check_values("labels", labels, 0, scores.shape[1] - 1)
    return scores.astype(jnp.float32), labels.astype(jnp.int32)


def judged(confidence: ArrayLike, correct: ArrayLike, low: float = 0, high: float = 1) -> tuple[jax.Array, jax.Array]:
    """The confidences as float32 `[B]`, in [low, high], and whether they were right as bool `[B]`."""
    confidence = jnp.asarray(confidence)
    if confidence.ndim != 1 or confidence.size == 0:
        raise ValueError(f"confidence must be [B], B at least 1; got shape {confidence.shape}")
    correct = flags("correct", correct, confidence.shape)
    return numbers("confidence", confidence, confidence.shape, low, high), correct


def numbers(name: str, values: ArrayLike, shape: tuple[int, ...], low: float, high: float) -> jax.Array:
    """A column beside the confidences as float32 `[B]`, in [low, high]."""
    values = jnp.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got {values.dtype}")
    _check_shape(name, values, shape)
    _check_values(name, values, low, high)
    return values.astype(jnp.float32)


def flags(name: str, values: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """A column of yes and no beside the confidences as bool `[B]`."""
    values = jnp.asarray(values)
    _check_shape(name, values, shape)
    flags = values.astype(jnp.bool_)
    if not isinstance(values, Tracer) and not jnp.all(flags.astype(values.dtype) == values):
        raise ValueError(f"{name} must be bool or hold 0 and 1 alone, got other values")
    return flags


def count(name: str, value: int) -> int:
    """A number of things, at least 1."""
    if not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, static under jit; got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def _check_shape(name: str, values: jax.Array, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ValueError(f"{name} must be [B], {shape} as confidence; got shape {values.shape}")


def _check_values(name: str, values: jax.Array, low: float, high: float) -> None:
    """Refuses NaN and values outside [low, high], where they can be seen: the values under `jit` cannot."""
    if isinstance(values, Tracer):
        return
    smallest, largest = float(jnp.min(values)), float(jnp.max(values))
    if np.isnan(smallest):
        raise ValueError(f"{name} must not hold NaN, got {jnp.isnan(values).sum()} of it in {values.size} values")
    if smallest < low - _TOLERANCE or largest > high + _TOLERANCE:
        raise ValueError(f"{name} must lie in [{low}, {high}], got values from {smallest:g} to {largest:g}")
