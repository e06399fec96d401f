"""Risk regimes of PAGER: predictions grouped by their uncertainty and the nonconformity of their inputs.

Both scores are low, moderate or high, split at their 25th and 75th percentiles; a grid of 3 × 3 cells assigns a regime
to each pair. See `anchor_jax.pager` for the scores and the source.
"""

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.core import checks, explicit, modes
from anchor_jax.core.errors import UserError, UserTypeError
from anchor_jax.core.short_reprs import short_repr


class Regime(enum.IntEnum):
    """Risk regime of a prediction, by increasing expected error; `risk_regimes` assigns it.

    Example:
      >>> import anchor_jax as aj
      >>> aj.pager.Regime(2).name
      'MODERATE'
    """

    ID = 0  # in distribution
    LOW = 1
    MODERATE = 2
    HIGH = 3


# row: uncertainty, column: nonconformity; each low, moderate, high
_GRID = np.array(
    [
        [Regime.ID, Regime.LOW, Regime.LOW],
        [Regime.LOW, Regime.LOW, Regime.MODERATE],
        [Regime.MODERATE, Regime.HIGH, Regime.HIGH],
    ],
    np.int32,
)


@short_repr
class RegimeErrors(NamedTuple):
    """How well risk regimes match the true errors, as returned by `regime_errors`; lower is better.

    A value is NaN if a regime it needs is empty; all are NaN if an error is.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> measured = aj.pager.regime_errors(jnp.array([0, 0, 3, 3]), jnp.array([0.1, 0.2, 0.8, 0.9]))
      >>> measured.false_negatives.item(), measured.false_positives.item()
      (0.0, 0.0)
    """

    false_negatives: jax.Array  # float32 [], in [0, 1], fraction of ID and LOW whose errors are large
    false_positives: jax.Array  # float32 [], in [0, 1], fraction of MODERATE and HIGH whose errors are small
    confusion_low: jax.Array  # float32 [], at least 0, C_low: large errors of ID over small errors of LOW
    confusion_high: jax.Array  # float32 [], at least 0, C_high: large errors of MODERATE over small errors of HIGH


@explicit.automatic()
@modes.in_32_bits
def score_limits(scores: jax.Array, quantiles: Any = (0.25, 0.75)) -> jax.Array:
    """Return the limits between low, moderate and high scores.

    Args:
      scores: floating `[B]`: uncertainties or nonconformities, such as those of a test set. NaN is ignored.
      quantiles: a pair of numbers in [0, 1], in increasing order; by default the quartiles of PAGER.

    Returns:
      float32 `[2]`: the lower quantile, rounded down to one of the scores, and the upper one, rounded up.

    Raises:
      UserTypeError: `scores` are not floating, or `quantiles` are not a pair of numbers.
      UserError: `scores` are empty, or `quantiles` are out of range or order.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> aj.pager.score_limits(jnp.array([5.0, 1.0, 2.0, 4.0, 3.0])).tolist()
      [2.0, 4.0]
    """
    checks.array("scores", scores, "floating", "[B]")
    return _score_limits(jnp.asarray(scores, jnp.float32), *_pair("quantiles", quantiles, 1))


@explicit.automatic("uncertainty", "nonconformity")
@modes.in_32_bits
def risk_regimes(
    uncertainty: jax.Array,
    nonconformity: jax.Array,
    uncertainty_limits: Any = None,
    nonconformity_limits: Any = None,
) -> jax.Array:
    """Return the risk regime of each input, from a grid of its two scores.

    | uncertainty | nonconformity low | moderate | high |
    | --- | --- | --- | --- |
    | low | `ID` | `LOW` | `LOW` |
    | moderate | `LOW` | `LOW` | `MODERATE` |
    | high | `MODERATE` | `HIGH` | `HIGH` |

    A score is low up to its lower limit, high from its upper limit on, and moderate between; NaN is high.

    The grid is that of PAGER's figure. Its description in words differs in one cell, high uncertainty with moderate
    nonconformity, which is moderate there. It is high here, as a missed failure costs more than a false alarm. Low
    uncertainty with moderate nonconformity is not assigned there: only two low scores are `ID`, so it is `LOW` here.

    Args:
      uncertainty: floating `[B]`, from forward anchoring, such as the spread over references.
      nonconformity: floating `[B]`, from reverse anchoring.
      uncertainty_limits: a pair of numbers, at least 0, in increasing order. By default the quartiles of
        `uncertainty`, as in PAGER: a regime then depends on all B inputs. For a regime that depends on its input
        alone, pass limits of known inputs, `score_limits(known)`.
      nonconformity_limits: the same for the nonconformity.

    Returns:
      int32 `[B]`, values of `Regime`.

    Raises:
      UserTypeError: the scores are not floating, or limits are not a pair of numbers.
      UserError: the shapes differ, are empty, or limits are below 0 or not in order.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> uncertainty, nonconformity = jnp.array([0.1, 0.9, 0.1, 0.9]), jnp.array([1.0, 1.0, 3.0, 3.0])
      >>> aj.pager.risk_regimes(uncertainty, nonconformity, (0.2, 0.8), (1.5, 2.5)).tolist()
      [0, 2, 1, 3]
    """
    checks.array("uncertainty", uncertainty, "floating", "[B]")
    checks.array("nonconformity", nonconformity, "floating", "[B]")
    if uncertainty.shape != nonconformity.shape:
        raise UserError(
            f"uncertainty and nonconformity must have the same shape; got {uncertainty.shape} and {nonconformity.shape}"
        )
    row_limits = _given_limits("uncertainty_limits", uncertainty_limits)
    column_limits = _given_limits("nonconformity_limits", nonconformity_limits)
    return jnp.asarray(_GRID)[_levels(uncertainty, row_limits), _levels(nonconformity, column_limits)]


