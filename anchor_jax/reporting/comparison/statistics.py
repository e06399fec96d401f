"""Means over seeds, and differences between methods on what they share: seeds, or test examples."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95  # of the intervals


class Summary(NamedTuple):
    """One number of a method."""

    values: dict[int, float]  # seed -> value
    mean: float
    std: float | None  # over seeds, unbiased (n - 1); None for one seed


class Difference(NamedTuple):
    """A method less the baseline."""

    mean: float
    low: float | None  # of the 95 % interval; None where there is no spread to take it from
    high: float | None
    num: int  # pairs: seeds, or test examples


def summary(values: Mapping[int, float]) -> Summary:
    """Mean and standard deviation over seeds.

    Args:
      values: seed -> value, at least one.
    """
    numbers = np.array(list(values.values()))
    return Summary(dict(values), float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else None)


def difference_over_seeds(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """Mean difference over the seeds that both have, and its interval; None where they share none.

    It is about training anew: how much the difference changes with initialisation, order of the data and draws.
    """
    shared = sorted(values.keys() & baseline.keys())
    if not shared:
        return None
    return paired(np.array([values[seed] for seed in shared]), np.array([baseline[seed] for seed in shared]))


def paired(values: np.ndarray, baseline: np.ndarray) -> Difference:
    """Mean difference of pairs and its 95 % t interval.

    Args:
      values: floating `[n]`.
      baseline: floating `[n]`, of the same seeds or examples in the same order.

    Returns:
      The interval is None for one pair, and where all pairs differ by the same.
    """
    differences = values.astype(np.float64) - baseline.astype(np.float64)
    mean = float(differences.mean())
    if np.ptp(differences) <= 1e-12 * np.abs(differences).max():  # one pair, or no spread but that of rounding
        return Difference(mean, None, None, len(differences))
    interval = stats.ttest_rel(values.astype(np.float64), baseline.astype(np.float64)).confidence_interval(LEVEL)
    return Difference(mean, float(interval.low), float(interval.high), len(differences))
