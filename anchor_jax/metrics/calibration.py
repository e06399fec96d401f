"""How far a confidence keeps what it promises: calibration errors with bins and without."""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from anchor_jax.core import checks
from anchor_jax.metrics import validation
from anchor_jax.metrics.ranking import rank
from anchor_jax.metrics.scores import top_class

# smoothed ECE: nodes of the grid on [0, 1], halvings of the interval that holds the bandwidth, and the
# bandwidth below which nothing is resolved (the last two are those of the authors' code)
_GRID_NODES = 2**14
_HALVINGS = 10
_SMALLEST_BANDWIDTH = 1e-3


class ReliabilityBins(NamedTuple):
    """A reliability diagram: what the examples of each confidence bin promise and what they keep."""

    # int32 [num_bins], examples in the bin
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    accuracy: jax.Array  # float32 [num_bins], in [0, 1], fraction of them that is right; 0 where empty
    confidence: jax.Array  # float32 [num_bins], in [0, 1], their mean top-class probability; 0 where empty


def reliability_bins(confidence: ArrayLike, correct: ArrayLike, num_bins: int = 15) -> ReliabilityBins:
    """Sorts the examples by confidence into bins of equal width.

    Bin i holds the confidences in [i / num_bins, (i + 1) / num_bins), the last bin also 1 itself, as in
    Guo et al. 2017 (arXiv 1706.04599) but closed on the left. On purpose this differs from torchmetrics,
    which counts a confidence of exactly 1 in a bin of its own (its issue 3510).

    Args:
      confidence: floating `[B]`, B at least 1, in [0, 1]: the probability given to the predicted class.
      correct: `[B]`, bool or 0 and 1: whether the prediction was right.
      num_bins: number of bins, at least 1; static under `jit`.

    Returns:
      `ReliabilityBins`, one entry a bin, from the lowest confidence to the highest.
    """
    return _reliability_bins(*validation.judged(confidence, correct), checks.count("num_bins", num_bins))


def reliability(probs: ArrayLike, labels: ArrayLike, num_bins: int = 15) -> ReliabilityBins:
    """`reliability_bins` of the top classes of these predictions.

    Args:
      probs: floating `[B, C]`, probabilities.
      labels: integer `[B]`, in [0, C).
      num_bins: number of bins, at least 1; static under `jit`.

    Returns:
      `ReliabilityBins`, one entry a bin, from the lowest confidence to the highest.
    """
    num_bins = checks.count("num_bins", num_bins)
    return _reliability_bins(*top_class(*validation.predictions("probs", probs, labels)), num_bins)


def calibration_error(bins: ReliabilityBins, norm: Literal["l1", "l2"] = "l1") -> jax.Array:
    """Expected calibration error over the whole set, from its reliability bins.

    With the gap `|accuracy - confidence|` of each bin and its share of the examples as weight, "l1" is the
    weighted mean gap (ECE; Naeini et al. 2015, Guo et al. 2017, arXiv 1706.04599) and "l2" the root of the
    weighted mean squared gap (RMS ECE; Hendrycks et al. 2019, arXiv 1812.04606), which is never below "l1".

    Args:
      bins: what `reliability_bins` returns.
      norm: "l1" or "l2"; static under `jit`.

    Returns:
      float32 `[]` in [0, 1]; higher is worse.
    """
    checks.instance("bins", bins, ReliabilityBins, "reliability_bins")
    checks.choice("norm", norm, ("l1", "l2"))
    count = bins.count.astype(jnp.float32)
    weight = count / jnp.sum(count)
    gap = jnp.abs(bins.accuracy - bins.confidence)
    if norm == "l1":
        return jnp.sum(weight * gap)
    return jnp.sqrt(jnp.sum(weight * jnp.square(gap)))


def adaptive_calibration_error(confidence: ArrayLike, correct: ArrayLike, num_bins: int = 15) -> jax.Array:
    """Calibration error over bins that hold equally many examples: the mean of `|accuracy - confidence|` over them.

    Bins of equal mass are those of Nguyen and O'Connor 2015 (arXiv 1508.05154), the "adaptive" scheme of
    Nixon et al. 2019 (arXiv 1904.01685), who apply it to every class; this is for the top class alone.

    Every bin holds exactly B / num_bins examples: one that straddles a border is divided between both bins,
    so that B need not be a multiple of num_bins, nor even as large. Examples of equal confidence are alike:
    where a border cuts through them, each side takes the same fraction of them right. Code that rounds the
    borders to whole examples differs by less than 2·num_bins / B as long as no confidences are equal.

    Args:
      confidence: floating `[B]`, B at least 1, in [0, 1]: the probability given to the predicted class.
      correct: `[B]`, bool or 0 and 1: whether the prediction was right.
      num_bins: number of bins, at least 1; static under `jit`.

    Returns:
      float32 `[]` in [0, 1]; higher is worse.
    """
    num_bins = checks.count("num_bins", num_bins)
    confidence, correct = validation.judged(confidence, correct)
    size = len(confidence)
    confidence, right = rank(confidence, correct)
    promised = jnp.concatenate([jnp.zeros(1, jnp.float32), jnp.cumsum(confidence)])
    borders = np.linspace(0, size, num_bins + 1).astype(np.float32)
    excess = jnp.interp(borders, jnp.arange(size + 1, dtype=jnp.float32), promised - right)
    return jnp.sum(jnp.abs(jnp.diff(excess))) / size


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
    return _smooth_ece(*validation.judged(confidence, correct))


@partial(jax.jit, static_argnames="num_bins")
def _reliability_bins(confidence: jax.Array, correct: jax.Array, num_bins: int) -> ReliabilityBins:
    inner_edges = np.arange(1, num_bins, dtype=np.float32) / np.float32(num_bins)
    index = jnp.searchsorted(inner_edges, confidence, side="right")
    # masked sums, not a scatter: XLA adds these in a tree, so float32 stays accurate for large B
    member = index[:, None] == jnp.arange(num_bins, dtype=index.dtype)[None, :]
    count = jnp.sum(member, axis=0, dtype=jnp.int32)
    right = jnp.sum(member & correct[:, None], axis=0, dtype=jnp.int32)
    promised = jnp.sum(jnp.where(member, confidence[:, None], 0.0), axis=0)
    size = jnp.maximum(count, 1).astype(jnp.float32)
    return ReliabilityBins(count, right.astype(jnp.float32) / size, promised / size)


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
    """Smoothed ECE at one bandwidth: the integral of `|smoothed residual|` over that of the smoothed count."""
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
