"""Split-conformal prediction: sets of classes and intervals that contain the truth at a chosen rate.

A score says how badly a class, or a value, fits an input. Its quantile over examples that are used for nothing else,
the calibration examples, is a threshold; a set holds what scores below it. The set of a new example contains its label
with at least the target probability, whatever the network, if the new example and the calibration examples come from
the same distribution: the promise is lost under shift. It holds on average, not for each class or image.

Divided by a difficulty, such as the spread over references of an anchored network, scores give hard inputs larger sets
or wider intervals, at the same coverage on average.

Letters: B examples, C classes. Scores and thresholds are float32.
"""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from anchor_jax.contrib.conformal_intervals import ConformalIntervals, Interval, fit_intervals
from anchor_jax.contrib.conformal_threshold import check_given, quantile, rank, scale_of
from anchor_jax.core import checks, explicit, modes
from anchor_jax.core.errors import UserError
from anchor_jax.metrics import validation

__all__ = [
    "METHODS",
    "ConformalIntervals",
    "ConformalSets",
    "Interval",
    "class_scores",
    "fit_intervals",
    "fit_sets",
    "quantile",
    "rank",
]

METHODS = ("lac", "aps", "raps")


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("threshold",),
    meta_fields=("method", "penalty", "free_classes", "offset", "normalized", "randomized"),
)
@dataclasses.dataclass(frozen=True, eq=False)  # hashable, for jit
class ConformalSets:
    """Calibrated sets of classes, as returned by `fit_sets`; a pytree.

    Attributes:
      threshold: float32 `[]`; a class whose score is at most this is in the set.
      method: "lac", "aps" or "raps".
      penalty: see `class_scores`.
      free_classes: see `class_scores`.
      offset: see `class_scores`.
      normalized: whether the scores are divided by a difficulty.
      randomized: whether a key makes the sets exact.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> sets = aj.conformal.ConformalSets(jnp.float32(0.5))
      >>> sets(jnp.array([[0.75, 0.25], [0.5, 0.5]])).tolist()  # 1 - p is at most 0.5
      [[True, False], [True, True]]
    """

    threshold: jax.Array
    method: str = "lac"
    penalty: float = 0.01
    free_classes: int = 1
    offset: float = 0.0
    normalized: bool = False
    randomized: bool = False

    def __call__(
        self, probs: ArrayLike, difficulty: ArrayLike | None = None, *, key: jax.Array | None = None
    ) -> jax.Array:
        """Return the sets of classes of new examples.

        Args:
          probs: floating `[B, C]`, probabilities.
          difficulty: given as in `fit_sets`: in both or in neither.
          key: given as in `fit_sets`: in both or in neither, but not the same one.

        Returns:
          bool `[B, C]`, whether the class is in the set. A set is empty where no class fits as well as the labels of
          most calibration examples.

        Raises:
          UserTypeError: see `class_scores`.
          UserError: see `class_scores`; also if `difficulty` or `key` is not given as in `fit_sets`.
        """
        check_given("difficulty", difficulty, self.normalized, "fit_sets")
        check_given("key", key, self.randomized, "fit_sets")
        scores = class_scores(
            probs,
            method=self.method,
            difficulty=difficulty,
            key=key,
            penalty=self.penalty,
            free_classes=self.free_classes,
            offset=self.offset,
        )
        return scores <= self.threshold


def fit_sets(
    probs: ArrayLike,
    labels: ArrayLike,
    coverage: float = 0.9,
    *,
    method: str = "lac",
    difficulty: ArrayLike | None = None,
    key: jax.Array | None = None,
    penalty: float = 0.01,
    free_classes: int = 1,
    offset: float = 0.0,
) -> ConformalSets:
    """Calibrate sets of classes that contain the label with a probability of at least `coverage`.

    Args:
      probs: floating `[B, C]`, probabilities of calibration examples, which were used neither to train or select the
        network nor to scale its logits.
      labels: integer `[B]`, in [0, C).
      coverage: target, in (0, 1); static under `jit`.
      method: score, see `class_scores`.
      difficulty: see `class_scores`.
      key: see `class_scores`.
      penalty: see `class_scores`.
      free_classes: see `class_scores`.
      offset: see `class_scores`.

    Returns:
      `ConformalSets`, a function of probabilities.

    Raises:
      UserTypeError: see `class_scores`; also if `labels` are not integers or `coverage` is not a number.
      UserError: see `class_scores`; also if a label is outside [0, C), or there are fewer than
        `coverage / (1 - coverage)` examples.

    Source: Vovk et al. 2005, *Algorithmic learning in a random world*; Papadopoulos et al. 2002, *Inductive confidence
    machines for regression*.

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> probs, labels = jnp.array([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]]), jnp.array([0, 1, 1])
      >>> fitted = aj.conformal.fit_sets(probs, labels, coverage=0.75)
      >>> fitted.threshold.item(), fitted(jnp.array([[0.9, 0.1], [0.5, 0.5]])).tolist()
      (0.5, [[True, False], [True, True]])
    """
    options: Any = {"method": method, "penalty": penalty, "free_classes": free_classes, "offset": offset}
    scores = class_scores(probs, difficulty=difficulty, key=key, **options)
    threshold = _label_quantile(scores, labels, coverage)
    return ConformalSets(threshold, **options, normalized=difficulty is not None, randomized=key is not None)


