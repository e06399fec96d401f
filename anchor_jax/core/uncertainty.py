"""Uncertainty of predictions: entropies, mutual information, the spread over references, and the energy of logits.

Pure functions of arrays. Letters: K references, B examples, C classes. Entropies are in nats and decomposed as in
Depeweg et al. 2018 (arXiv 1710.07283): predictive entropy = expected entropy (of the data) + mutual information
(between prediction and reference). Inputs in half precision are computed in float32: the mutual information is a small
difference of entropies.
"""

# JAX leaves some parameters unannotated, such as the function of `jax.jit`.
# pyright: reportUnknownMemberType=false
from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr
from jaxtyping import Array, Float

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.core.types import AnyArray


def predictive_entropy(probs: Float[AnyArray, "*batch classes"]) -> Float[Array, "*batch"]:
    """Return the entropy of predicted distributions.

    Args:
      probs: floating `[..., C]`, probabilities.

    Returns:
      `[...]`, in [0, ln C] nats; higher is less certain.

    Raises:
      UserTypeError: `probs` are not floating.
      UserError: `probs` are empty, or a NumPy array with NaN or values outside [0, 1].

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp, numpy as np
      >>> entropy = aj.uncertainty.predictive_entropy(jnp.array([[0.5, 0.5], [1.0, 0.0]]))
      >>> print(np.asarray(entropy).round(3))  # ln 2 and 0
      [0.693 0.   ]
    """
    return jnp.asarray(_entropies(_checked("probs", probs, "[..., C]")))


@jax.jit  # `entr` holds an infinite constant, which `jax_debug_infs` would reject outside of a compiled function
def _entropies(probs: Float[AnyArray, "*batch classes"]) -> Float[Array, "*batch"]:
    # the gradient at 0 is infinite, and NaN after a softmax whose own is 0; rounded probabilities may be below 0
    is_zero = (probs <= 0) & (probs >= -checks.TOLERANCE)
    return jnp.sum(jnp.where(is_zero, 0.0, entr(jnp.where(is_zero, 1.0, probs))), axis=-1)


def expected_entropy(probs: Float[AnyArray, "references *batch classes"]) -> Float[Array, "*batch"]:
    """Return the mean over references of the entropy: the uncertainty of the data.

    Args:
      probs: floating `[K, ..., C]`, probabilities per reference.

    Returns:
      `[...]`, in [0, ln C] nats; higher is less certain.

    Raises:
      UserTypeError: `probs` are not floating.
      UserError: `probs` are empty, have no axis of references, or are a NumPy array with NaN or values outside [0, 1].

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> probs = jnp.array([[0.5, 0.5], [1.0, 0.0]])  # of one input, by two references
      >>> print(f"{aj.uncertainty.expected_entropy(probs):.3f}")  # (ln 2 + 0) / 2
      0.347
    """
    return jnp.mean(predictive_entropy(_checked("probs", probs, "[K, ..., C]")), axis=0)


def mutual_information(probs: Float[AnyArray, "references *batch classes"]) -> Float[Array, "*batch"]:
    """Return the mutual information between prediction and reference: the disagreement of the references.

    It is the entropy of the mean distribution minus the mean entropy, clipped at 0 against rounding.

    Args:
      probs: floating `[K, ..., C]`, probabilities per reference.

    Returns:
      `[...]`, in [0, ln C] nats; higher is less certain.

    Raises:
      UserTypeError: `probs` are not floating.
      UserError: `probs` are empty, have no axis of references, or are a NumPy array with NaN or values outside [0, 1].

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> probs = jnp.array([[0.0, 1.0], [1.0, 0.0]])  # two references disagree completely
      >>> print(f"{aj.uncertainty.mutual_information(probs):.3f}")  # ln 2
      0.693
    """
    probs = _checked("probs", probs, "[K, ..., C]")
    return information_gain(predictive_entropy(jnp.mean(probs, axis=0)), expected_entropy(probs))


