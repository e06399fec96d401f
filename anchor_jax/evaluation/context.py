"""What is evaluated: a trained run at one checkpoint, its data, and what the caller chose."""

import dataclasses
import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.data import Dataset, EvalDataset, eval_dataset, load_test, open_dataset, open_test
from anchor_jax.evaluation.predictions import PredictionTable, predict_dataset, predict_pairs
from anchor_jax.evaluation.temperature import fit_temperature, require_held_out
from anchor_jax.evaluation.transduction import Transduction, create_transduction
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runs.record import Run
from anchor_jax.training.source import TrainSource, open_source

PROTOCOLS = ("random", "blt")

_RESERVED = ("far", "in", "near")  # what the numbers of groups are called

_SMALL = 2**30  # bytes of images that may stay in memory


@dataclasses.dataclass(frozen=True)
class Options:
    """What a caller may choose; data sets are named as in `anchor_jax.data.open_spec`.

    Attributes:
      corruptions: published corrupted sets; "generated" is the run's own test set under the 19 corruptions, made on
        the device, "generated-c-bar" the same under the ten of C-bar.
      shift: sets of the run's classes from another distribution.
      ood: sets of other things; "near=..." and "far=..." put them into a group.
      probe: the set that a linear probe is fitted to (its split "train") and tested on ("test"), then sets of the
        same classes that it is tested on as well.
      temperature_scaling: fit a temperature on the part of the training set that the run held out.
      protocol: "random", references drawn once a run, or "blt", for each image the one bilinear transduction picks.
      blt_references: references among which BLT looks; 0: all of the run's bank.
      draws: of references in the suite of protocols.
      seed: of corruptions, draws and directions.
    """

    corruptions: tuple[str, ...] = ("generated",)
    shift: tuple[str, ...] = ()
    ood: tuple[str, ...] = ()
    probe: tuple[str, ...] = ()
    temperature_scaling: bool = False
    protocol: str = "random"
    blt_references: int = 1_000
    draws: int = 5
    seed: int = 0

    def __post_init__(self):
        checks.known("protocol", self.protocol, PROTOCOLS)
        for name in ("corruptions", "shift", "ood", "probe"):
            checks.several(name, getattr(self, name))
        for name, least in (("blt_references", 0), ("draws", 1), ("seed", 0)):
            checks.count(name, getattr(self, name), least)


class Finding(NamedTuple):
    """What a suite found with one number of references."""

    metrics: dict[str, float]
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class EvalContext:
    """A run at one checkpoint.

    Attributes:
      run: its record.
      step: of the checkpoint.
      predictor: with the variables of the checkpoint.
      options: of the caller.
      num_bins: of the calibration errors.
    """

    run: Run
    step: int
    predictor: Predictor
    options: Options
    num_bins: int

    @cached_property
    def test(self) -> EvalDataset:
        """The run's test set; a small one is decoded once, since many passes follow."""
        data = self.run.config.data, self.run.label_names, self.run.image_shape
        stream = open_test(*data)
        if stream.num_examples * math.prod(stream.image_shape) > _SMALL:
            return stream
        return eval_dataset(load_test(*data), stream.name)

    def open(self, spec: str, **options: Any) -> EvalDataset:
        """The data set that a string names, its images made like those of the run; see `data.open_spec`."""
        like = {"image_shape": self.run.image_shape, "crop_fraction": self.run.config.data.crop_fraction}
        return open_dataset(spec, tfds_dir=self.tfds_dir, **like, **options)

    def open_all(self, specs: tuple[str, ...], **options: Any) -> list[EvalDataset]:
        """Several data sets, refused where two would have one name in a report."""
        streams = [self.open(spec, **options) for spec in specs]
        names = [stream.name for stream in streams]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"data sets must differ in name; '{twice[0]}' is given twice; rename or link one of them")
        if reserved := sorted(set(names) & set(_RESERVED)):
            raise UserError(f"data sets must not be called {', '.join(_RESERVED)}; rename or link '{reserved[0]}'")
        return streams

    @property
    def tfds_dir(self) -> str:
        """Where prepared sets of tensorflow-datasets are, if the run says so."""
        data = self.run.config.data
        return data.path if data.source == "tfds" else ""

    @cached_property
    def train(self) -> tuple[TrainSource, Dataset | None]:
        """The run's training set, and what was held out of it."""
        return open_source(self.run.config)

    @cached_property
    def transduction(self) -> Transduction:
        """What bilinear transduction looks among."""
        return create_transduction(self.run, self.train[0], self.options.blt_references, self.options.seed)

    def temperature(self, num_references: int) -> float | None:
        """Of temperature scaling, if the caller chose it; fitted once."""
        if not self.options.temperature_scaling:
            return None
        if num_references not in self._temperatures:
            held_out = require_held_out(self.train)
            self._temperatures[num_references] = fit_temperature(self.predictor, held_out, num_references)
        return self._temperatures[num_references]

    @cached_property
    def _temperatures(self) -> dict[int, float]:
        return {}

    def predict(self, stream: EvalDataset, num_references: int, **options: Any) -> PredictionTable:
        """The table of a stream by the protocol that the caller chose, see `predictions.predict_dataset`."""
        if self.options.protocol == "blt":
            return self.predict_transduced(stream, **options)
        return predict_dataset(self.predictor, stream, num_references, **options)

    def predict_transduced(self, stream: EvalDataset, **options: Any) -> PredictionTable:
        """The table of a stream with the reference of bilinear transduction for each image."""
        return predict_pairs(self.predictor, self.transduction.paired(stream), **options)
