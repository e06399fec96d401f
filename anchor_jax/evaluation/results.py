"""Results of the suites: typed scores, one result per number of references, one long-form table of everything.

Scores stay typed while a process runs. They get flat names such as "fog/3/accuracy" in `flat_name`, for `metrics.json`,
and nowhere else.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from anchor_jax.core.short_reprs import short_repr
from anchor_jax.runtime.paths import printable

BLT_SUFFIX = "-blt"  # of the storage name of a suite that was evaluated with the protocol "blt"
_OF = "@"  # in a storage name, before the dataset that was given in place of the test set; no suite's name contains it

Prediction = Literal["mean_probs", "mean_logits", "scaled"]
HASH_DIGITS = 12  # of a hash that people read
_PREFIXES = {"mean_probs": "", "mean_logits": "mean_logits_", "scaled": "scaled_"}

# the columns of the long-form table; a missing value means that the score is not specific to one dataset, severity, ...
SCHEMA = {
    "step": "Int64",  # of the checkpoint
    "num_bins": "Int64",  # of the calibration errors
    "data": "string",  # the first digits of the SHA-256 of the evaluated data
    "limit": "Int64",  # of the images of each dataset, if some were left out
    "suite": "string",  # "clean", "corruptions", ...
    "protocol": "string",  # how references were chosen: "random" or "blt"; in the suite protocols that of the row
    "num_references": "int64",  # K; 0 for a standard network
    "dataset": "string",
    "group": "string",  # a named subset that a mean is over: "mean15", "mean19", "cbar", "near", "far"
    "corruption": "string",
    "severity": "Int64",  # 1..5
    "score": "string",  # anomaly score, such as "energy", or score of a class, such as "lac"
    "draw": "Int64",  # index of a draw of references
    "draw_size": "Int64",  # references in that draw
    "prediction": "string",  # what is scored: "mean_probs", "mean_logits" or "scaled"
    "metric": "string",  # a name in `anchor_jax.metrics.specs`
    "value": "float64",  # fractions in [0, 1]
}


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """One number of a suite. A field that is None does not apply, or the score is a mean over its values.

    Attributes:
      metric: a name in `anchor_jax.metrics.specs`, such as "accuracy".
      value: fractions in [0, 1].
      prediction: what is scored: "mean_probs", the mean of the softmaxes; "mean_logits", the softmax of the mean
        logits; "scaled", the same after temperature scaling.
      dataset: name of the evaluated dataset, where a suite has several.
      group: name of the subset that a mean is over: "mean15", "mean19" or "cbar" of corruptions, "near" or "far" of
        anomaly datasets, "corruptions" or "shift" in the suite conformal.
      corruption: name of the corruption.
      severity: in 1..5.
      score: name of the anomaly score, such as "energy", or of that of a class, such as "lac".
      protocol: "standard", "random1", "randomK" or "blt", in the suite protocols; what is shown, such as "masked", in
        the suite reference_use.
      draw: index of the draw of references, in the suite protocols.
      draw_size: number of references in that draw.
    """

    metric: str
    value: float
    _: dataclasses.KW_ONLY
    prediction: Prediction = "mean_probs"
    dataset: str | None = None
    group: str | None = None
    corruption: str | None = None
    severity: int | None = None
    score: str | None = None
    protocol: str | None = None
    draw: int | None = None
    draw_size: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "value", float(self.value))


FIELDS = tuple(field.name for field in dataclasses.fields(Score) if field.name != "value")


def make_scores(metrics: Mapping[str, Any], **fields: Any) -> list[Score]:
    """Return one score per metric, all with the same other fields.

    >>> make_scores({"accuracy": 0.5}, corruption="fog", severity=3)[0].severity
    3
    """
    return [Score(metric, value, **fields) for metric, value in metrics.items()]


def flat_name(score: Score) -> str:
    """Return the name of a score in `metrics.json`.

    >>> flat_name(Score("ece", 0.1, corruption="fog", severity=3, prediction="scaled"))
    'fog/3/scaled_ece'
    >>> flat_name(Score("ece", 0.1, severity=3))
    'severity3/ece'
    """
    alone = score.corruption is None and score.severity is not None
    severity = f"severity{score.severity}" if alone else score.severity
    draw = () if score.draw is None else ("draws", score.draw, score.draw_size)
    parts = (*draw, score.protocol, score.group, score.dataset, score.corruption, severity, score.score)
    return "/".join([*(str(part) for part in parts if part is not None), _PREFIXES[score.prediction] + score.metric])


def fields_of(score: Score) -> dict[str, Any]:
    """Return the metric of a score, and its other fields that do not have their default.

    >>> fields_of(Score("ece", 0.1, corruption="fog", severity=3))
    {'metric': 'ece', 'corruption': 'fog', 'severity': 3}
    """
    default = Score(score.metric, 0)
    values = {name: getattr(score, name) for name in FIELDS if getattr(score, name) != getattr(default, name)}
    return {"metric": score.metric, **values}


@short_repr
@dataclasses.dataclass(frozen=True)
class SuiteResult:
    """Result of a suite with one number of references.

    Attributes:
      suite: name of the suite.
      num_references: K; 0 for a standard network.
      scores: all numbers.
      arrays: columns with one row per example, and some images; see `column`.
      facts: JSON values that say how, where and on which data the scores were measured.
      protocol: how references were chosen, "random" or "blt".
      dataset: name of the dataset that took the place of the test set; None if none did.
    """

    suite: str
    num_references: int
    scores: tuple[Score, ...]
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    protocol: str = "random"
    dataset: str | None = None

    @property
    def name(self) -> str:
        """The storage name, such as "clean"; see `storage_name`."""
        return storage_name(self.suite, self.protocol, self.dataset)

    @property
    def metrics(self) -> dict[str, float]:
        """The scores under their flat names, as in `metrics.json`.

        Raises:
          ValueError: two scores have the same name.
        """
        named = {flat_name(score): score.value for score in self.scores}
        if len(named) < len(self.scores):
            raise ValueError(f"scores of '{self.name}' must differ in their names")
        return named

    def value(self, metric: str, **fields: Any) -> float | None:
        """Return the value of one score, None if there is none.

        Args:
          metric: its name.
          **fields: the other fields of `Score`; those that are left out have their default.

        >>> result = SuiteResult("corruptions", 1, (Score("ece", 0.2), Score("ece", 0.1, severity=3)))
        >>> result.value("ece"), result.value("ece", severity=3), result.value("ece", severity=5)
        (0.2, 0.1, None)
        """
        return self._values.get(_key(Score(metric, 0, **fields)))

    def mean_over_corruptions(self, metric: str, corruptions: Sequence[str], **fields: Any) -> float | None:
        """Return the mean of a score over corruptions, None if one of them has none.

        Args:
          metric: its name.
          corruptions: their names.
          **fields: the other fields of `Score`, as for `value`.

        >>> scores = Score("ece", 0.2, corruption="fog"), Score("ece", 0.4, corruption="snow")
        >>> result = SuiteResult("corruptions", 1, scores)
        >>> round(result.mean_over_corruptions("ece", ("fog", "snow")), 6)
        0.3
        """
        values = [self.value(metric, corruption=name, **fields) for name in corruptions]
        measured = [value for value in values if value is not None]
        return sum(measured) / len(values) if len(measured) == len(values) else None

    @functools.cached_property
    def _values(self) -> dict[tuple[Any, ...], float]:
        return {_key(score): score.value for score in self.scores}

    def column(self, name: str, dataset: str | None = None) -> np.ndarray | None:
        """Return an array, of one dataset where the suite has several; None if there is none."""
        return self.arrays.get(column_name(name, dataset))


def _key(score: Score) -> tuple[Any, ...]:
    return tuple(getattr(score, field) for field in FIELDS)


Results = Mapping[int, SuiteResult]  # of one suite, by number of references, from the smallest


class StoredName(NamedTuple):
    """What a storage name says."""

    suite: str
    protocol: str = "random"
    dataset: str | None = None


def storage_name(suite: str, protocol: str = "random", dataset: str | None = None) -> str:
    """Return the name of a suite's results on disk and in `metrics.json`.

    >>> storage_name("clean"), storage_name("clean", "blt"), storage_name("clean", dataset="flowers-test")
    ('clean', 'clean-blt', 'clean@flowers-test')
    """
    return suite + (BLT_SUFFIX if protocol == "blt" else "") + ("" if dataset is None else f"{_OF}{dataset}")


def parse_storage_name(name: str) -> StoredName:
    """Return what a storage name says.

    >>> parse_storage_name("clean-blt@flowers-test")
    StoredName(suite='clean', protocol='blt', dataset='flowers-test')
    """
    suite, separator, dataset = name.partition(_OF)
    protocol = "blt" if suite.endswith(BLT_SUFFIX) else "random"
    return StoredName(suite.removesuffix(BLT_SUFFIX), protocol, dataset if separator else None)


def column_name(name: str, dataset: str | None = None) -> str:
    """Return the name of an array on disk."""
    return name if dataset is None else f"{printable(dataset)}/{name}"


def short_hash(facts: Mapping[str, Any]) -> str | None:
    """Return the first digits of the hash of the data that a result is about; None if it is unknown."""
    content = (facts.get("data") or {}).get("sha256")
    return content and content[:HASH_DIGITS]


def to_frame(results: Iterable[SuiteResult]) -> pd.DataFrame:
    """Return all scores as one long-form table, one row per score, with the columns of `SCHEMA`.

    >>> frame = to_frame([SuiteResult("clean", 10, (Score("accuracy", 0.9), Score("ece", 0.05)))])
    >>> frame[["suite", "num_references", "metric", "value"]].values.tolist()
    [['clean', 10, 'accuracy', 0.9], ['clean', 10, 'ece', 0.05]]
    """
    rows = [
        {name: getattr(score, name, None) for name in SCHEMA}
        | {
            "step": result.facts.get("step"),
            "num_bins": result.facts.get("num_bins"),
            "data": short_hash(result.facts),
            "limit": result.facts.get("options", {}).get("limit"),
            "suite": result.suite,
            "protocol": score.protocol or result.protocol,
            "num_references": result.num_references,
            "dataset": result.dataset if score.dataset is None else score.dataset,
        }
        for result in results
        for score in result.scores
    ]
    rows = [{name: printable(of) if isinstance(of, str) else of for name, of in row.items()} for row in rows]
    return pd.DataFrame(rows, columns=list(SCHEMA)).astype(SCHEMA)
