"""The anchored training objective: cross entropy, against uniform where the reference is masked."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax import checks
from anchor_jax.errors import UserError, UserTypeError


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
    if mask is not None:
        checks.array("mask", mask, "bool", "[B]")
        if mask.shape != logits.shape[:1]:
            raise UserError(f"mask must be {logits.shape[:1]}, got shape {mask.shape}")
    checks.choice("masked_target", masked_target, ("uniform", "label"))
    checks.number("label_smoothing", label_smoothing)


def _check_values(labels, num_classes):
    is_soft = labels.ndim == 2
    checks.within("labels", labels, 0, 1 if is_soft else num_classes - 1)
    if is_soft:
        checks.within("sums of labels over classes", labels.sum(axis=1, dtype=np.float32), 0.99, 1.01)
