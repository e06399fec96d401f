"""Numbers from predicted means and spreads of numbers: error, likelihood, and how far intervals keep their promise.

Intervals are those of a normal distribution. Letters: B examples, L levels. Where an example has several outputs,
`[B, ...]`, all of them count alike.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jax.typing import ArrayLike

from anchor_jax.core import checks
from anchor_jax.metrics import validation


def rmse(means: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Root of the mean squared error.

    Args:
      means: floating `[B, ...]`, predictions.
      targets: real, the shape of `means`.

    Returns:
      float32 `[]`, at least 0, in the unit of the targets; higher is worse.
    """
    means, targets = validation.regressions(means, targets)
    return jnp.sqrt(jnp.mean((means - targets) ** 2))


def gaussian_nll(means: ArrayLike, stds: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Mean negative log likelihood of the targets under normal distributions.

    Args:
      means: floating `[B, ...]`.
      stds: floating, the shape of `means`, above 0, standard deviations.
      targets: real, the shape of `means`.

    Returns:
      float32 `[]` in nats; higher is worse.
    """
    means, stds, targets = validation.spread_regressions(means, stds, targets)
    return -jnp.mean(norm.logpdf(targets, means, stds))


def interval_coverage(means: ArrayLike, stds: ArrayLike, targets: ArrayLike, levels: ArrayLike) -> jax.Array:
    """Share of the targets inside the central interval of each level.

    Args:
      means: floating `[B, ...]`.
      stds: floating, the shape of `means`, above 0, standard deviations.
      targets: real, the shape of `means`.
      levels: floating `[L]`, in [0, 1], such as 0.9: the share that the interval promises.

    Returns:
      float32 `[L]` in [0, 1]; the nearer to `levels` the better.
    """
    means, stds, targets = validation.spread_regressions(means, stds, targets)
    levels = validation.levels(levels)
    needed = 2 * norm.cdf(jnp.abs(targets - means) / stds) - 1  # the least level whose interval holds the target
    return jnp.mean(needed.reshape(-1, 1) <= levels[None], axis=0, dtype=jnp.float32)


def coverage_error(means: ArrayLike, stds: ArrayLike, targets: ArrayLike, num_levels: int = 19) -> jax.Array:
    """Mean distance of `interval_coverage` from what is promised, over evenly spaced levels between 0 and 1.

    Args:
      means: floating `[B, ...]`.
      stds: floating, the shape of `means`, above 0, standard deviations.
      targets: real, the shape of `means`.
      num_levels: L, at least 1: 1/(L+1) to L/(L+1); static under `jit`.

    Returns:
      float32 `[]` in [0, 1); higher is worse.

    Source: Kuleshov et al. 2018, *Accurate uncertainties for deep learning using calibrated regression*
    (arXiv 1807.00263), with the absolute in place of the squared distance.
    """
    num_levels = checks.count("num_levels", num_levels)
    levels = np.arange(1, num_levels + 1, dtype=np.float32) / np.float32(num_levels + 1)
    return jnp.mean(jnp.abs(interval_coverage(means, stds, targets, levels) - levels))
