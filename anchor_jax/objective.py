"""The anchored training objective: cross entropy, against uniform where the reference is masked."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer


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
      labels: integer `[B]` in [0, C), or floating `[B, C]`, a distribution over classes an example.
      mask: bool `[B]`, true where the reference was masked.
      masked_target: what a masked example is asked to predict: "uniform", the paper's uniform distribution
        over classes (arXiv 2406.00529, algorithm 1), or "label", what the released code trains on
        (`CIFAR/train.py`).
      label_smoothing: weight of the uniform distribution in the target of every example, in [0, 1].

    Returns:
      float32 `[B]`, one loss an example, at least 0.

    Raises:
      TypeError: `labels` are neither integers `[B]` nor floating `[B, C]`.
      ValueError: shapes do not fit, `label_smoothing` is outside [0, 1] or `masked_target` unknown.
    """
    _check(logits, labels, mask, masked_target, label_smoothing)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    num_classes = logits.shape[-1]
    targets = labels if labels.ndim == 2 else jax.nn.one_hot(labels, num_classes)
    uniform_weight = jnp.full(labels.shape[:1], label_smoothing, jnp.float32)
    if mask is not None and masked_target == "uniform":
        uniform_weight = jnp.where(mask, 1.0, uniform_weight)
    uniform_weight = uniform_weight[:, None]
    targets = (1 - uniform_weight) * targets.astype(jnp.float32) + uniform_weight / num_classes
    return -jnp.sum(targets * log_probs, axis=-1)


def _check(logits, labels, mask, masked_target, label_smoothing):
    if logits.ndim != 2:
        raise ValueError(f"logits must be [B, C], got shape {logits.shape}")
    hard = jnp.issubdtype(labels.dtype, jnp.integer) and labels.ndim == 1
    soft = jnp.issubdtype(labels.dtype, jnp.floating) and labels.ndim == 2
    if not (hard or soft):
        raise TypeError(f"labels must be integers [B] or floating [B, C], got {labels.dtype} of shape {labels.shape}")
    if labels.shape != logits.shape[: labels.ndim]:
        raise ValueError(f"labels of shape {labels.shape} do not fit logits of shape {logits.shape}")
    if mask is not None and mask.dtype != jnp.bool_:
        raise TypeError(f"mask must be bool, got {mask.dtype}")
    if mask is not None and mask.shape != logits.shape[:1]:
        raise ValueError(f"mask must be {logits.shape[:1]}, got shape {mask.shape}")
    if masked_target not in ("uniform", "label"):
        raise ValueError(f"masked_target must be 'uniform' or 'label', got {masked_target!r}")
    if not isinstance(label_smoothing, Tracer) and not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must lie in [0, 1], got {label_smoothing}")