@explicit.automatic()
@modes.in_32_bits
def regime_errors(
    regimes: jax.Array,
    errors: jax.Array,
    share: float = 0.2,
    *,
    upper_quantile: float = 0.9,
    lower_quantile: float = 0.1,
) -> RegimeErrors:
    """Measure how well the regimes of a test set match its true errors.

    For the false negatives and false positives, the largest and the smallest `share` of all errors count as large and
    small. The confusions are ratios of quantiles of the errors in two regimes, which should be in order:
    `C_low = Q_upper(ID) / Q_lower(LOW)` and `C_high = Q_upper(MODERATE) / Q_lower(HIGH)`.

    Args:
      regimes: integer `[B]`, as returned by `risk_regimes`.
      errors: floating `[B]`, true errors, at least 0.
      share: fraction of errors that counts as large, and as small; in [0, 0.5].
      upper_quantile: quantile of the errors of `ID` and `MODERATE`, in [0, 1].
      lower_quantile: quantile of the errors of `LOW` and `HIGH`, in [0, 1].

    Returns:
      `RegimeErrors`.

    Raises:
      UserTypeError: `regimes` or `errors` have another dtype, or a fraction is not a number.
      UserError: the shapes differ, are empty, a regime of a NumPy array is unknown, or a fraction is out of range.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> regimes, errors = jnp.array([0, 1, 2, 3]), jnp.array([1.0, 2.0, 4.0, 8.0])
      >>> measured = aj.pager.regime_errors(regimes, errors)
      >>> measured.confusion_low.item(), measured.confusion_high.item()
      (0.5, 0.5)
    """
    checks.array("regimes", regimes, "real", "[B]")
    if not jnp.issubdtype(regimes.dtype, jnp.integer):
        raise UserTypeError(f"regimes must be integers, values of Regime; got {regimes.dtype}")
    if isinstance(regimes, np.ndarray):
        checks.within("regimes", regimes, int(min(Regime)), int(max(Regime)))
    checks.array("errors", errors, "floating", "[B]")
    if regimes.shape != errors.shape:
        raise UserError(f"regimes and errors must have the same shape; got {regimes.shape} and {errors.shape}")
    checks.number("share", share, 0, 0.5)
    checks.number("upper_quantile", upper_quantile)
    checks.number("lower_quantile", lower_quantile)
    return _regime_errors(regimes, jnp.asarray(errors, jnp.float32), share, 1 - share, upper_quantile, lower_quantile)


@jax.jit  # the errors of other regimes are NaN, which `jax_debug_nans` would reject outside of a compiled function
def _regime_errors(
    regimes: jax.Array, errors: jax.Array, small: Any, large: Any, upper: Any, lower: Any
) -> RegimeErrors:
    is_trusted = regimes <= Regime.LOW
    is_known = ~jnp.any(jnp.isnan(errors))

    def ratio(better: Regime, worse: Regime) -> jax.Array:
        better_errors, worse_errors = (jnp.where(regimes == regime, errors, jnp.nan) for regime in (better, worse))
        return jnp.nanquantile(better_errors, upper) / jnp.nanquantile(worse_errors, lower)

    def fraction(group: jax.Array, selected: jax.Array) -> jax.Array:
        return jnp.sum(group & selected) / jnp.sum(group, dtype=jnp.float32)

    measured = RegimeErrors(
        fraction(is_trusted, errors > jnp.quantile(errors, large)),
        fraction(~is_trusted, errors < jnp.quantile(errors, small)),
        ratio(Regime.ID, Regime.LOW),
        ratio(Regime.MODERATE, Regime.HIGH),
    )
    return RegimeErrors(*(jnp.where(is_known, value, jnp.nan) for value in measured))


@jax.jit  # for `jax_debug_nans`, see `_regime_errors`
def _score_limits(scores: jax.Array, low: Any, high: Any) -> jax.Array:
    return jnp.stack([jnp.nanquantile(scores, low, method="lower"), jnp.nanquantile(scores, high, method="higher")])


def _given_limits(name: str, limits: Any) -> tuple[Any, Any] | None:
    return None if limits is None else _pair(name, limits, float("inf"))


def _levels(scores: jax.Array, limits: tuple[Any, Any] | None) -> jax.Array:
    """Return 0, 1 or 2 for low, moderate and high scores; by default the limits are the quartiles of the scores."""
    scores = jnp.asarray(scores, jnp.float32)
    low, high = score_limits(scores) if limits is None else limits
    return jnp.where(scores <= low, 0, jnp.where(scores < high, 1, 2))


def _pair(name: str, values: Any, most: float) -> tuple[Any, Any]:
    """Return a pair of numbers from 0 to `most`, in increasing order, also from an array `[2]`."""
    if isinstance(values, jax.Array):
        checks.array(name, values, "floating", "[...]")
        if values.shape != (2,):
            raise UserError(f"{name} must be two numbers, (low, high); got shape {values.shape}")
        return values[0], values[1]
    if not checks.is_several(values):
        raise UserTypeError(f"{name} must be two numbers, (low, high); got {checks.described(values)}")
    pair = checks.several(name, values)
    if len(pair) != 2:
        raise UserError(f"{name} must be two numbers, (low, high); got {len(pair)}")
    for value in pair:
        checks.number(name, value, 0, most)
    if not any(isinstance(value, jax.Array) for value in pair) and pair[0] > pair[1]:
        raise UserError(f"{name} must be in increasing order; got {pair}")
    return pair
