"""Calibration of confidences: reliability diagrams, and calibration errors with and without bins."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Float32, Int32, Integer, Shaped

from anchor_jax.core import checks, explicit, modes
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.metrics import validation
from anchor_jax.metrics.ranking import rank_by_confidence
from anchor_jax.metrics.scores import top_class

# smooth ECE: nodes of the grid on [0, 1], bisection steps for the bandwidth, and the smallest bandwidth that is
# resolved (the last two are those of the authors' code)
_GRID_NODES = 2**14
_BISECTION_STEPS = 10
_SMALLEST_BANDWIDTH = 1e-3


@short_repr
class ReliabilityBins(NamedTuple):
    """A reliability diagram, as returned by `reliability_bins`: accuracy against confidence, per confidence bin.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> bins = metrics.reliability_bins(jnp.array([0.6, 0.9]), jnp.array([False, True]), num_bins=2)
      >>> bins.count.tolist(), bins.accuracy.tolist(), bins.confidence.tolist()
      ([0, 2], [0.0, 0.5], [0.0, 0.75])
    """

    # number of examples in the bin
    count: Int32[Array, "bins"]  # pyright: ignore[reportIncompatibleMethodOverride]
    accuracy: Float32[Array, "bins"]  # in [0, 1], fraction of them that is correct; 0 for an empty bin
    confidence: Float32[Array, "bins"]  # in [0, 1], their mean top-class probability; 0 for an empty bin


@explicit.automatic()
@modes.in_32_bits
def reliability_bins(
    confidence: Float[ArrayLike, "examples"], correct: Shaped[ArrayLike, "examples"], num_bins: int = 15
) -> ReliabilityBins:
    """Sort examples by confidence into bins of equal width.

    Bin i holds the confidences in [i / num_bins, (i + 1) / num_bins), the last bin also 1 itself, as in Guo et al. 2017
    (arXiv 1706.04599) but closed on the left. This differs deliberately from torchmetrics, which puts a confidence of
    exactly 1 into a bin of its own (its issue 3510).

    Args:
      confidence: floating `[B]`, B at least 1, in [0, 1]: the probability of the predicted class.
      correct: bool `[B]`, or 0 and 1: whether the prediction was correct.
      num_bins: number of bins, at least 1; static under `jit`.

    Returns:
      `ReliabilityBins`, from the lowest confidence to the highest.

    Raises:
      UserTypeError: `confidence` is not floating, or `num_bins` is not an integer.
      UserError: `confidence` contains NaN or values outside [0, 1], `correct` contains values other than 0 and 1, a
        shape does not match, or `num_bins` is below 1.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> metrics.reliability_bins(jnp.array([0.6, 0.9]), jnp.array([False, True]), num_bins=4).count.tolist()
      [0, 0, 1, 1]
    """
    return _reliability_bins(
        *validation.check_confidence(confidence, correct), num_bins=checks.count("num_bins", num_bins)
    )


@explicit.automatic()
@modes.in_32_bits
def reliability(
    probs: Float[ArrayLike, "examples classes"], labels: Integer[ArrayLike, "examples"], num_bins: int = 15
) -> ReliabilityBins:
    """Return the `reliability_bins` of the top classes of predictions.

    Args:
      probs: floating `[B, C]`, probabilities.
      labels: integer `[B]`, in [0, C).
      num_bins: number of bins, at least 1; static under `jit`.

    Returns:
      `ReliabilityBins`, from the lowest confidence to the highest.

    Raises:
      UserTypeError: `probs` are not floating, `labels` are not integers, or `num_bins` is not an integer.
      UserError: a shape does not match, a probability is NaN or outside [0, 1], a label is outside [0, C), or
        `num_bins` is below 1.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> bins = metrics.reliability(jnp.array([[0.4, 0.6], [0.9, 0.1]]), jnp.array([0, 0]), num_bins=4)
      >>> bins.count.tolist(), bins.accuracy.tolist()
      ([0, 0, 1, 1], [0.0, 0.0, 0.0, 1.0])
    """
    num_bins = checks.count("num_bins", num_bins)
    return _reliability_bins(*top_class(*validation.check_predictions("probs", probs, labels)), num_bins=num_bins)


@explicit.automatic()
@modes.in_32_bits
def calibration_error(bins: ReliabilityBins, norm: Literal["l1", "l2"] = "l1") -> Float32[Array, ""]:
    """Return the expected calibration error of the whole set, from its reliability bins.

    With the gap `|accuracy - confidence|` of each bin and its share of the examples as weight, "l1" is the weighted
    mean gap (ECE; Naeini et al. 2015, Guo et al. 2017, arXiv 1706.04599) and "l2" the root of the weighted mean squared
    gap (RMS ECE; Hendrycks et al. 2019, arXiv 1812.04606), which is never below "l1".

    Args:
      bins: result of `reliability_bins` or `reliability`.
      norm: "l1" or "l2"; static under `jit`.

    Returns:
      float32 `[]` in [0, 1]; higher is worse.

    Raises:
      UserTypeError: `bins` are not `ReliabilityBins`.
      UserError: `norm` is unknown.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> bins = metrics.reliability_bins(jnp.array([0.75, 0.75]), jnp.array([True, False]))
      >>> metrics.calibration_error(bins).item()  # |0.5 - 0.75|
      0.25
    """
    checks.instance("bins", bins, ReliabilityBins, "reliability_bins")
    checks.choice("norm", norm, ("l1", "l2"))
    count = bins.count.astype(jnp.float32)
    weight = count / jnp.sum(count)
    gap = jnp.abs(bins.accuracy - bins.confidence)
    if norm == "l1":
        return jnp.sum(weight * gap)
    return jnp.sqrt(jnp.sum(weight * jnp.square(gap)))


@explicit.automatic()
@modes.in_32_bits
def adaptive_calibration_error(
    confidence: Float[ArrayLike, "examples"], correct: Shaped[ArrayLike, "examples"], num_bins: int = 15
) -> Float32[Array, ""]:
    """Return the calibration error over bins of equal mass: the mean of `|accuracy - confidence|` over them.

    Bins of equal mass are those of Nguyen & O'Connor 2015 (arXiv 1508.05154), the "adaptive" scheme of Nixon et al.
    2019 (arXiv 1904.01685). They apply it to every class; here it is applied to the top class only.

    Every bin holds exactly B / num_bins examples: an example on a border is divided between both bins, so B need not be
    a multiple of num_bins, nor as large. Where a border splits tied examples, both sides get the same fraction of
    correct ones. Code that rounds the borders to whole examples differs by less than 2·num_bins / B if there are no
    ties.

    Args:
      confidence: floating `[B]`, B at least 1, in [0, 1]: the probability of the predicted class.
      correct: bool `[B]`, or 0 and 1: whether the prediction was correct.
      num_bins: number of bins, at least 1; static under `jit`.

    Returns:
      float32 `[]` in [0, 1]; higher is worse.

    Raises:
      UserTypeError: `confidence` is not floating, or `num_bins` is not an integer.
      UserError: `confidence` contains NaN or values outside [0, 1], `correct` contains values other than 0 and 1, a
        shape does not match, or `num_bins` is below 1.

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> confidence, correct = jnp.array([0.5, 0.5, 0.75, 0.75]), jnp.array([False, True, False, True])
      >>> metrics.adaptive_calibration_error(confidence, correct, num_bins=2).item()  # (0 + 0.25) / 2
      0.125
    """
    num_bins = checks.count("num_bins", num_bins)
    confidence, correct = validation.check_confidence(confidence, correct)
    size = confidence.shape[0]
    confidence, right = rank_by_confidence(confidence, correct)
    cumulative_confidence = jnp.concatenate([jnp.zeros(1, jnp.float32), jnp.cumsum(confidence)])
    excess = _at(np.linspace(0, 1, num_bins + 1), cumulative_confidence - right)
    return jnp.sum(jnp.abs(jnp.diff(excess))) / size


@explicit.automatic()
@modes.in_32_bits
def smooth_ece(confidence: Float[ArrayLike, "examples"], correct: Shaped[ArrayLike, "examples"]) -> Float32[Array, ""]:
    """Return the smooth ECE (smECE), a calibration error without bins.

    The residuals confidence - correct are smoothed along the confidence axis with a Gaussian that is reflected at 0 and
    1. The smECE at bandwidth σ is the integral of their absolute value per example, and the smECE itself is the one at
    the σ that equals it, found by bisection.

    The numerics follow the authors' code, relplot 1.0.3, so that values compare with published ones. Three of its
    properties are not in the paper: the Gaussian ends at a distance of 1/2; a confidence of exactly 0 or 1 has no
    mirror image and counts half, and those within 0.001 of it lose part of their weight; the integrals weight the two
    ends of the axis more. For a saturated network they can increase the value by half.

    The measured difference to relplot, for sets of 100 to 50,000 examples, is usually below 1e-4 and at most 6e-4 (if
    all confidences have one of three values, or the last bisection step, 1/1024, takes the other direction). Below 100
    examples it is at most 3e-3, caused by that step and by the 1e-4 that relplot adds to the density.

    Each confidence is rounded to the nearest of 16,384 nodes; everything else is FFTs of twice that length.

    Args:
      confidence: floating `[B]`, B at least 1, in [0, 1]: the probability of the predicted class.
      correct: bool `[B]`, or 0 and 1: whether the prediction was correct.

    Returns:
      float32 `[]` in [0, 1]; higher is worse.

    Raises:
      UserTypeError: `confidence` is not floating.
      UserError: `confidence` contains NaN or values outside [0, 1], `correct` contains values other than 0 and 1, or a
        shape does not match.

    Source: Błasiok & Nakkiran 2023, *Smooth ECE: Principled reliability diagrams via kernel smoothing*
    (arXiv 2309.12236).

    Example:
      >>> from anchor_jax import metrics
      >>> import jax.numpy as jnp
      >>> print(f"{metrics.smooth_ece(jnp.array([0.8]), jnp.array([True])):.3f}")
      0.200
    """
    return _smooth_ece(*validation.check_confidence(confidence, correct))


@partial(jax.jit, static_argnames="num_bins")
def _reliability_bins(
    confidence: Float32[Array, "examples"], correct: Bool[Array, "examples"], num_bins: int
) -> ReliabilityBins:
    inner_edges = np.arange(1, num_bins, dtype=np.float32) / np.float32(num_bins)
    index = jnp.searchsorted(inner_edges, confidence, side="right")
    # masked sums instead of a scatter: XLA adds them in a tree, so that float32 stays accurate for large B
    member = index[:, None] == jnp.arange(num_bins, dtype=index.dtype)[None, :]
    count = jnp.sum(member, axis=0, dtype=jnp.int32)
    right = jnp.sum(member & correct[:, None], axis=0, dtype=jnp.int32)
    total_confidence = jnp.sum(jnp.where(member, confidence[:, None], 0.0), axis=0)
    size = jnp.maximum(count, 1).astype(jnp.float32)
    return ReliabilityBins(count, right.astype(jnp.float32) / size, total_confidence / size)


def _at(fractions: np.ndarray, values: Float32[Array, "values"]) -> Float32[Array, "fractions"]:
    """Interpolate values at fractions of their length, as `jnp.interp` does of a length that is not symbolic."""
    size = values.shape[0] - 1
    is_known = isinstance(size, int)
    place = jnp.asarray(fractions * size if is_known else jnp.float32(fractions) * size, jnp.float32)
    below = jnp.floor(place).astype(jnp.int32)
    first, second = values[below], values[jnp.minimum(below + 1, size)]
    return first + (place - below) * (second - first)


@jax.jit
def _smooth_ece(confidence: Float32[Array, "examples"], correct: Bool[Array, "examples"]) -> Float32[Array, ""]:
    error_at = partial(_smoothed_error, *_to_grid(confidence, correct))

    def bisect(_: Any, interval: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = interval
        middle = (low + high) / 2
        too_narrow = middle < jnp.maximum(error_at(middle), _SMALLEST_BANDWIDTH)
        return jnp.where(too_narrow, middle, low), jnp.where(too_narrow, high, middle)

    # the error decreases with the bandwidth, so the two are equal once, always inside the interval
    _, bandwidth = lax.fori_loop(0, _BISECTION_STEPS, bisect, (jnp.float32(0), jnp.float32(1)))
    return jnp.minimum(error_at(bandwidth), 1.0)  # rounding


def _to_grid(
    confidence: Float32[Array, "examples"], correct: Bool[Array, "examples"]
) -> tuple[Float32[Array, "nodes"], Float32[Array, "nodes"]]:
    """Return the sum of residuals and the number of examples at each grid node; examples go to the nearest node.

    Only integers are summed, so the result is exact and does not depend on the order of the examples.
    """
    node = jnp.round(jnp.clip(confidence, 0.0, 1.0) * (_GRID_NODES - 1)).astype(jnp.int32)
    count = jnp.bincount(node, length=_GRID_NODES).astype(jnp.float32)
    right = jnp.bincount(node, weights=correct.astype(jnp.int32), length=_GRID_NODES).astype(jnp.float32)
    return count * _grid() - right, count


def _smoothed_error(
    residual: Float32[Array, "nodes"], count: Float32[Array, "nodes"], bandwidth: Float32[Array, ""]
) -> Float32[Array, ""]:
    """Return the smECE at one bandwidth: the integral of `|smoothed residual|` over that of the smoothed count."""
    # relplot uses a grid of this step, whose end nodes have no mirror image
    step = jnp.minimum(1e-3, bandwidth / 10)
    to_end = jnp.minimum(_grid(), 1 - _grid())
    mirrored_share = 1 - jnp.maximum(1 - to_end / step, 0.0) / 2
    smooth_residual = _smooth(residual * mirrored_share, bandwidth)
    smooth_count = _smooth(count * mirrored_share, bandwidth)
    weight = _integration_weights(bandwidth)
    return jnp.sum(weight * jnp.abs(smooth_residual)) / jnp.sum(weight * smooth_count)


def _smooth(values: Float32[Array, "nodes"], bandwidth: Float32[Array, ""]) -> Float32[Array, "nodes"]:
    """Convolve values on the grid with a Gaussian that is cut off at 1/2 and reflected at both ends."""
    length = 2 * _GRID_NODES
    mirrored = jnp.concatenate([values, values[::-1]])  # periodic, so that a circular convolution reflects
    node = jnp.arange(length)
    distance = jnp.minimum(node, length - node).astype(jnp.float32) / (_GRID_NODES - 1)
    kernel = jnp.where(distance <= 0.5, jnp.exp(-jnp.square(distance / bandwidth) / 2), 0.0)
    return jnp.fft.irfft(jnp.fft.rfft(mirrored) * jnp.fft.rfft(kernel), n=length)[:_GRID_NODES]


def _integration_weights(bandwidth: Float32[Array, ""]) -> Float32[Array, "nodes"]:
    """Return trapezoid weights whose two ends weigh as much as in relplot's plain sum over a coarser mesh."""
    coarse_step = 1 / (jnp.maximum(200.0, 10 / bandwidth) - 1)
    end = (1 + coarse_step * (_GRID_NODES - 1)) / 2
    return jnp.ones(_GRID_NODES, jnp.float32).at[0].set(end).at[-1].set(end)


def _grid() -> Float32[Array, "nodes"]:
    return jnp.linspace(0, 1, _GRID_NODES, dtype=jnp.float32)