@explicit.automatic("probs")
@modes.in_32_bits
def class_scores(
    probs: ArrayLike,
    *,
    method: str = "lac",
    difficulty: ArrayLike | None = None,
    key: jax.Array | None = None,
    penalty: float = 0.01,
    free_classes: int = 1,
    offset: float = 0.0,
) -> jax.Array:
    """Return how badly each class fits each example: the nonconformity scores of conformal classification.

    With `p` sorted from the largest, and the rank `k` of a class from 1:

    - "lac", least ambiguous sets: `1 - p`. The smallest sets on average (Sadinle et al. 2019, arXiv 1609.00451).
    - "aps", adaptive sets: the sum of `p` down to the class, `p_1 + ... + p_k`. The sizes of the sets follow the
      difficulty of the input (Romano et al. 2020, arXiv 2006.02544).
    - "raps", regularized adaptive sets: plus `penalty·max(0, k - free_classes)`, which keeps sets of many classes
      small (Angelopoulos et al. 2021, arXiv 2009.14193).

    With a difficulty `d`, the score is divided by `d + offset`.

    Args:
      probs: floating `[B, C]`, probabilities; of logits, `jax.nn.softmax(logits)`.
      method: "lac", "aps" or "raps"; static under `jit`.
      difficulty: floating `[B]` or `[B, C]`, at least 0, such as the spread over references
        `answer.probs_std.sum(-1)`; None: all inputs are equally difficult.
      key: makes the sets of "aps" and "raps" exact: a random part of the class's own `p`, the same for all classes of
        an example, is subtracted. None: nothing is, and the sets are larger than they need to be.
      penalty: of "raps", at least 0; static under `jit`.
      free_classes: of "raps", number of classes without a penalty, at least 0; static under `jit`.
      offset: added to the difficulty, at least 0; keeps sets from growing where the difficulty is near 0. Choose it
        without looking at the calibration examples; static under `jit`.

    Returns:
      float32 `[B, C]`, at least 0; higher fits worse.

    Raises:
      UserTypeError: an argument has the wrong type or dtype.
      UserError: a shape does not match, a value is NaN or out of range, `method` is unknown, or `difficulty + offset`
        is 0; or there is a key for "lac".

    Example:
      >>> import anchor_jax as aj
      >>> import jax.numpy as jnp
      >>> probs = jnp.array([[0.25, 0.75, 0.0]])
      >>> aj.conformal.class_scores(probs).tolist(), aj.conformal.class_scores(probs, method="aps").tolist()
      ([[0.75, 0.25, 1.0]], [[1.0, 0.75, 1.0]])
      >>> aj.conformal.class_scores(probs, difficulty=jnp.array([0.5])).tolist()
      [[1.5, 0.5, 2.0]]
    """
    checks.choice("method", method, METHODS)
    penalty = checks.static_number("penalty", penalty, 0, math.inf)
    free_classes = checks.count("free_classes", free_classes, 0)
    if method == "lac" and key is not None:
        raise UserError("key must be None for method 'lac', whose scores have no random part; got a key")
    probs = validation.check_scores("probs", probs)
    if method == "lac":
        scores = 1 - probs
    else:
        order = jnp.argsort(-probs, axis=1, stable=True)  # the first class wins ties
        places = jnp.argsort(order, axis=1)  # of each class, 0 for the most probable
        scores = _cumulative_scores(probs, order, places, key)
        if method == "raps":
            num_penalized = jnp.maximum(0, places + 1 - free_classes).astype(jnp.float32)
            scores = scores + jnp.where(num_penalized > 0, penalty * num_penalized, 0.0)  # the penalty may be infinite
    if difficulty is None:
        return scores
    return scores / scale_of(difficulty, offset, probs.shape[:1], probs.shape).reshape(probs.shape[0], -1)


@explicit.automatic()
@modes.in_32_bits
def _label_quantile(scores: jax.Array, labels: ArrayLike, coverage: float) -> jax.Array:
    labels = validation.check_labels("probs", scores, labels)
    return quantile(jnp.take_along_axis(scores, labels[:, None], axis=1)[:, 0], coverage)


def _cumulative_scores(probs: jax.Array, order: jax.Array, places: jax.Array, key: jax.Array | None) -> jax.Array:
    """Return the sum of the probabilities down to each class, without a random part of its own if there is a key."""
    descending = jnp.take_along_axis(probs, order, axis=1)
    sums = jnp.cumsum(descending, axis=1)
    if key is not None:
        checks.key("key", key)
        sums = sums - jax.random.uniform(key, (probs.shape[0], 1)) * descending
    return jnp.take_along_axis(sums, places, axis=1)