def information_gain(
    predictive: Float[AnyArray, "*batch"], expected: Float[AnyArray, "*batch"]
) -> Float[Array, "*batch"]:
    """Return the mutual information from a predictive and an expected entropy.

    Args:
      predictive: floating `[...]`, in nats.
      expected: floating, same shape as `predictive`, in nats.

    Returns:
      `predictive - expected`, clipped at 0 against rounding, in nats.

    Raises:
      UserTypeError: an argument is not floating.
      UserError: the shapes differ, or are empty.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> aj.uncertainty.information_gain(jnp.array([0.5, 0.25]), jnp.array([0.125, 0.5])).tolist()
      [0.375, 0.0]
    """
    checks.array("predictive", predictive, "floating", "[...]")
    checks.array("expected", expected, "floating", "[...]")
    if jnp.shape(predictive) != jnp.shape(expected):
        raise UserError(
            f"predictive and expected must have the same shape; got {jnp.shape(predictive)} and {jnp.shape(expected)}"
        )
    return jnp.maximum(predictive - expected, 0.0)


def probability_spread(probs: Float[AnyArray, "references *batch classes"]) -> Float[Array, "*batch classes"]:
    """Return the unbiased standard deviation of the probabilities over references.

    Args:
      probs: floating `[K, ..., C]`, probabilities per reference, K at least 2.

    Returns:
      `[..., C]`, in [0, 0.71]; higher is less certain.

    Raises:
      UserTypeError: `probs` are not floating.
      UserError: `probs` are empty, K is below 2, or they are a NumPy array with NaN or values outside [0, 1].

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> probs = jnp.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])  # of one input, by three references
      >>> aj.uncertainty.probability_spread(probs).tolist()
      [0.5, 0.5]
    """
    probs = _checked("probs", probs, "[K, ..., C]")
    if len(probs) < 2:
        raise UserError(f"probs must have at least 2 references, [K, ..., C]; got shape {probs.shape}")
    return deviation(jnp.var(probs, axis=0, ddof=1))


def deviation(variance: Float[AnyArray, "..."]) -> Float[Array, "..."]:
    """Return the square root of a variance; its gradient at 0 is 0 instead of NaN.

    Args:
      variance: floating `[...]`, at least 0.

    Returns:
      The standard deviation, same shape as `variance`.

    Example:
      >>> import anchor_jax as aj
      >>> import jax
      >>> jax.grad(aj.uncertainty.deviation)(0.0).item()
      0.0
    """
    is_zero = variance == 0
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, variance)))


def energy(logits: Float[AnyArray, "*batch classes"]) -> Float[Array, "*batch"]:
    """Return the free energy of logits, `-log Σ exp(logits)`, a score for anomaly detection.

    Args:
      logits: floating `[..., C]`.

    Returns:
      `[...]`; higher is more anomalous.

    Raises:
      UserTypeError: `logits` are not floating.
      UserError: `logits` are empty.

    Source: Liu et al. 2020, *Energy-based out-of-distribution detection* (arXiv 2010.03759).

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp, numpy as np
      >>> energy = aj.uncertainty.energy(jnp.array([[0.0, 0.0], [9.0, 0.0]]))
      >>> print(np.asarray(energy).round(3))
      [-0.693 -9.   ]
    """
    checks.array("logits", logits, "floating", "[..., C]")
    return -jax.nn.logsumexp(_widened(logits), axis=-1)


def _checked(name: str, probs: AnyArray, shape: str) -> AnyArray:
    checks.array(name, probs, "floating", shape)
    if isinstance(probs, np.ndarray):
        checks.within(name, probs, 0, 1)
    return _widened(probs)


def _widened(values: AnyArray) -> AnyArray:
    """Return an array in float32 if its dtype is narrower, and as it is otherwise."""
    return values.astype(jnp.float32) if values.dtype.itemsize < 4 else values
