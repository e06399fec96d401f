"""Predictions of regression networks, and their combination."""

from typing import Any

import numpy as np

from anchor_jax.contrib import float64
from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.core.uncertainty import deviation


class Regression(float64.Float64Fields):
    """Predictions in the unit of the targets, as returned by `predict`; `[B, D]` if the targets are `[N, D]`.

    Each part is float64 of NumPy, so that targets far from zero keep their digits, or float32 of JAX inside `jit` and
    `vmap`, which return the same float64: as a pytree, each part is three float32 arrays whose sum it is.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> aj.regression.Regression(jnp.zeros(1), epistemic=jnp.array([3.0]), noise=jnp.array([4.0])).std.tolist()
      [5.0]
    """

    fields = ("mean", "epistemic", "noise")

    def __new__(cls, mean: Any, epistemic: Any = None, noise: Any = None) -> "Regression":
        """Return predictions of these arrays, all of one shape."""
        return cls.of_parts(*(None if part is None else float64.split(part) for part in (mean, epistemic, noise)))

    @property
    def mean(self) -> Any:
        """Predicted mean, `[B]`."""
        return self._field("mean")

    @property
    def epistemic(self) -> Any:
        """Unbiased spread of the mean, `[B]`, at least 0; None for a single evaluation."""
        return self._field("epistemic")

    @property
    def noise(self) -> Any:
        """Predicted standard deviation of a target, `[B]`; None if it is not predicted."""
        return self._field("noise")

    @property
    def std(self) -> Any:
        """Total standard deviation of a target, `[B]`; 0 if neither part is available."""
        parts = [part**2 for part in (self.epistemic, self.noise) if part is not None]
        return _root(sum(parts, 0 * self.mean))


def combine_members(members: Regression) -> Regression:
    """Combine the predictions of an ensemble into one: the moments of the mixture of its members.

    Args:
      members: predictions with a leading axis of M members, at least 2, as returned by `jax.vmap(predict, ...)`.

    Returns:
      `mean`, the mean of the means; `epistemic`, from the unbiased variance of the means over members plus the mean of
      the members' own; `noise`, from the mean of the variances.

    Raises:
      UserTypeError: `members` are not a `Regression`.
      UserError: there are fewer than 2 members.

    Source: Lakshminarayanan et al. 2017, *Simple and scalable predictive uncertainty estimation using deep ensembles*
    (arXiv 1612.01474).

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> members = aj.regression.Regression(jnp.array([[1.0], [2.0], [3.0]]), None, jnp.full((3, 1), 2.0))
      >>> combined = aj.regression.combine_members(members)
      >>> combined.mean.tolist(), combined.epistemic.tolist(), combined.noise.tolist()
      ([2.0], [1.0], [2.0])
    """
    checks.instance("members", members, Regression, "anchor_jax.regression.predict")
    parts = members.parts_of("mean")
    checks.array("members.mean", parts[0], "floating", "[M, B, ...]")
    if len(parts[0]) < 2:
        raise UserError(f"members must be at least 2, [M, B, ...]; got shape {parts[0].shape}")
    first: Any = tuple(part[0] for part in parts)  # from which the others differ little
    shifted = float64.subtract(parts, first)
    mean = float64.add(first, shifted.mean(axis=0))
    between = shifted.var(axis=0, ddof=1)
    within = 0.0 if members.epistemic is None else (members.epistemic**2).mean(axis=0)
    noise = None if members.noise is None else float64.split(_root((members.noise**2).mean(axis=0)))
    return Regression.of_parts(mean, float64.split(_root(between + within)), noise)


def _root(variance: Any) -> Any:
    """Return the square root of a variance: on the host, or in JAX with a gradient of 0 at 0."""
    return np.sqrt(variance) if isinstance(variance, np.ndarray | np.generic) else deviation(variance)
