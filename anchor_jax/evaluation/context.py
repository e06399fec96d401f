"""What is evaluated: a run at one checkpoint, its data, and the options of the caller."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.data import CorruptedSet, Dataset, EvalDataset, open_dataset, open_test
from anchor_jax.data.limiting import limit_corrupted, limit_dataset
from anchor_jax.data.loading import name_of
from anchor_jax.evaluation.options import CommonOptions, SuiteOptions
from anchor_jax.evaluation.prediction_files import RecordedSet, Recorder
from anchor_jax.evaluation.predictions import PredictionTable, predict_dataset, predict_pairs
from anchor_jax.evaluation.temperature import fit_temperature, require_held_out
from anchor_jax.evaluation.transduction import Transduction, create_transduction
from anchor_jax.runs.data_location import explain_moved_data
from anchor_jax.runs.fingerprint import fingerprints
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runs.record import Run
from anchor_jax.runtime import multihost
from anchor_jax.runtime.paths import printable
from anchor_jax.training.source import TrainSource, open_source

_RESERVED = ("far", "in", "near")  # names of groups of datasets
_CACHED_BYTES = 2**30  # largest test set that stays in memory

_Options = TypeVar("_Options", bound=SuiteOptions)


class EvalSettings(NamedTuple):
    """Settings of an evaluation, which may differ from those in the config of the run."""

    num_bins: int  # of the calibration errors
    chunk_size: int  # references computed at once; 0: as many as fill a batch


@short_repr
@dataclasses.dataclass(frozen=True)
class EvalContext:
    """A run at one checkpoint.

    Attributes:
      run: its record.
      step: step of the checkpoint.
      predictor: with the variables of the checkpoint.
      options: of the caller.
      settings: of this evaluation.
      members: JSON values about the members of an ensemble, empty for a run.
      recorder: takes the predictions that are to be written.
    """

    run: Run
    step: int
    predictor: Predictor
    options: CommonOptions
    settings: EvalSettings
    members: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    recorder: Recorder = dataclasses.field(default_factory=Recorder)

    @property
    def num_bins(self) -> int:
        """Number of bins of the calibration errors."""
        return self.settings.num_bins

    def options_of(self, kind: type[_Options]) -> _Options:
        """Return the options of one suite.

        Args:
          kind: class of the options, a base class of that of `options`.
        """
        return kind(**{field.name: getattr(self.options, field.name) for field in dataclasses.fields(kind)})

    @cached_property
    def whole_test(self) -> EvalDataset:
        """The test set of the run, without a limit; a small one is decoded once and stays in memory."""
        data = self.run.config.data, self.run.label_names, self.run.image_shape
        with explain_moved_data(self.run, "--data_path"):
            return open_test(*data, keep_bytes=0 if self.options.limit else _CACHED_BYTES)

    @cached_property
    def test(self) -> EvalDataset:
        """What is evaluated of the test set of the run."""
        part = self.limited(self.whole_test)
        return part.in_memory() if self.options.limit and _fits_in_memory(part) else part

    @property
    def known_clean(self) -> EvalDataset:
        """The images that a corrupted set must not consist of: all test images, unless it would take long."""
        return self.whole_test if _fits_in_memory(self.whole_test) else self.test

    def limited(self, dataset: EvalDataset) -> EvalDataset:
        """Return the examples of a dataset that the limit of the caller leaves; print once how many."""
        options = self.options
        if not options.limit:
            return dataset
        part = limit_dataset(dataset, options.limit, options.seed)
        name = " ".join(filter(None, (dataset.name, dataset.split if dataset.split != dataset.name else "")))
        self._tell_limit(name, part.num_examples, dataset.num_examples, _missing_classes(dataset, part))
        return part

    def limited_corrupted(self, corrupted: CorruptedSet) -> CorruptedSet:
        """Return the examples that the limit leaves, the same of every corruption and severity; print how many."""
        options = self.options
        if not options.limit:
            return corrupted
        part = limit_corrupted(corrupted, options.limit, options.seed)
        self._tell_limit(f"each part of {corrupted.name}", part.num_examples, corrupted.num_examples)
        return part

    @property
    def is_limited(self) -> bool:
        """Whether the limit of the caller has left out examples of a dataset that has been opened."""
        return any(num < whole for _, num, whole in self._limits)

    @cached_property
    def _limits(self) -> set[tuple[str, int, int]]:
        """Datasets, which may have the same name: number of examples that are evaluated, and of all."""
        return set()

    def _tell_limit(self, name: str, num: int, whole: int, remark: str = "") -> None:
        if (name, num, whole) in self._limits:
            return
        self._limits.add((name, num, whole))
        if multihost.is_primary():
            how = f"{num:,} of {whole:,} images{remark}" if num < whole else f"the whole set, {whole:,} images"
            print(f"limit {self.options.limit:,}, {printable(name)}: {how}")

    def is_test(self, dataset: object) -> bool:
        """Return whether a dataset is the test set of the run, without opening that."""
        return dataset is self.__dict__.get("test")

    @property
    def test_name(self) -> str:
        """The name of the test set in results."""
        return name_of(self.run.config.data)

    def open(self, spec: str, **options: Any) -> EvalDataset:
        """Open a dataset, its images converted like those of the run; see `data.open_dataset`."""
        data = self.run.config.data
        like = {
            "crop_fraction": data.crop_fraction,
            "interpolation": data.interpolation,
            "resizing": data.resizing,
            "orientation": data.orientation,
            "channels": data.channels,
        }
        opened = open_dataset(spec, image_shape=self.run.image_shape, tfds_dir=self.tfds_dir, **like, **options)
        return self.limited(opened)

    def open_all(self, specs: tuple[str, ...], **options: Any) -> list[EvalDataset]:
        """Open several datasets.

        Raises:
          UserError: two have the same name, or one has a reserved name.
        """
        streams = [self.open(spec, **options) for spec in specs]
        names = [stream.name for stream in streams]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(
                f"datasets must have different names; got '{repeated[0]}' twice; rename or link one of them"
            )
        if reserved := sorted(set(names) & set(_RESERVED)):
            raise UserError(
                f"dataset names must not be {', '.join(_RESERVED)}; got '{reserved[0]}'; rename or link the dataset"
            )
        return streams

    @property
    def tfds_dir(self) -> str:
        """Folder of prepared TFDS datasets, if the config of the run names one; else empty."""
        data = self.run.config.data
        return data.path if data.source == "tfds" else ""

    @cached_property
    def train(self) -> tuple[TrainSource, Dataset | None]:
        """The training set of the run, and the part of it that was held out."""
        with explain_moved_data(self.run, "--data_path"):
            return open_source(self.run.config, self.run.label_names)

    def warn_of_other_data(self) -> None:
        """Warn if the data that have been opened are not those that the run recorded at training."""
        if not multihost.is_primary():
            return
        run, path = self.run, self.run.config.data.path
        where = f"config.data.test_split='{run.config.data.test_split}' of '{path or run.config.data.source}'"
        if "whole_test" in self.__dict__ and run.test_data and self.whole_test.content() != run.test_data:
            warnings.warn(
                f"the test set, {where}, is not the one that the run had at training: its content differs; the results "
                "are stored as those of other data",
                stacklevel=2,
            )
        if "train" in self.__dict__ and self.training_identity != run.data:
            warnings.warn(
                f"the training set at '{path}' is not that of the run: it has {self.training_identity}, and the run "
                f"recorded {run.data}",
                stacklevel=2,
            )

    @cached_property
    def held_out(self) -> EvalDataset:
        """What temperature scaling is fitted to.

        Raises:
          UserError: the run held out nothing.
        """
        return self.limited(require_held_out(self.train))

    @cached_property
    def training_identity(self) -> str:
        """What identifies the training set; see `TrainSource.identity`."""
        return self.train[0].identity()

    @cached_property
    def fingerprints(self) -> dict[str, int]:
        """Fingerprints of the variables of the network, which are the same for all suites."""
        return fingerprints(self.predictor.variables)

    @cached_property
    def transduction(self) -> Transduction:
        """The candidates of bilinear transduction."""
        return create_transduction(self.run, self.train[0], self.options.blt_references, self.options.seed)

    def temperature(self, num_references: int) -> float | None:
        """Return the temperature of temperature scaling, fitted once; None without temperature scaling."""
        if not self.options.temperature_scaling:
            return None
        if num_references not in self._temperatures:
            self._temperatures[num_references] = fit_temperature(self.predictor, self.held_out, num_references)
        return self._temperatures[num_references]

    @cached_property
    def _temperatures(self) -> dict[int, float]:
        return {}

    def predict(self, stream: EvalDataset, num_references: int, **options: Any) -> PredictionTable:
        """Predict a dataset with the protocol of the caller; see `predictions.predict_dataset`."""
        if self.options.protocol == "blt":
            return self.predict_transduced(stream, **options)
        return predict_dataset(self.predictor, stream, num_references, **options)

    def predict_recorded(
        self,
        stream: EvalDataset,
        num_references: int,
        *,
        dataset: str = "",
        corruption: str | None = None,
        severity: int | None = None,
        anomaly: bool | None = None,
        **options: Any,
    ) -> PredictionTable:
        """Predict a dataset as `predict` does, and record the predictions if they are to be written.

        Args:
          stream: the dataset.
          num_references: K.
          dataset: its name in the file; by default that in results.
          corruption: of its images.
          severity: of the corruption.
          anomaly: whether its images are anomalies, which have no label; None outside of the detection of anomalies.
          **options: of `predictions.predict_dataset`.
        """
        table = self.predict(stream, num_references, keep_probs=self.recorder.is_recording, **options)
        if self.recorder.is_recording:
            name = dataset or (self.test_name if self.is_test(stream) else stream.name)
            of = RecordedSet(name, stream, options.get("classes"), corruption, severity, anomaly)
            self.recorder.add(of, table)
        return table._replace(probs=None)

    def predict_transduced(self, stream: EvalDataset, **options: Any) -> PredictionTable:
        """Predict a dataset with the reference that bilinear transduction chooses for each image."""
        return predict_pairs(self.predictor, self.transduction.paired(stream), **options)


def _fits_in_memory(dataset: EvalDataset) -> bool:
    return dataset.num_examples * math.prod(dataset.image_shape) <= _CACHED_BYTES


def _missing_classes(dataset: EvalDataset, part: EvalDataset) -> str:
    """Return a remark if some classes have examples in a dataset, but none in its part; otherwise ""."""
    if part is dataset:
        return ""
    present = len(np.unique(dataset.labels()))
    missing = present - len(np.unique(part.labels()))
    return f", none of {missing:,} of the {present:,} classes" if missing else ""
