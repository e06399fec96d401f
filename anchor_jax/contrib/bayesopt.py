"""Acquisition functions for Bayesian optimization."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jax.typing import ArrayLike

from anchor_jax.core import checks, precision
from anchor_jax.core.errors import UserError


def expected_improvement(mean: jax.Array, std: jax.Array, best: ArrayLike) -> jax.Array:
    """Return the expected improvement over the best value so far, for maximization.

    It is the mean of `max(y - b, 0)` for a normal `y` of mean `m` and standard deviation `s`:
    `(m - b) Φ(z) + s φ(z)` with `z = (m - b) / s`, and `max(m - b, 0)` where `s` is 0.

    Args:
      mean: predicted means, floating `[...]`.
      std: their standard deviations, floating, same shape as `mean`, at least 0; for example the spread over
        references returned by `predict`.
      best: the largest value observed so far.

    Returns:
      Expected improvement, at least 0, in the unit of `mean`: float32 or float64, same shape as `mean`. The input with
      the largest value is the one to evaluate next.

    Raises:
      UserTypeError: `mean` or `std` is not floating, or `best` is not a number.
      UserError: the shapes differ, or are empty; NumPy arrays contain NaN, or `std` values below 0.

    Source: Jones, Schonlau & Welch 1998, *Efficient global optimization of expensive black-box functions*.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> mean, std = jnp.array([1.0, 1.5]), jnp.array([0.0, 0.0])  # without uncertainty: max(mean - best, 0)
      >>> aj.expected_improvement(mean, std, best=1.25).tolist()
      [0.0, 0.25]
    """
    checks.array("mean", mean, "floating", "[...]")
    checks.array("std", std, "floating", "[...]")
    if jnp.shape(mean) != jnp.shape(std):
        raise UserError(f"mean and std must have the same shape; got {jnp.shape(mean)} and {jnp.shape(std)}")
    for name, values, least in (("mean", mean, -float("inf")), ("std", std, 0)):
        if isinstance(values, np.ndarray):
            checks.within(name, values, least, float("inf"))
    checks.number("best", best, -float("inf"), float("inf"))
    dtype = jnp.promote_types(jnp.result_type(mean), jnp.float32)
    if precision.is_concrete(mean, best):  # far from zero, the two may be equal in float32
        gain = jnp.asarray(precision.on_host(mean) - precision.on_host(best), dtype)
    else:
        gain = jnp.asarray(mean, dtype) - jnp.asarray(best, dtype)
    return jnp.maximum(_improvement(gain, jnp.asarray(std, dtype)), 0.0)


@jax.custom_jvp
def _improvement(gain: jax.Array, std: jax.Array) -> jax.Array:
    """Return `g Φ(z) + s φ(z)` with `z = g / s`, and `max(g, 0)` where `s` is 0."""
    is_certain, z = _normalized(gain, std)
    return jnp.where(is_certain, jnp.maximum(gain, 0.0), gain * norm.cdf(z) + std * norm.pdf(z))


@_improvement.defjvp
def _improvement_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (gain, std), (gain_dot, std_dot) = primals, tangents
    is_certain, z = _normalized(gain, std)
    by_gain = jnp.where(is_certain, jnp.heaviside(gain, 0.5), norm.cdf(z))
    by_std = jnp.where(is_certain, 0.0, norm.pdf(z))
    # all other terms cancel; the quotients by s² among them would be NaN for a small s
    return _improvement(gain, std), by_gain * gain_dot + by_std * std_dot


def _normalized(gain: jax.Array, std: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return where the standard deviation is 0, and the gain in units of it elsewhere."""
    is_certain = std == 0
    return is_certain, gain / jnp.where(is_certain, 1.0, std)
