"""Numbers from predictions: accuracy, likelihood, Brier score and calibration of a classifier.

Pure functions of arrays that work under `jax.jit` (`num_bins` and `norm` static) and compute in float32.
B is the number of examples in the whole set and C the number of classes: calibration errors and their
bandwidth are not averages over examples, so none of these may be averaged over batches.

What is wrong with a shape or a dtype is refused always; NaN and values out of range are refused wherever
the values can be seen, that is outside `jit`. Under `jit` such values give numbers without meaning.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.typing import ArrayLike

# smoothed ECE: nodes of the grid on [0, 1], halvings of the interval that holds the bandwidth, and the
# bandwidth below which nothing is resolved (the last two are those of the authors' code)
_GRID_NODES = 2**14
_HALVINGS = 10
_SMALLEST_BANDWIDTH = 1e-3

_TOLERANCE = 1e-3  # a probability rounded to half precision may pass 1 by less than this


class ReliabilityBins(NamedTuple):
    """A reliability diagram: what the examples of each confidence bin promise and what they keep."""

    # int32 [num_bins], examples in the bin
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    accuracy: jax.Array  # float32 [num_bins], in [0, 1], fraction of them that is right; 0 where empty
    confidence: jax.Array  # float32 [num_bins], in [0, 1], their mean top-class probability; 0 where empty


def accuracy(probs_or_logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Fraction of the examples whose highest-scored class is the label; the first class wins a tie.

    Args:
      probs_or_logits: floating `[B, C]`, probabilities or logits.
      labels: integer `[B]`, in [0, C).

    Returns:
      float32 `[]` in [0, 1]; higher is better.
    """
    scores, labels = _checked("probs_or_logits", probs_or_logits, labels, -np.inf, np.inf)
    _, correct = _top_class(scores, labels)
    return jnp.mean(correct, dtype=jnp.float32)


