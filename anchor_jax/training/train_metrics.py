"""Training metrics: sums over the examples of each step, and their means when they are logged."""

from typing import Any

import jax
import jax.numpy as jnp

from anchor_jax.core.uncertainty import predictive_entropy
from anchor_jax.runs.state import Totals
from anchor_jax.training.model_batch import ModelBatch


def batch_totals(losses: jax.Array, logits: jax.Array, model_batch: ModelBatch) -> Totals:
    """Sum up the metrics of one batch; masked examples are counted separately, since their inputs lack the reference.

    A prediction for a mixed image is correct if it is the class with the largest share.

    Args:
      losses: float32 `[B]`.
      logits: float32 `[B, classes]`.
      model_batch: the examples.
    """
    targets, mask = model_batch.targets, model_batch.mask
    labels = targets if targets.ndim == 1 else jnp.argmax(targets, axis=-1)
    correct = jnp.argmax(logits, axis=-1) == labels

    def total(values: Any) -> jax.Array:
        return jnp.sum(values, dtype=jnp.float32)

    totals = Totals.zeros()._replace(loss=total(losses), examples=jnp.float32(len(losses)))
    if mask is None:
        return totals._replace(correct=total(correct))
    entropy = predictive_entropy(jax.nn.softmax(logits))
    return totals._replace(
        correct=total(correct & ~mask),
        masked_examples=total(mask),
        masked_correct=total(correct & mask),
        masked_entropy=total(jnp.where(mask, entropy, 0)),
    )


def mean_metrics(totals: Totals) -> dict[str, float | None]:
    """Return the means of summed metrics; None for the mean of nothing."""

    def mean(total: Any, count: Any) -> float | None:
        return float(total / count) if count else None

    return {
        "loss": mean(totals.loss, totals.examples),
        "accuracy": mean(totals.correct, totals.examples - totals.masked_examples),
        "masked_accuracy": mean(totals.masked_correct, totals.masked_examples),
        "masked_entropy": mean(totals.masked_entropy, totals.masked_examples),
        "gradient_norm": mean(totals.gradient_norm, totals.steps),
    }
