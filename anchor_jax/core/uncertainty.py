"""Uncertainty from predictions: entropies in nats, and the spread over references.

Pure functions of arrays on JAX alone. Letters: K references, B examples, C classes. The decomposition is
the one of Depeweg et al. 2018 (arXiv 1710.07283): predictive entropy = expected entropy (of the data) +
mutual information (between prediction and reference).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError


def predictive_entropy(probs: jax.Array) -> jax.Array:
    """Entropy of predicted distributions: `[..., C]` -> `[...]`, in [0, ln C] nats; higher is less certain.

    Raises:
      UserTypeError: `probs` are not floating.
      UserError: they are empty, or of NumPy and hold NaN or a value outside [0, 1].
    """
    _check("probs", probs, "[..., C]")
    is_none = probs == 0  # whose gradient is infinite, and NaN behind a softmax that has none
    return jnp.sum(jnp.where(is_none, 0.0, entr(jnp.where(is_none, 1.0, probs))), axis=-1)


def expected_entropy(probs: jax.Array) -> jax.Array:
    """Mean over references of the entropy, `[K, ..., C]` -> `[...]`, in [0, ln C] nats: uncertainty of the data.

    Raises:
      UserTypeError: as `predictive_entropy`.
      UserError: as `predictive_entropy`, or there is no axis of references.
    """
    _check("probs", probs, "[K, ..., C]")
    return jnp.mean(predictive_entropy(probs), axis=0)


def mutual_information(probs: jax.Array) -> jax.Array:
    """What the references disagree on, `[K, ..., C]` -> `[...]`, in [0, ln C] nats; higher is less certain.

    Entropy of the mean distribution minus mean entropy; rounding below zero is cut off.

    Raises:
      UserTypeError: as `predictive_entropy`.
      UserError: as `predictive_entropy`, or there is no axis of references.
    """
    _check("probs", probs, "[K, ..., C]")
    return information_gain(predictive_entropy(jnp.mean(probs, axis=0)), expected_entropy(probs))


def information_gain(predictive: jax.Array, expected: jax.Array) -> jax.Array:
    """Mutual information from a predictive and an expected entropy, `[...]` each, never below 0.

    Raises:
      UserTypeError: one is not floating.
      UserError: their shapes differ, or are empty.
    """
    checks.array("predictive", predictive, "floating", "[...]")
    checks.array("expected", expected, "floating", "[...]")
    if jnp.shape(predictive) != jnp.shape(expected):
        raise UserError(
            f"predictive and expected must have one shape, got {jnp.shape(predictive)} and {jnp.shape(expected)}"
        )
    return jnp.maximum(predictive - expected, 0.0)


def probability_spread(probs: jax.Array) -> jax.Array:
    """Unbiased standard deviation over references, `[K, ..., C]` -> `[..., C]`, K at least 2, in [0, 0.71].

    Raises:
      UserTypeError: as `predictive_entropy`.
      UserError: as `predictive_entropy`, or K is below 2.
    """
    _check("probs", probs, "[K, ..., C]")
    if len(probs) < 2:
        raise UserError(f"probs must hold at least 2 references, [K, ..., C]; got shape {probs.shape}")
    return deviation(jnp.var(probs, axis=0, ddof=1))


def deviation(variance: jax.Array) -> jax.Array:
    """Standard deviation of a variance, `[...]` each; its gradient is 0, not NaN, where nothing deviates."""
    is_none = variance == 0
    return jnp.where(is_none, 0.0, jnp.sqrt(jnp.where(is_none, 1.0, variance)))


def energy(logits: jax.Array) -> jax.Array:
    """Free energy of logits, `[..., C]` -> `[...]`, `-log Σ exp`; higher is stranger (Liu et al. 2020, 2010.03759).

    Raises:
      UserTypeError: `logits` are not floating.
      UserError: they are empty.
    """
    checks.array("logits", logits, "floating", "[..., C]")
    return -jax.nn.logsumexp(logits, axis=-1)


def _check(name, probs, shape):
    checks.array(name, probs, "floating", shape)
    if isinstance(probs, np.ndarray):
        checks.within(name, probs, 0, 1)
