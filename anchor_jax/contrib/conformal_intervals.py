"""Conformal intervals of regression."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from anchor_jax.contrib.conformal_threshold import check_given, quantile, scale_of
from anchor_jax.core import checks, modes, precision
from anchor_jax.metrics import validation


class Interval(NamedTuple):
    """Ends of intervals, as returned by `ConformalIntervals`.

    Example:
      >>> import anchor_jax as aj
      >>> interval = aj.conformal.Interval(low=1.0, high=3.0)
      >>> interval.high - interval.low
      2.0
    """

    low: Any  # floating `[B, ...]`, of the dtype of the means
    high: Any  # same


@partial(jax.tree_util.register_dataclass, data_fields=("threshold",), meta_fields=("offset", "normalized"))
@dataclasses.dataclass(frozen=True, eq=False)  # hashable, for jit
class ConformalIntervals:
    """Calibrated intervals, as returned by `fit_intervals`; a pytree.

    Attributes:
      threshold: float32 `[...]`, of each output; half the width of an interval, in units of the difficulty if there is
        one.
      offset: see `fit_intervals`.
      normalized: whether widths are in units of a difficulty.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> low, high = aj.conformal.ConformalIntervals(jnp.float32(0.5))(jnp.array([1.0, 2.0]))
      >>> low.tolist(), high.tolist()
      ([0.5, 1.5], [1.5, 2.5])
    """

    threshold: jax.Array
    offset: float = 0.0
    normalized: bool = False

    def __call__(self, means: ArrayLike, difficulty: ArrayLike | None = None) -> Interval:
        """Return the intervals of new examples.

        Args:
          means: floating `[B, ...]`; NumPy's float64 stays float64.
          difficulty: given as in `fit_intervals`: in both or in neither.

        Returns:
          `Interval`.

        Raises:
          UserTypeError: see `fit_intervals`.
          UserError: see `fit_intervals`; also if `difficulty` is not given as in `fit_intervals`.
        """
        check_given("difficulty", difficulty, self.normalized, "fit_intervals")
        return _interval(self.threshold, means, difficulty, self.offset)


@modes.any_promotion
def fit_intervals(
    means: ArrayLike,
    targets: ArrayLike,
    difficulty: ArrayLike | None = None,
    *,
    coverage: float = 0.9,
    offset: float = 0.0,
) -> ConformalIntervals:
    """Calibrate intervals that contain the target with a probability of at least `coverage`.

    The score is `|target - mean| / (difficulty + offset)`. Without a difficulty, all intervals have the same width.

    Args:
      means: predictions for calibration examples, floating `[B, ...]`.
      targets: real, same shape as `means`.
      difficulty: how uncertain each mean is, at least 0, same shape as `means`; its unit does not matter. For an
        anchored network, pass the standard deviation over references: `answer.epistemic` or `answer.std` of
        `aj.regression.predict`.
      coverage: target of each output, in (0, 1); static under `jit`.
      offset: added to the difficulty, at least 0, in its unit; keeps intervals from vanishing where the difficulty is
        near 0. Choose it without looking at the calibration examples; static under `jit`.

    Returns:
      `ConformalIntervals`, a function of means and difficulty.

    Raises:
      UserTypeError: `means` or `difficulty` are not floating, or an argument is no number.
      UserError: the shapes differ, a value is NaN or negative, `difficulty + offset` is 0, or there are fewer than
        `coverage / (1 - coverage)` examples.

    Source: Papadopoulos et al. 2002, *Inductive confidence machines for regression*; Lei et al. 2018,
    *Distribution-free predictive inference for regression*, sec. 5.2 (arXiv 1604.04173).

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> means, targets, std = jnp.zeros(3), jnp.array([1.0, -4.0, 3.0]), jnp.array([1.0, 2.0, 1.0])
      >>> fitted = aj.conformal.fit_intervals(means, targets, std, coverage=0.75)
      >>> low, high = fitted(jnp.array([5.0]), jnp.array([2.0]))
      >>> low.tolist(), high.tolist()
      ([-1.0], [11.0])
    """
    errors = jnp.abs(validation.check_regression(means, targets))
    if difficulty is not None:
        errors = errors / scale_of(difficulty, offset, errors.shape)
    return ConformalIntervals(quantile(errors, coverage), offset, normalized=difficulty is not None)


@modes.any_promotion
def _interval(threshold: jax.Array, means: ArrayLike, difficulty: ArrayLike | None, offset: float) -> Interval:
    checks.array("means", means, "floating", "[B, ...]")
    half: Any = threshold
    if difficulty is not None:
        half = half * scale_of(difficulty, offset, jnp.shape(means))
    if isinstance(means, np.ndarray) and precision.is_concrete(half):  # far from zero, float32 would lose digits
        half = np.asarray(half, means.dtype)
    return Interval(means - half, means + half)
