"""Thresholds of conformal prediction: quantiles for finite samples, and the difficulty that scores are divided by."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from anchor_jax.core import checks, explicit, modes
from anchor_jax.core.errors import UserError
from anchor_jax.metrics import validation

_NARROW = (jnp.float32, jnp.float16, jnp.bfloat16)
_ROUNDING = 1e-9  # by which (n + 1)·coverage, such as 10·0.7, may exceed an integer


@explicit.automatic()
@modes.in_32_bits
def quantile(scores: ArrayLike, coverage: float | Sequence[float]) -> jax.Array:
    """Return the threshold that a score of a new example does not exceed with a probability of at least `coverage`.

    It is the `ceil((n + 1)·coverage)`-th smallest of n scores: a little above the quantile, for a finite sample.

    Args:
      scores: floating `[n, ...]`, scores of the labels of calibration examples; those of further axes have thresholds
        of their own.
      coverage: target, in (0, 1), or several; static under `jit`.

    Returns:
      float32 `[...]`; of several targets `[L, ...]`.

    Raises:
      UserTypeError: `scores` are not floating, or `coverage` is not a number.
      UserError: `coverage` is outside (0, 1) or needs more scores, or the scores contain NaN.

    Source: Vovk et al. 2005; Angelopoulos & Bates 2023, *Conformal prediction: A gentle introduction*, sec. 1
    (arXiv 2107.07511).

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> scores = jnp.arange(9.0)
      >>> aj.conformal.quantile(scores, 0.5).item(), aj.conformal.quantile(scores, [0.8, 0.9]).tolist()
      (4.0, [7.0, 8.0])
    """
    checks.array("scores", scores, "floating", "[n, ...]")
    scores = jnp.asarray(scores, jnp.float32)
    validation.check_values("scores", scores, -math.inf, math.inf)
    targets: Any = _each(coverage) if checks.is_several(coverage) else (coverage,)
    ranks = np.array([rank(len(scores), each) for each in targets])
    found = jnp.sort(scores, axis=0)[ranks - 1]
    return found if checks.is_several(coverage) else found[0]


def rank(num_scores: int, coverage: float) -> int:
    """Return which of the sorted calibration scores, from 1, is the threshold: `ceil((n + 1)·coverage)`.

    Args:
      num_scores: n, number of calibration examples.
      coverage: target, in (0, 1).

    Raises:
      UserTypeError: `coverage` is not a number, or `num_scores` is not an integer.
      UserError: `coverage` is outside (0, 1), or needs more examples.

    Example:
      >>> import anchor_jax as aj
      >>> aj.conformal.rank(9, 0.9), aj.conformal.rank(1000, 0.9)
      (9, 901)
    """
    num_scores = checks.count("num_scores", num_scores)
    coverage = checks.static_number("coverage", _shortest(coverage))
    if not 0 < coverage < 1:
        raise UserError(f"coverage must be above 0 and below 1; got {coverage:g}")
    found = max(math.ceil((num_scores + 1) * coverage - _ROUNDING), 1)
    if found > num_scores:
        least = math.ceil(coverage / (1 - coverage) - _ROUNDING)
        raise UserError(
            f"a coverage of {coverage:g} needs at least {least:,} calibration examples; got {num_scores:,}; give more, "
            "or a lower coverage"
        )
    return found


def _each(coverages: Any) -> tuple[Any, ...]:
    """Return several coverages one by one; those of an array keep its dtype."""
    is_array = checks.is_array_of_numbers(coverages)
    return tuple(np.asarray(coverages)) if is_array else checks.several("coverage", coverages)


def _shortest(number: Any) -> Any:
    """Return a number of float32, such as 0.8, as the float of the fewest digits: exactly it is above 0.8."""
    dtype: Any = getattr(number, "dtype", None)
    if isinstance(number, Tracer) or np.shape(number) or dtype not in _NARROW:
        return number
    rounded = (float(f"{float(number):.{digits}g}") for digits in range(1, 10))
    return next((value for value in rounded if np.asarray(value, dtype) == number), number)


def scale_of(difficulty: ArrayLike, offset: float, *shapes: tuple[int, ...]) -> jax.Array:
    """Return `difficulty + offset` as float32.

    Args:
      difficulty: floating, at least 0.
      offset: at least 0; static under `jit`.
      *shapes: that the difficulty may have.

    Raises:
      UserTypeError: `difficulty` is not floating, or `offset` is not a number.
      UserError: the shape is none of these, a value is NaN or negative, or the sum is 0 somewhere.
    """
    offset = checks.static_number("offset", offset, 0, math.inf)
    checks.array("difficulty", difficulty, "floating", "[...]")
    if (shape := jnp.shape(difficulty)) not in shapes:
        allowed = " or ".join(map(str, dict.fromkeys(shapes)))
        raise UserError(f"difficulty must have shape {allowed}, as the predictions have; got {shape}")
    scale = jnp.asarray(difficulty, jnp.float32)
    validation.check_values("difficulty", scale, 0, math.inf)
    scale = scale + offset
    if not isinstance(scale, Tracer):
        with jax.ensure_compile_time_eval():
            least = float(scale.min())
        if least <= 0:
            raise UserError(f"difficulty + offset must be above 0; got {least:g}; give an offset, such as offset=0.01")
    return scale


def check_given(name: str, value: Any, was_given: bool, function: str) -> None:
    """Raise if an argument is missing that was given to the function that fitted the threshold, or the reverse."""
    if was_given and value is None:
        raise UserError(f"{name} must be given, as it was to {function}; got None")
    if not was_given and value is not None:
        raise UserError(f"{name} must be None, as {function} got none; got {checks.described(value)}")
