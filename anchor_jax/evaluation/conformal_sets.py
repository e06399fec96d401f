"""Conformal sets of a run: scores of the classes, thresholds, and what the sets at these thresholds contain."""

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.contrib import conformal
from anchor_jax.core.inference import Classification, VotedClassification
from anchor_jax.data import EvalDataset
from anchor_jax.evaluation.context import EvalContext
from anchor_jax.evaluation.predictions import check_finite
from anchor_jax.evaluation.progress import with_progress
from anchor_jax.evaluation.results import Score, make_scores
from anchor_jax.runs.predictor import tree_concatenate

# score -> its formula; each is higher for classes that fit worse
SCORES = {
    "lac": "1 - p",
    "aps": "sum of the probabilities down to the class, less a random part of its own",
    "raps": "the same, plus 0.01 for each rank after the first",
    "lac_spread": "lac / (spread + 0.1)",
    "aps_spread": "aps / (spread + 0.1)",
    "raps_spread": "raps / (spread + 0.1)",
}
_RAPS: Any = {"penalty": 0.01, "free_classes": 1}
_OFFSET = 0.1  # of the spread: the standard deviation over references of the probabilities, summed over classes
_SPREAD = "_spread"
_HARD = 0.8  # examples with a higher entropy than this fraction of the others are hard


class Contained(NamedTuple):
    """What the sets of N examples contain, at L thresholds; the first is that of the target coverage."""

    covered: Mapping[str, Any]  # score -> bool [N, L], whether the set contains the label
    size: Mapping[str, Any]  # score -> int32 [N, L], number of classes in it
    entropy: Any  # float32 [N], of the prediction

    def scores(self, **fields: Any) -> list[Score]:
        """Return coverage and sizes at the target, for each score of the classes."""
        hard = self.entropy >= np.quantile(self.entropy, _HARD)
        found = []
        for name, covered in self.covered.items():
            size = self.size[name][:, 0]
            values = {
                "coverage": covered[:, 0].mean(),
                "set_size": size.mean(),
                "singletons": (size == 1).mean(),
                "empty_sets": (size == 0).mean(),
                "hard_coverage": covered[hard, 0].mean(),
            }
            found += make_scores(values, score=name, **fields)
        return found


def names_for(num_references: int) -> tuple[str, ...]:
    """Return the scores that are known for a number of references: a single one has no spread."""
    return tuple(name for name in SCORES if num_references > 1 or not name.endswith(_SPREAD))


def stratified_halves(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide examples at random into two halves with as many examples of each class, up to one.

    Args:
      labels: integer `[N]`.
      seed: of the draw.

    Returns:
      Sorted rows of both halves, int64; the first is not the smaller one.

    >>> [half.tolist() for half in stratified_halves(np.array([0, 0, 0, 0, 1, 1, 1]), seed=0)]
    [[0, 2, 4, 5], [1, 3, 6]]
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    return np.sort(by_class[::2]), np.sort(by_class[1::2])


def calibrate(
    context: EvalContext, stream: EvalDataset, num_references: int, levels: Sequence[float]
) -> dict[str, np.ndarray]:
    """Return score -> thresholds for target coverages, float32 `[L]`.

    Args:
      context: what is evaluated.
      stream: calibration examples, which are not evaluated.
      num_references: K.
      levels: L targets.
    """
    then = partial(_label_scores, names_for(num_references), _key(context, "calibration"))
    label_scores = tree_concatenate(_predicted(context, stream, num_references, then))
    for values in label_scores.values():
        check_finite(values, stream.name)
    return {name: np.asarray(conformal.quantile(values, levels)) for name, values in label_scores.items()}


def contained(
    context: EvalContext,
    stream: EvalDataset,
    num_references: int,
    thresholds: Mapping[str, np.ndarray],
    classes: tuple[int, ...] | None = None,
) -> Contained:
    """Return what the sets of a dataset contain.

    Args:
      context: what is evaluated.
      stream: examples that are not used for calibration.
      num_references: K.
      thresholds: as returned by `calibrate`.
      classes: rows of the logits that the labels of the dataset refer to; None for all.
    """
    then = partial(_contained, names_for(num_references), _key(context, stream.name), dict(thresholds))
    found = tree_concatenate(_predicted(context, stream, num_references, then, classes))
    check_finite(found.entropy, stream.name)
    return found


def _predicted(context: EvalContext, stream: EvalDataset, num_references: int, then: Any, classes: Any = None) -> Any:
    """Predict a dataset with the protocol of the caller; `then` also gets the row of each example."""
    predictor = context.predictor
    is_transduced = context.options.protocol == "blt"
    paired = context.transduction.paired(stream) if is_transduced else stream
    batches = _with_rows(with_progress(paired, predictor, stream.name, num_references))
    if is_transduced:
        return predictor.stream_pairs(batches, then=then, classes=classes)
    return predictor.stream(batches, num_references, then=then, classes=classes)


def _with_rows(batches: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    start = 0
    for batch in batches:
        num = len(batch[0])
        yield (*batch, np.arange(start, start + num, dtype=np.int32))
        start += num


def _key(context: EvalContext, name: str) -> jax.Array:
    """Return the key of the random parts for a dataset."""
    return jax.random.fold_in(jax.random.key(context.options.seed), zlib.crc32(os.fsencode(name)))


@partial(jax.jit, static_argnums=0)
def _label_scores(
    names: tuple[str, ...], key: jax.Array, voted: VotedClassification, labels: jax.Array, rows: jax.Array
) -> dict[str, jax.Array]:
    scores = _class_scores(names, key, voted.classification, rows)
    return {name: jnp.take_along_axis(of, labels[:, None], axis=1)[:, 0] for name, of in scores.items()}


@partial(jax.jit, static_argnums=0)
def _contained(
    names: tuple[str, ...],
    key: jax.Array,
    thresholds: Mapping[str, jax.Array],
    voted: VotedClassification,
    labels: jax.Array,
    rows: jax.Array,
) -> Contained:
    covered, size = {}, {}
    for name, scores in _class_scores(names, key, voted.classification, rows).items():
        inside = scores[:, :, None] <= thresholds[name][None, None]
        covered[name] = jnp.take_along_axis(inside, labels[:, None, None], axis=1)[:, 0]
        size[name] = jnp.sum(inside, axis=1, dtype=jnp.int32)
    return Contained(covered, size, voted.classification.entropy)


def _class_scores(
    names: tuple[str, ...], key: jax.Array, answer: Classification, rows: jax.Array
) -> dict[str, jax.Array]:
    """Return the scores of each class, float32 `[B, C]`; the random parts depend on the row, not on the batch."""
    keys = jax.vmap(partial(jax.random.fold_in, key))(rows)
    spread = None if answer.probs_std is None else jnp.sum(answer.probs_std, axis=-1)
    found = {}
    for name in names:
        method = name.removesuffix(_SPREAD)
        if method not in found:
            found[method] = _scores_of(method, answer.probs, keys)
        if name.endswith(_SPREAD):
            assert spread is not None
            found[name] = found[method] / (spread[:, None] + _OFFSET)
    return found


def _scores_of(method: str, probs: jax.Array, keys: jax.Array) -> jax.Array:
    if method == "lac":
        return conformal.class_scores(probs)

    def of_row(row: jax.Array, key: jax.Array) -> jax.Array:
        return conformal.class_scores(row[None], method=method, key=key, **_RAPS)[0]

    return jax.vmap(of_row)(probs, keys)