def nll(probs: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Mean negative log likelihood of the labels.

    A probability of 0 counts as the smallest normal float32, about 1.2e-38, so that one sure mistake
    costs 87.3 nats rather than infinity.

    Args:
      probs: floating `[B, C]`, probabilities.
      labels: integer `[B]`, in [0, C).

    Returns:
      float32 `[]` in nats, in [0, 87.4]; higher is worse.
    """
    probs, labels = _checked("probs", probs, labels, 0, 1)
    likelihood = jnp.take_along_axis(probs, labels[:, None], axis=1)
    return -jnp.mean(jnp.log(jnp.clip(likelihood, jnp.finfo(jnp.float32).tiny, 1.0)))


def brier(probs: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Brier score: squared distance from the probabilities to the one-hot label, mean over examples.

    The distance is summed over the classes, as Brier wrote it (Monthly Weather Review 78, 1950), which
    is twice the value of the other convention for two classes.

    Args:
      probs: floating `[B, C]`, probabilities.
      labels: integer `[B]`, in [0, C).

    Returns:
      float32 `[]` in [0, 2]; higher is worse.
    """
    probs, labels = _checked("probs", probs, labels, 0, 1)
    target = jax.nn.one_hot(labels, probs.shape[1], dtype=probs.dtype)
    return jnp.mean(jnp.sum(jnp.square(probs - target), axis=1))


def reliability(probs: ArrayLike, labels: ArrayLike, num_bins: int = 15) -> ReliabilityBins:
    """Sorts the examples by top-class probability into bins of equal width.

    Bin i holds the confidences in [i / num_bins, (i + 1) / num_bins), the last bin also 1 itself, as in
    Guo et al. 2017 (arXiv 1706.04599) but closed on the left. On purpose this differs from torchmetrics,
    which counts a confidence of exactly 1 in a bin of its own (its issue 3510).

    Args:
      probs: floating `[B, C]`, probabilities.
      labels: integer `[B]`, in [0, C).
      num_bins: number of bins, at least 1; static under `jit`.

    Returns:
      `ReliabilityBins`, one entry a bin, from the lowest confidence to the highest.
    """
    num_bins = _checked_num_bins(num_bins)
    probs, labels = _checked("probs", probs, labels, 0, 1)
    confidence, correct = _top_class(probs, labels)
    inner_edges = np.arange(1, num_bins, dtype=np.float32) / np.float32(num_bins)
    index = jnp.searchsorted(inner_edges, confidence, side="right")
    # masked sums, not a scatter: XLA adds these in a tree, so float32 stays accurate for large B
    member = index[:, None] == jnp.arange(num_bins, dtype=index.dtype)[None, :]
    count = jnp.sum(member, axis=0, dtype=jnp.int32)
    right = jnp.sum(member & correct[:, None], axis=0, dtype=jnp.int32)
    promised = jnp.sum(jnp.where(member, confidence[:, None], 0.0), axis=0)
    size = jnp.maximum(count, 1).astype(jnp.float32)
    return ReliabilityBins(count, right.astype(jnp.float32) / size, promised / size)


def calibration_error(bins: ReliabilityBins, norm: Literal["l1", "l2"] = "l1") -> jax.Array:
    """Expected calibration error over the whole set, from its reliability bins.

    With the gap |accuracy - confidence| of each bin and its share of the examples as weight, "l1" is the
    weighted mean gap (ECE; Naeini et al. 2015, Guo et al. 2017, arXiv 1706.04599) and "l2" the root of the
    weighted mean squared gap (RMS ECE; Hendrycks et al. 2019, arXiv 1812.04606), which is never below "l1".

    Args:
      bins: what `reliability` returns.
      norm: "l1" or "l2"; static under `jit`.

    Returns:
      float32 `[]` in [0, 1]; higher is worse.
    """
    if norm not in ("l1", "l2"):
        raise ValueError(f"norm must be 'l1' or 'l2', got {norm!r}")
    count = bins.count.astype(jnp.float32)
    weight = count / jnp.sum(count)
    gap = jnp.abs(bins.accuracy - bins.confidence)
    if norm == "l1":
        return jnp.sum(weight * gap)
    return jnp.sqrt(jnp.sum(weight * jnp.square(gap)))


def smooth_ece(confidence: ArrayLike, correct: ArrayLike) -> jax.Array:
    """Smoothed ECE (smECE): a calibration error without bins.

    Błasiok and Nakkiran 2023 (arXiv 2309.12236): smooth the residuals confidence - correct along the
    confidence axis with a Gaussian reflected at 0 and 1; smECE at bandwidth σ is the integral of their
    absolute value per example, and smECE itself is taken at the σ that equals it, found by bisection.

    The numerics follow the authors' code, relplot 1.0.3, so that values compare with published ones. Three
    of its traits are not in the paper: the Gaussian ends at a distance of 1/2; a confidence of exactly 0 or 1
    has no mirror image, so it counts half, and those within 0.001 of it lose part of their weight; the
    integrals weigh the two ends of the axis more. On a saturated network they can raise the value by half.

    Measured difference to relplot on sets of 100 to 50,000 examples: below 1e-4 as a rule, at most 6e-4 (all
    confidences on three values, or the bisection's last step, 1/1024, going the other way). Below 100
    examples at most 3e-3, from that step and from the 1e-4 that relplot adds to the density.

    Each confidence goes to the nearest of 16,384 nodes, once; the rest are FFTs of twice that length.

    Args:
      confidence: floating `[B]`, in [0, 1]: the probability given to the predicted class.
      correct: `[B]`, bool or 0 and 1: whether the prediction was right.

    Returns:
      float32 `[]` in [0, 1]; higher is worse.
    """
    return _smooth_ece(*_checked_outcomes(confidence, correct))


def summary(probs: ArrayLike, labels: ArrayLike, num_bins: int = 15) -> dict[str, jax.Array]:
    """All metrics of one set of predictions.

    Args:
      probs: floating `[B, C]`, probabilities.
      labels: integer `[B]`, in [0, C).
      num_bins: bins of `ece` and `rms_ece`, at least 1; static under `jit`.

    Returns:
      float32 `[]` under each of `accuracy`, `nll` (nats), `brier`, `ece` ("l1"), `rms_ece` ("l2") and
      `smooth_ece`; fractions, not percent. Higher is better for `accuracy` alone.

    Raises:
      ValueError: `probs` holds NaN or a value outside [0, 1], `labels` one outside [0, C), or a shape does
        not fit.
      TypeError: `probs` is not floating, or `labels` or `num_bins` not integer.
    """
    num_bins = _checked_num_bins(num_bins)
    return _summary(*_checked("probs", probs, labels, 0, 1), num_bins)


@partial(jax.jit, static_argnames="num_bins")
def _summary(probs: jax.Array, labels: jax.Array, num_bins: int) -> dict[str, jax.Array]:
    bins = reliability(probs, labels, num_bins)
    return {
        "accuracy": accuracy(probs, labels),
        "nll": nll(probs, labels),
        "brier": brier(probs, labels),
        "ece": calibration_error(bins, "l1"),
        "rms_ece": calibration_error(bins, "l2"),
        "smooth_ece": smooth_ece(*_top_class(probs, labels)),
    }


def _top_class(scores: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Highest score of each example, and whether its class is the label."""
    return jnp.max(scores, axis=1), jnp.argmax(scores, axis=1).astype(labels.dtype) == labels


@jax.jit
def _smooth_ece(confidence: jax.Array, correct: jax.Array) -> jax.Array:
    error_at = partial(_smoothed_error, *_on_grid(confidence, correct))

    def halve(_, interval: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = interval
        middle = (low + high) / 2
        too_narrow = middle < jnp.maximum(error_at(middle), _SMALLEST_BANDWIDTH)
        return jnp.where(too_narrow, middle, low), jnp.where(too_narrow, high, middle)

    # the error falls as the bandwidth grows, so they meet once, and the interval keeps the meeting point
    _, bandwidth = lax.fori_loop(0, _HALVINGS, halve, (jnp.float32(0), jnp.float32(1)))
    return error_at(bandwidth)


def _on_grid(confidence: jax.Array, correct: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Summed residuals and number of examples at each grid node, an example going to the nearest node.

    Integers are counted, so the result is exact and does not depend on the order of the examples.
    """
    node = jnp.round(jnp.clip(confidence, 0.0, 1.0) * (_GRID_NODES - 1)).astype(jnp.int32)
    count = jnp.bincount(node, length=_GRID_NODES).astype(jnp.float32)
    right = jnp.bincount(node, weights=correct.astype(jnp.int32), length=_GRID_NODES).astype(jnp.float32)
    return count * _grid() - right, count


def _smoothed_error(residual: jax.Array, count: jax.Array, bandwidth: jax.Array) -> jax.Array:
    """Smoothed ECE at one bandwidth: the integral of |smoothed residual| over that of the smoothed count."""
    # the reference puts the examples on a grid of this step, where its end nodes have no mirror image
    step = jnp.minimum(1e-3, bandwidth / 10)
    to_end = jnp.minimum(_grid(), 1 - _grid())
    mirrored_share = 1 - jnp.maximum(1 - to_end / step, 0.0) / 2
    smooth_residual = _smooth(residual * mirrored_share, bandwidth)
    smooth_count = _smooth(count * mirrored_share, bandwidth)
    weight = _integration_weights(bandwidth)
    return jnp.sum(weight * jnp.abs(smooth_residual)) / jnp.sum(weight * smooth_count)


def _smooth(values: jax.Array, bandwidth: jax.Array) -> jax.Array:
    """Convolves values on the grid with a Gaussian that is cut at 1/2 and reflected at both ends."""
    length = 2 * _GRID_NODES
    mirrored = jnp.concatenate([values, values[::-1]])  # on a circle: what leaves one end comes back
    node = jnp.arange(length)
    distance = jnp.minimum(node, length - node).astype(jnp.float32) / (_GRID_NODES - 1)
    kernel = jnp.where(distance <= 0.5, jnp.exp(-jnp.square(distance / bandwidth) / 2), 0.0)
    return jnp.fft.irfft(jnp.fft.rfft(mirrored) * jnp.fft.rfft(kernel), n=length)[:_GRID_NODES]


def _integration_weights(bandwidth: jax.Array) -> jax.Array:
    """Trapezoid rule, with the two ends as heavy as in the reference's plain sum over a coarser mesh."""
    coarse_step = 1 / (jnp.maximum(200.0, 10 / bandwidth) - 1)
    end = (1 + coarse_step * (_GRID_NODES - 1)) / 2
    return jnp.ones(_GRID_NODES, jnp.float32).at[0].set(end).at[-1].set(end)


def _grid() -> jax.Array:
    return jnp.linspace(0, 1, _GRID_NODES, dtype=jnp.float32)


def _checked(name: str, scores: ArrayLike, labels: ArrayLike, low: float, high: float) -> tuple[jax.Array, jax.Array]:
    """The scores as float32 `[B, C]`, in [low, high], and the labels as int32 `[B]`; refuses all else."""
    scores, labels = jnp.asarray(scores), jnp.asarray(labels)
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got {scores.dtype}")
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"{name} must be [B, C], B and C at least 1; got shape {scores.shape}")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != scores.shape[:1]:
        raise ValueError(f"labels must be [B], {scores.shape[:1]} for this {name}; got shape {labels.shape}")
    _check_values(name, scores, low, high)
    _check_values("labels", labels, 0, scores.shape[1] - 1)
    return scores.astype(jnp.float32), labels.astype(jnp.int32)


def _checked_outcomes(confidence: ArrayLike, correct: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """The confidences as float32 `[B]` and their outcomes as bool `[B]`; refuses all else."""
    confidence, correct = jnp.asarray(confidence), jnp.asarray(correct)
    if not jnp.issubdtype(confidence.dtype, jnp.floating):
        raise TypeError(f"confidence must be floating, got {confidence.dtype}")
    if confidence.ndim != 1 or confidence.size == 0:
        raise ValueError(f"confidence must be [B], B at least 1; got shape {confidence.shape}")
    if correct.shape != confidence.shape:
        raise ValueError(f"correct must be [B], {confidence.shape} as confidence; got shape {correct.shape}")
    _check_values("confidence", confidence, 0, 1)
    if not isinstance(correct, Tracer) and not jnp.all((correct == 0) | (correct == 1)):
        raise ValueError("correct must be bool or hold 0 and 1 alone, got other values")
    return confidence.astype(jnp.float32), correct.astype(jnp.bool_)


def _checked_num_bins(num_bins: int) -> int:
    if not isinstance(num_bins, int | np.integer):
        raise TypeError(f"num_bins must be an integer, static under jit; got {type(num_bins).__name__}")
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}")
    return int(num_bins)


def _check_values(name: str, values: jax.Array, low: float, high: float) -> None:
    """Refuses NaN and values outside [low, high], where they can be seen: the values under `jit` cannot."""
    if isinstance(values, Tracer):
        return
    smallest, largest = float(jnp.min(values)), float(jnp.max(values))
    if np.isnan(smallest):
        raise ValueError(f"{name} must not hold NaN, got {jnp.isnan(values).sum()} of it in {values.size} values")
    if smallest < low - _TOLERANCE or largest > high + _TOLERANCE:
        raise ValueError(f"{name} must lie in [{low}, {high}], got values from {smallest:g} to {largest:g}")
