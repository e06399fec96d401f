"""The columns that metrics take, checked and in the dtype that is computed in."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from anchor_jax import checks
from anchor_jax.errors import UserError, UserTypeError

Column = jax.Array | np.ndarray


def predictions(
    name: str, scores: ArrayLike, labels: ArrayLike, low: float = 0, high: float = 1
) -> tuple[jax.Array, jax.Array]:
    """The scores as float32 `[B, C]`, in [low, high], and the labels as int32 `[B]`; refuses all else."""
    scores, labels = checks.numbers(name, scores), checks.numbers("labels", labels)
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        raise UserTypeError(f"{name} must be floating, got {scores.dtype}")
    if scores.ndim != 2 or scores.size == 0:
        raise UserError(f"{name} must be [B, C], B and C at least 1; got shape {scores.shape}")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UserTypeError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != scores.shape[:1]:
        raise UserError(f"labels must be [B], {scores.shape[:1]} for this {name}; got shape {labels.shape}")
    _check_values(name, scores, low, high)
    _check_values("labels", labels, 0, scores.shape[1] - 1)
    return jnp.asarray(scores, jnp.float32), jnp.asarray(labels, jnp.int32)


def judged(confidence: ArrayLike, correct: ArrayLike, low: float = 0, high: float = 1) -> tuple[jax.Array, jax.Array]:
    """The confidences as float32 `[B]`, in [low, high], and whether they were right as bool `[B]`."""
    confidence = checks.numbers("confidence", confidence)
    if confidence.ndim != 1 or confidence.size == 0:
        raise UserError(f"confidence must be [B], B at least 1; got shape {confidence.shape}")
    correct = flags("correct", correct, confidence.shape)
    return numbers("confidence", confidence, confidence.shape, low, high), correct


def numbers(name: str, values: ArrayLike, shape: tuple[int, ...], low: float, high: float) -> jax.Array:
    """A column beside the confidences as float32 `[B]`, in [low, high]."""
    values = checks.numbers(name, values)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise UserTypeError(f"{name} must be floating, got {values.dtype}")
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


def _check_shape(name: str, values: Column, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise UserError(f"{name} must be [B], {shape} as confidence; got shape {values.shape}")


def _check_values(name: str, values: Column, low: float, high: float) -> None:
    """Refuses NaN and values outside [low, high], where they can be seen: the values under `jit` cannot."""
    if not isinstance(values, Tracer):
        with jax.ensure_compile_time_eval():  # what a traced function takes from outside has values, too
            checks.within(name, values, low, high)
