"""Means over seeds, and paired differences between methods: over shared seeds, or over test examples."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95  # of the intervals


class Summary(NamedTuple):
    """One score of a method over its seeds."""

    values: dict[int, float]  # seed -> value
    mean: float
    std: float | None  # over seeds, unbiased (n - 1); None for one seed


class Difference(NamedTuple):
    """A method minus the baseline."""

    mean: float
    low: float | None  # of the 95% interval; None without a spread to estimate it from
    high: float | None
    num: int  # pairs: seeds, or test examples

    @property
    def interval(self) -> tuple[float, float] | None:
        """Low and high, if there is an interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def shown(over_seeds: Difference | None, over_examples: Difference | None) -> tuple[Difference | None, ...]:
    """Return both differences as tables and figures show them.

    They are the same number with other intervals. One without an interval is left out next to one that has an
    interval, and shown once if neither has.
    """
    if over_examples and over_examples.interval:
        return (over_seeds if over_seeds and over_seeds.interval else None), over_examples
    return (over_seeds, None) if over_seeds else (None, over_examples)


def summary(values: Mapping[int, float]) -> Summary:
    """Return mean and standard deviation over seeds.

    Args:
      values: seed -> value, at least one.
    """
    numbers = np.array(list(values.values()))
    return Summary(dict(values), float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else None)


def difference_over_seeds(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """Return the mean difference over the shared seeds with its interval, None if no seed is shared.

    The interval covers retraining: initialization, order of the data, and random draws.
    """
    shared = sorted(values.keys() & baseline.keys())
    if not shared:
        return None
    return paired(np.array([values[seed] for seed in shared]), np.array([baseline[seed] for seed in shared]))


def paired(values: np.ndarray, baseline: np.ndarray) -> Difference:
    """Return the mean difference of pairs with its 95% t interval.

    Args:
      values: floating `[n]`.
      baseline: floating `[n]`, of the same seeds or examples in the same order.

    Returns:
      The interval is None for a single pair, and if all pairs differ by the same amount.
    """
    differences = values.astype(np.float64) - baseline.astype(np.float64)
    mean = float(differences.mean())
    if np.ptp(differences) <= 1e-12 * np.abs(differences).max():  # one pair, or no spread except rounding
        return Difference(mean, None, None, len(differences))
    interval = stats.ttest_rel(values.astype(np.float64), baseline.astype(np.float64)).confidence_interval(LEVEL)
    return Difference(mean, float(interval.low), float(interval.high), len(differences))
