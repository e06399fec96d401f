"""Subsets of datasets for evaluations in less time: random, but with every class in its proportion."""

import dataclasses
from functools import cache

import numpy as np

from anchor_jax.data.content import content_of_rows
from anchor_jax.data.eval_dataset import EvalDataset
from anchor_jax.data.files import warn_once
from anchor_jax.data.published_corruptions import CorruptedSet


def stratified_rows(labels: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Draw rows so that each class has its share of them, up to rounding.

    The draw depends on which examples have the same label, and not on what the labels are. Datasets that correspond
    row by row, such as the severities of a corruption, get the same rows. A larger draw contains a smaller one.

    Args:
      labels: integer `[N]`.
      num: n.
      seed: of the draw.

    Returns:
      Sorted rows, int64 `[min(n, N)]`.

    >>> labels = np.repeat([0, 1], [6, 3])
    >>> labels[stratified_rows(labels, 3, seed=0)].tolist()
    [0, 0, 1]
    """
    priority = np.random.default_rng(seed).permutation(len(labels))
    classes, counts = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    by_class = np.lexsort((priority, classes))
    rank = np.empty(len(labels), np.int64)  # of each example among those of its class, in random order
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(np.lexsort((priority, (rank + 0.5) / counts[classes]))[:num])


def limit_dataset(dataset: EvalDataset, num: int, seed: int) -> EvalDataset:
    """Return the examples at `stratified_rows`; the dataset itself if it has no more than `num` examples."""
    if num >= dataset.num_examples:
        return dataset
    return dataset.subset(stratified_rows(dataset.labels(), num, seed))


def limit_corrupted(corrupted: CorruptedSet, num: int, seed: int) -> CorruptedSet:
    """Return the same `stratified_rows` of every corruption and severity, if their labels agree.

    Labels of the first corruption and severity decide. Where those of another one differ at these rows, the images do
    not correspond; it gets rows of its own, with a warning.
    """
    if num >= corrupted.num_examples:
        return corrupted

    @cache
    def first() -> tuple[np.ndarray, np.ndarray]:
        labels = corrupted.stream(corrupted.members[0], corrupted.severities[0]).labels()
        rows = stratified_rows(labels, num, seed)
        return rows, labels[rows]

    def stream(member: str, severity: int) -> EvalDataset:
        whole, (rows, labels) = corrupted.stream(member, severity), first()
        part = whole.subset(rows)
        if np.array_equal(part.labels(), labels):
            return part
        warn_once(
            f"'{member}' at severity {severity} of {corrupted.name} has its classes in another order than "
            f"'{corrupted.members[0]}' at severity {corrupted.severities[0]}: the limit takes other images of it"
        )
        return limit_dataset(whole, num, seed)

    @cache
    def content() -> str:
        return content_of_rows(corrupted.content, first()[0])

    return dataclasses.replace(corrupted, num_examples=num, stream=stream, content=content)
