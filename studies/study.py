"""The parts of a study, such as rows and columns, and those that studies share."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from anchor_jax.evaluation.results import storage_name

STANDARD: dict[str, Any] = {"anchoring.enabled": False}
ANCHORED: dict[str, Any] = {"anchoring.mask_prob": 0.0}
MASKED: dict[str, Any] = {"anchoring.mask_prob": 0.25}
LABEL: dict[str, Any] = {"anchoring.masked_target": "label"}
UNIFORM: dict[str, Any] = {"anchoring.masked_target": "uniform"}


class Ensemble(NamedTuple):
    """Several predictions per image, without references; see `anchor_jax.evaluation.ensembles`."""

    kind: str
    members: int  # for the kind "ensemble" these are networks with the seeds 0, 1, ...


class Row(NamedTuple):
    """One method on one dataset."""

    name: str
    config: str  # stem of a file in configs/
    changes: Mapping[str, Any]  # config key -> value
    paper: str = ""  # the paper's value of the first column
    record: str = ""  # stem of the records of its runs, where the size has records; the seed follows
    seeds: int = 3
    reduced_seeds: int = 1  # at the reduced size
    epochs: float = 1.0  # as a fraction of the size's epochs
    num_references: int = 0  # if positive, replaces those of the columns
    is_scaled: bool = False  # report calibration after temperature scaling
    ensemble: Ensemble | None = None
    is_baseline: bool = False  # for the rows below it


class Evaluation(NamedTuple):
    """One call of eval.py."""

    suites: tuple[str, ...]
    num_references: tuple[int, ...]
    protocol: str = "random"
    temperature_scaling: bool = False  # for rows with `is_scaled`
    options: Mapping[str, Any] = MappingProxyType({})  # other flags: name -> value

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names under which the suites' results are stored."""
        return tuple(storage_name(suite, self.protocol) for suite in self.suites)


class Column(NamedTuple):
    """One number of each row."""

    title: str
    suite: str
    num_references: int
    metric: str
    fields: Mapping[str, Any] = MappingProxyType({})  # other fields of `anchor_jax.evaluation.results.Score`
    unit: str = "%"
    protocol: str = "random"
    corruptions: tuple[str, ...] = ()  # the mean over these

    @property
    def result_name(self) -> str:
        """Return the name under which the suite's results are stored."""
        return storage_name(self.suite, self.protocol)


class FigureSpec(NamedTuple):
    """A figure with one panel per column; without columns, accuracy against severity."""

    title: str
    columns: Sequence[str] = ()  # titles


class Study(NamedTuple):
    """The runs that answer a question, and the presentation of their results."""

    rows: Sequence[Row]
    evaluations: Sequence[Evaluation]
    columns: Sequence[Column]
    figure: FigureSpec
    size: "Size | None" = None  # of its runs, whichever is requested
    shows_gains: bool = False  # over the baseline, in all columns and not only in the first


class Size(NamedTuple):
    """The size of all runs."""

    name: str
    changes: Mapping[str, Any]
    description: str
    records: str = ""  # folder of the records of runs, in the repository; see `studies.records`


MEAN = Column("corrupted", "corruptions", 1, "accuracy", {"group": "mean19"})
SEVERITIES = tuple(Column(f"severity {s}", "corruptions", 1, "accuracy", {"severity": s}) for s in range(1, 6))
CLEAN = Column("clean", "clean", 1, "accuracy")
