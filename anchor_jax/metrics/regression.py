"""Metrics of regression: error, likelihood, and the coverage of predicted intervals.

Errors are subtracted in float64 where targets or means have it, since these may lie far from zero; where they are
traced, JAX has float64 only with `jax_enable_x64`.
Intervals are those of a normal distribution. Letters: B examples, L levels. All outputs of an example, `[B, ...]`, have
the same weight.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.stats import norm
from jaxtyping import Array, ArrayLike, Float, Float32, Shaped

from anchor_jax.core import checks, explicit, modes
from anchor_jax.metrics import validation


@explicit.automatic()
@modes.any_promotion
def rmse(
    means: Float[ArrayLike, "examples *targets"], targets: Shaped[ArrayLike, "examples *targets"]
) -> Float32[Array, ""]:
    """Return the root mean squared error.

    Args:
      means: predictions, floating `[B, ...]`.
      targets: real, same shape as `means`.

    Returns:
      float32 `[]`, at least 0, in the unit of the targets; higher is worse.

    Raises:
      UserTypeError: `means` are not floating, or `targets` are not real.
      UserError: the shapes differ, an array is empty, or a value is NaN.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> metrics.rmse(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])).item()
      2.0
    """
    errors = validation.check_regression(means, targets)
    # float32 overflows for the squares of large errors; within these bounds it holds the reciprocal of the unit, too
    unit = jnp.clip(lax.stop_gradient(jnp.max(jnp.abs(errors))), 2.0**-126, 2.0**126)
    return unit * jnp.sqrt(jnp.mean((errors / unit) ** 2))


@explicit.automatic()
@modes.any_promotion
def gaussian_nll(
    means: Float[ArrayLike, "examples *targets"],
    stds: Float[ArrayLike, "examples *targets"],
    targets: Shaped[ArrayLike, "examples *targets"],
) -> Float32[Array, ""]:
    """Return the mean negative log likelihood of the targets under predicted normal distributions.

    Args:
      means: predicted means, floating `[B, ...]`.
      stds: predicted standard deviations, floating, same shape as `means`, above 0.
      targets: real, same shape as `means`.

    Returns:
      float32 `[]` in nats; higher is worse.

    Raises:
      UserTypeError: `means` or `stds` are not floating, or `targets` are not real.
      UserError: the shapes differ, an array is empty, a value is NaN, or a standard deviation is not above 0.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> print(f"{metrics.gaussian_nll(jnp.zeros(1), jnp.ones(1), jnp.zeros(1)):.3f}")  # ln(2π) / 2
      0.919
    """
    errors, stds = validation.check_gaussian_regression(means, stds, targets)
    return jnp.mean(jnp.log(stds) - norm.logpdf(errors / stds))  # squares of stds may not be in the range of float32


@explicit.automatic()
@modes.any_promotion
def interval_coverage(
    means: Float[ArrayLike, "examples *targets"],
    stds: Float[ArrayLike, "examples *targets"],
    targets: Shaped[ArrayLike, "examples *targets"],
    levels: Float[ArrayLike, "levels"],
) -> Float32[Array, "levels"]:
    """Return the fraction of targets inside the central interval of each level.

    Args:
      means: predicted means, floating `[B, ...]`.
      stds: predicted standard deviations, floating, same shape as `means`, above 0.
      targets: real, same shape as `means`.
      levels: floating `[L]`, in [0, 1], nominal coverage of the intervals, such as 0.9.

    Returns:
      float32 `[L]` in [0, 1]; equal to `levels` for calibrated predictions.

    Raises:
      UserTypeError: `means`, `stds` or `levels` are not floating, or `targets` are not real.
      UserError: the shapes differ, an array is empty, a value is NaN, a standard deviation is not above 0, or a level
        is outside [0, 1].

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> targets = jnp.array([-3.0, -1.0, 0.0, 1.0])
      >>> metrics.interval_coverage(jnp.zeros(4), jnp.ones(4), targets, jnp.array([0.5, 0.9])).tolist()
      [0.25, 0.75]
    """
    levels = validation.check_levels(levels)
    errors, stds = validation.check_gaussian_regression(means, stds, targets)
    required = 2 * norm.cdf(jnp.abs(errors) / stds) - 1  # lowest level whose interval contains the target
    return jnp.mean(required.reshape(-1, 1) <= levels[None], axis=0, dtype=jnp.float32)


@explicit.automatic()
@modes.any_promotion
def coverage_error(
    means: Float[ArrayLike, "examples *targets"],
    stds: Float[ArrayLike, "examples *targets"],
    targets: Shaped[ArrayLike, "examples *targets"],
    num_levels: int = 19,
) -> Float32[Array, ""]:
    """Return the mean absolute difference between `interval_coverage` and its level, over evenly spaced levels.

    Args:
      means: predicted means, floating `[B, ...]`.
      stds: predicted standard deviations, floating, same shape as `means`, above 0.
      targets: real, same shape as `means`.
      num_levels: L, at least 1; the levels are 1/(L+1) to L/(L+1); static under `jit`.

    Returns:
      float32 `[]` in [0, 1); higher is worse.

    Raises:
      UserTypeError: `means` or `stds` are not floating, `targets` are not real, or `num_levels` is not an integer.
      UserError: the shapes differ, an array is empty, a value is NaN, a standard deviation is not above 0, or
        `num_levels` is below 1.

    Source: Kuleshov et al. 2018, *Accurate uncertainties for deep learning using calibrated regression*
    (arXiv 1807.00263), with absolute instead of squared differences.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> targets = jnp.array([-3.0, -1.0, 0.0, 1.0])
      >>> metrics.coverage_error(jnp.zeros(4), jnp.ones(4), targets, num_levels=1).item()  # |0.25 - 0.5|
      0.25
    """
    num_levels = checks.count("num_levels", num_levels)
    levels = np.arange(1, num_levels + 1, dtype=np.float32) / np.float32(num_levels + 1)
    return jnp.mean(jnp.abs(interval_coverage(means, stds, targets, levels) - levels))
