"""95% intervals of scores over the choice of test images; they do not cover retraining."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from anchor_jax.evaluation.results import SuiteResult

Interval = tuple[float, float]

LEVEL = 0.95
RESAMPLES = 1000
_SEED = 0
_BATCH_BYTES = 2**27  # of the indices that are drawn at once


def of_fraction(value: float, num: int) -> Interval:
    """Return the Wilson interval of a fraction of independent examples.

    Args:
      value: the fraction, in [0, 1].
      num: number of examples, at least 1.

    >>> tuple(round(bound, 3) for bound in of_fraction(0.9, 100))
    (0.826, 0.945)
    """
    interval = stats.binomtest(round(value * num), num).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def of_mean(values: np.ndarray) -> Interval | None:
    """Return the t interval of a mean over examples, floating `[N]`, none negative; None without a spread."""
    if len(values) < 2 or not np.ptp(values) > 0:
        return None
    low, high = stats.t.interval(LEVEL, len(values) - 1, np.mean(values, dtype=np.float64), stats.sem(values))
    return max(float(low), 0.0), float(high)


def of_ece(confidence: np.ndarray, correct: np.ndarray, num_bins: int) -> Interval | None:
    """Return the bootstrap interval of the expected calibration error; None for a single example.

    Sampling noise makes an ECE larger, and resampling does so once more: for a calibrated network, the quantiles of
    the resampled errors almost never contain the true error. The interval is therefore reflected about the estimate
    ("basic"); no bound is below 0, and the upper one is at least the estimate itself.

    Args:
      confidence: floating `[N]`.
      correct: bool `[N]`.
      num_bins: of equal width, as those of `metrics.reliability_bins`.
    """
    edges = np.arange(1, num_bins, dtype=np.float32) / np.float32(num_bins)
    bins, excess = np.searchsorted(edges, confidence, side="right"), confidence.astype(np.float64) - correct

    def errors(rows: np.ndarray, axis: int = -1) -> np.ndarray:
        del axis
        sums = _counts(bins[rows], num_bins, excess[rows])
        return np.abs(sums).sum(-1) / rows.shape[-1]

    every = np.arange(len(bins))
    if (found := _bootstrap((every,), errors, "basic")) is None:
        return None
    return max(found[0], 0.0), max(found[1], float(errors(every)))


def of_auroc(inside: np.ndarray, outside: Sequence[np.ndarray]) -> Interval | None:
    """Return the bootstrap interval of the mean AUROC of several sets of anomalies against one other set.

    None if one of the sets has a single example, whose resamples are all the same.

    Args:
      inside: floating `[N]`, scores of the examples that are no anomalies.
      outside: floating `[M]` each, scores of anomalies.
    """
    # an AUROC depends on the order alone: sort once, count in each resample
    _, ranks = np.unique(np.concatenate([inside, *outside]), return_inverse=True)
    num_ranks = int(ranks.max()) + 1
    sets = np.split(ranks, np.cumsum([len(inside), *map(len, outside[:-1])]))

    def areas(known: np.ndarray, *anomalies: np.ndarray, axis: int = -1) -> np.ndarray:
        count = _counts(known, num_ranks)
        below = np.cumsum(count, axis) - count / 2
        means = [np.take_along_axis(below, of, axis).mean(axis) for of in anomalies]
        return np.mean(means, axis=0) / known.shape[-1]

    return _bootstrap(tuple(sets), areas, "percentile")


def interval(result: SuiteResult, metric: str, **fields: Any) -> Interval | None:
    """Return the interval of a score of a result; None if what is stored does not determine one.

    Args:
      result: of a suite.
      metric: of the score.
      **fields: its other fields, as for `SuiteResult.value`.
    """
    value, allowed = result.value(metric, **fields), {"dataset", "prediction"}
    if value is None:
        return None
    if result.suite == "ood":
        return _of_detection(result, metric, **fields)
    if result.suite == "corruptions":
        return _of_corruptions(result, metric, **fields)
    if result.suite == "conformal":
        return _of_sets(result, metric, **fields)
    if not fields.keys() <= allowed | ({"protocol"} if result.suite == "reference_use" else set()):
        return None
    dataset = fields.get("dataset")
    confidence, correct = result.column("confidence", dataset), result.column("correct", dataset)
    num = _num_examples(result, dataset) if correct is None else len(correct)
    if metric in ("accuracy", "top5_accuracy"):
        # the mean over several sets, and that over draws of references, are no fractions of examples
        return of_fraction(value, num) if num and result.suite != "protocols" else None
    if fields.keys() - {"dataset"}:
        return None  # columns are those of the mean of the softmaxes
    if metric == "ece" and confidence is not None and correct is not None:
        return of_ece(confidence, correct, result.facts["num_bins"])
    means = ("nll", "brier", "entropy", "mutual_information", "agreement")
    column = result.column(metric, dataset) if metric in means else None
    if column is None or (found := of_mean(column)) is None:
        return None
    return found[0], min(found[1], 1.0) if metric == "agreement" else found[1]


def _num_examples(result: SuiteResult, dataset: str | None) -> int | None:
    if dataset is None:
        return result.facts.get("num_examples")
    sets = (result.facts.get("data") or {}).get("sets", ())
    return {each["name"]: each["num_examples"] for each in sets}.get(dataset)  # the last one: a probe is fitted first


def _of_corruptions(
    result: SuiteResult,
    metric: str,
    *,
    corruption: str | None = None,
    severity: int | None = None,
    group: str | None = None,
    **others: Any,
) -> Interval | None:
    """Return the interval of a mean accuracy, in which all versions of an image count as one example."""
    correct, members = result.column("correct"), list(result.facts.get("members", ()))
    if metric != "accuracy" or correct is None or others:
        return None
    names = {None: members, **result.facts.get("averages", {})}.get(group, ()) if corruption is None else (corruption,)
    severities = list(result.facts.get("severities", range(1, correct.shape[1] + 1)))
    columns = slice(None) if severity is None else [severities.index(severity)]
    rows = [members.index(name) for name in names]
    return of_mean(correct[rows][:, columns].mean((0, 1))) if rows else None


def _of_detection(
    result: SuiteResult, metric: str, *, score: str | None = None, group: str | None = None, dataset: str | None = None
) -> Interval | None:
    members = {None: result.facts.get("members", ()), **result.facts.get("groups", {})}.get(group, ())
    columns = [result.column(str(score), name) for name in ([dataset] if dataset else members)]
    inside, outside = result.column(str(score), "in"), [column for column in columns if column is not None]
    if metric != "auroc" or inside is None or not outside or len(outside) < len(columns):
        return None
    return of_auroc(inside, outside)


def _of_sets(result: SuiteResult, metric: str, *, score: str | None = None, **others: Any) -> Interval | None:
    """Return the interval of a score of conformal sets on the test set, with the thresholds as they are."""
    covered, size = result.column(f"{score}_covered"), result.column(f"{score}_size")
    if others or covered is None or size is None:
        return None
    if metric == "set_size":
        return of_mean(size)
    fractions = {"coverage": covered, "singletons": size == 1, "empty_sets": size == 0}
    return of_fraction(float(np.mean(fractions[metric])), len(size)) if metric in fractions else None


def _counts(values: np.ndarray, num: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Return `np.bincount` of each row: int `[..., N]` -> `[..., num]`."""
    rows = values.reshape(-1, values.shape[-1])
    places = rows + num * np.arange(len(rows))[:, None]
    counts = np.bincount(places.ravel(), None if weights is None else weights.ravel(), num * len(rows))
    return counts.reshape(*values.shape[:-1], num)


def _bootstrap(data: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray], method: str) -> Interval | None:
    """Return a bootstrap interval; None if a sample has a single example, which has no spread."""
    if min(map(len, data)) < 2:
        return None
    batch = max(1, _BATCH_BYTES // (8 * sum(map(len, data))))
    options: dict[str, Any] = {"random_state": np.random.default_rng(_SEED)}  # "rng" in newer versions of SciPy alone
    options |= {"n_resamples": RESAMPLES, "batch": batch, "vectorized": True, "confidence_level": LEVEL}
    drawn = stats.bootstrap(data, statistic, method=method, **options)
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)
