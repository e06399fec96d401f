"""Sets of classes, such as those of conformal prediction: how often they contain the label, and how large they are."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float32, Integer, Shaped

from anchor_jax.core import explicit, modes
from anchor_jax.metrics import validation


@explicit.automatic()
@modes.in_32_bits
def set_coverage(
    sets: Shaped[ArrayLike, "examples classes"], labels: Integer[ArrayLike, "examples"]
) -> Float32[Array, ""]:
    """Return the fraction of examples whose set contains their label.

    Args:
      sets: bool `[B, C]`, or 0 and 1: whether the class is in the set of the example.
      labels: integer `[B]`, in [0, C).

    Returns:
      float32 `[]` in [0, 1]; the target coverage for sets that are valid.

    Raises:
      UserTypeError: `sets` are not real, or `labels` are not integers.
      UserError: a shape does not match, `sets` contain values other than 0 and 1, or a label is outside [0, C).

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> metrics.set_coverage(jnp.array([[True, True, False], [False, False, False]]), jnp.array([1, 2])).item()
      0.5
    """
    sets, labels = validation.check_sets(sets, labels)
    return jnp.mean(jnp.take_along_axis(sets, labels[:, None], axis=1), dtype=jnp.float32)


@explicit.automatic()
@modes.in_32_bits
def set_size(sets: Shaped[ArrayLike, "examples classes"]) -> Float32[Array, ""]:
    """Return the mean number of classes in the sets.

    Args:
      sets: see `set_coverage`.

    Returns:
      float32 `[]` in [0, C]; lower is better at the same coverage.

    Raises:
      UserTypeError: `sets` are not real.
      UserError: `sets` are not `[B, C]`, or contain values other than 0 and 1.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> metrics.set_size(jnp.array([[True, True, False], [False, False, False]])).item()
      1.0
    """
    return jnp.mean(jnp.sum(validation.check_sets(sets)[0], axis=1, dtype=jnp.int32), dtype=jnp.float32)
