"""Uncertainty from predictions: entropies in nats, and the spread over references.

Pure functions of arrays on JAX alone. Letters: K references, B examples, C classes. The decomposition is
the one of Depeweg et al. 2018 (arXiv 1710.07283): predictive entropy = expected entropy (of the data) +
mutual information (between prediction and reference).
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import entr


def predictive_entropy(probs: jax.Array) -> jax.Array:
    """Entropy of predicted distributions: `[..., C]` -> `[...]`, in [0, ln C] nats; higher is less certain."""
    return jnp.sum(entr(probs), axis=-1)


def expected_entropy(probs: jax.Array) -> jax.Array:
    """Mean over references of the entropy, `[K, ..., C]` -> `[...]`, in [0, ln C] nats: uncertainty of the data."""
    return jnp.mean(predictive_entropy(probs), axis=0)


def mutual_information(probs: jax.Array) -> jax.Array:
    """What the references disagree on, `[K, ..., C]` -> `[...]`, in [0, ln C] nats; higher is less certain.

    Entropy of the mean distribution minus mean entropy; rounding below zero is cut off.
    """
    return information_gain(predictive_entropy(jnp.mean(probs, axis=0)), expected_entropy(probs))


def information_gain(predictive: jax.Array, expected: jax.Array) -> jax.Array:
    """Mutual information from a predictive and an expected entropy, `[...]` each, never below 0."""
    return jnp.maximum(predictive - expected, 0.0)


def probability_spread(probs: jax.Array) -> jax.Array:
    """Unbiased standard deviation over references, `[K, ..., C]` -> `[..., C]`, K at least 2, in [0, 0.71]."""
    if len(probs) < 2:
        raise ValueError(f"probs must hold at least 2 references, [K, ..., C]; got shape {jnp.shape(probs)}")
    return jnp.std(probs, axis=0, ddof=1)


def energy(logits: jax.Array) -> jax.Array:
    """Free energy of logits, `[..., C]` -> `[...]`, `-log Σ exp`; higher is stranger (Liu et al. 2020, 2010.03759)."""
    return -jax.nn.logsumexp(logits, axis=-1)
