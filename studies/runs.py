"""The runs of a study: their folders, the commands that make them, and what of that is done, as the folders tell."""

import dataclasses
import itertools
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from anchor_jax.config import Config, base, flatten
from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import SUITES, storage
from anchor_jax.evaluation.results import Results
from anchor_jax.reporting.comparison.methods import effective_config
from anchor_jax.runs import record as run_record
from anchor_jax.training.loop import TrainingSchedule
from anchor_jax.training.source import open_source
from studies.definitions import ANOMALIES, FULL, Ask, Row, Size, Study
from studies.running import Job

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """A row of a study with one seed.

    Attributes:
      row: of the study.
      seed: of the run.
      size: of all runs.
      folder: of all runs of this size.
    """

    row: Row
    seed: int
    size: Size
    folder: Path

    @property
    def name(self) -> str:
        """Tells what it is, and is the same for the same run of another study."""
        epochs = [f"epochs={self.row.epochs}"] if self.row.epochs != 1 else []
        changes = (f"{key.rpartition('.')[2]}={value}" for key, value in self.row.changes.items())
        return "-".join([self.row.config, *changes, *epochs, f"seed{self.seed}"])

    @property
    def workdir(self) -> Path:
        """Its folder."""
        return self.folder / self.name

    @cached_property
    def changes(self) -> dict[str, Any]:
        """Of the config: key -> value."""
        changes = {**self.size.changes, **self.row.changes, "seed": self.seed}
        if self.row.epochs != 1:
            config = self._config_with(changes)
            changes["training.total_epochs"] = config.training.total_epochs * self.row.epochs
            milestones = config.optimizer.milestones_epochs
            changes["optimizer.milestones_epochs"] = tuple(epoch * self.row.epochs for epoch in milestones)
        return changes

    @cached_property
    def config(self) -> Config:
        """Complete, but for what is measured on the data."""
        return self._config_with(self.changes)

    @property
    def training(self) -> list[str]:
        """The command that trains it, or goes on with it."""
        changes = (f"--config.{key}={value}" for key, value in self.changes.items())
        return [sys.executable, "train.py", f"--config=configs/{self.row.config}.py", *changes, self._workdir]

    def evaluation(self, ask: Ask) -> list[str]:
        """The command that asks it."""
        flags = _flags(self, ask) | {
            "num_references": ",".join(map(str, ask.num_references)),
            "protocol": ask.protocol,
        }
        scaled = ["--temperature_scaling"] if ask.temperature_scaling and self.row.is_scaled else []
        return [sys.executable, "eval.py", self._workdir, *_told(flags), *scaled]

    def missing(self, asks: Sequence[Ask]) -> Iterator[list[str]]:
        """The commands that are still to be run, each as what is there then asks for it.

        Raises:
          UserError: the folder holds another run, or what is there is damaged.
        """
        if not self._is_trained():
            yield self.training
        for ask in asks:
            if not self._is_answered(ask):
                yield self.evaluation(ask)

    @property
    def evaluated(self) -> Mapping[str, Results]:
        """What its suites have found at its end."""
        if not self._is_begun:
            return {}
        bins = self.config.evaluation.num_bins
        return storage.read(self.workdir / "eval" / f"step{self._length.total_steps}-bins{bins}")

    @property
    def trained(self) -> "Sequence[StudyRun]":
        """The networks that answer: itself."""
        return (self,)

    def key(self, num_references: int) -> int:
        """Under which number its answers are kept: 0 for a standard network."""
        return (self.row.num_references or num_references) if self.config.anchoring.enabled else 0

    @property
    def anomalies(self) -> tuple[str, ...]:
        """What eval.py is given as --ood."""
        name = f"tfds:{ANOMALIES[self.config.data.name]}"
        split = self.size.changes.get("data.test_split")
        near = f"near={name}@{split}" if split else f"near={name}"
        return near, "far=photographs"

    @property
    def _workdir(self) -> str:
        return f"--workdir={self.workdir}"

    @property
    def _length(self) -> TrainingSchedule:
        return TrainingSchedule.of(self.config, _num_examples(tuple(self.config.data.items())))

    def _config_with(self, changes: Mapping[str, Any]) -> Config:
        config = runpy.run_path(str(ROOT / "configs" / f"{self.row.config}.py"))["get_config"]()
        config.update_from_flattened_dict(changes)
        return config

    def _is_trained(self) -> bool:
        return self._is_begun and (self.workdir / "checkpoints" / str(self._length.total_steps)).exists()

    @property
    def _is_begun(self) -> bool:
        """Whether the folder holds this run, from its first step to its last; refused where it holds another."""
        if not (self.workdir / run_record.RECORD).exists():
            return False
        recorded, expected = (
            effective_config(flatten(config)) for config in (run_record.load(self.workdir).config, self.config)
        )
        for key, value in expected.items():
            measured = key in ("data.mean", "data.std") and not value
            if not measured and recorded.get(key) != value:
                raise UserError(
                    f"'{self.workdir}' holds another run: config.{key} is {recorded.get(key)!r} there, and {value!r} "
                    "in studies/tables.py; move it away, or give another --out"
                )
        return True

    def _is_answered(self, ask: Ask) -> bool:
        options = {"temperature_scaling": ask.temperature_scaling and self.row.is_scaled}
        numbers = ask.num_references if self.config.anchoring.enabled else (0,)
        return _is_answered(self.evaluated, ask, numbers, options | _anomalies_of(self, ask))


@dataclasses.dataclass(frozen=True)
class PooledRun:
    """A row of a study whose predictions are pooled; see `StudyRun`, of which it takes the place.

    Attributes:
      row: of the study.
      seed: under which its numbers are told; ensembles of other seeds share no network.
      trained: the networks that answer.
    """

    row: Row
    seed: int
    trained: Sequence[StudyRun]

    @property
    def name(self) -> str:
        """Tells what it is."""
        pool = self._pool
        return f"{self.trained[0].name}-{pool.kind}{pool.members}"

    def missing(self, asks: Sequence[Ask]) -> Iterator[list[str]]:
        """The commands that are still to be run, once its networks are trained."""
        for ask in asks:
            if not _is_answered(self.evaluated, ask, (self._pool.members,), _anomalies_of(self.trained[0], ask)):
                yield [
                    *(sys.executable, "-m", "studies.pool", f"--kind={self._pool.kind}", f"--out={self._folder}"),
                    *(f"--members={self._pool.members}", *_told(_flags(self.trained[0], ask))),
                    *(str(one.workdir) for one in self.trained),
                ]

    @property
    def evaluated(self) -> Mapping[str, Results]:
        """What suites have found."""
        return storage.read(self._folder)

    def key(self, num_references: int) -> int:
        """Under which number its answers are kept, whatever the number of references of others."""
        del num_references
        return self._pool.members

    @property
    def _folder(self) -> Path:
        return self.trained[0].folder / self.name

    @property
    def _pool(self):
        assert self.row.pool
        return self.row.pool


def runs_of(study: Study, size: Size, folder: Path) -> list[StudyRun | PooledRun]:
    """All runs of a study, the first seed of every row before the second."""
    seeds = {row.name: row.seeds if size == FULL else row.reduced_seeds for row in study.rows}
    return [
        _run_of(row, seed, size, folder)
        for seed in range(max(seeds.values()))
        for row in study.rows
        if seed < seeds[row.name]
    ]


def jobs_of(studies: Mapping[str, Study], size: Size, folder: Path) -> tuple[list[Job], list[Job]]:
    """What is still to be done: of single runs, then of pools of them; what several studies ask of one is one job."""
    single: dict[str, list[tuple[StudyRun, Sequence[Ask]]]] = {}
    pooled: dict[str, list[tuple[PooledRun, Sequence[Ask]]]] = {}
    for study in studies.values():
        for one in runs_of(study, size, folder):
            if isinstance(one, PooledRun):
                pooled.setdefault(one.name, []).append((one, study.asks))
                for network in one.trained:
                    single.setdefault(network.name, []).append((network, ()))
            else:
                single.setdefault(one.name, []).append((one, study.asks))
    return _missing(single, folder), _missing(pooled, folder)


def _missing(asked: Mapping[str, Sequence[tuple[Any, Sequence[Ask]]]], folder: Path) -> list[Job]:
    def commands(name):
        return itertools.chain.from_iterable(one.missing(asks) for one, asks in asked[name])

    return [Job(name, commands(name), folder / "logs" / f"{name}.txt") for name in asked if any(commands(name))]


def _run_of(row: Row, seed: int, size: Size, folder: Path) -> StudyRun | PooledRun:
    if not row.pool:
        return StudyRun(row, seed, size, folder)
    num_networks = row.pool.members if row.pool.kind == "ensemble" else 1
    seeds = range(seed * num_networks, (seed + 1) * num_networks)
    return PooledRun(row, seed, [StudyRun(row, of_network, size, folder) for of_network in seeds])


def _is_answered(
    evaluated: Mapping[str, Results], ask: Ask, numbers: Sequence[int], options: Mapping[str, Any]
) -> bool:
    """Whether all that is asked was, with these numbers of references and options."""
    for suite, name in zip(ask.suites, ask.names, strict=True):
        answers = evaluated.get(name)
        for num in numbers:
            if not answers or num not in answers:
                return False
            asked = answers[num].facts.get("options", {})
            if any(
                asked.get(option.name) != options.get(option.name, asked.get(option.name))
                for option in dataclasses.fields(SUITES[suite].options)
            ):
                return False
    return True


def _anomalies_of(of: StudyRun, ask: Ask) -> dict[str, list[str]]:
    return {"ood": list(of.anomalies)} if "ood" in ask.suites else {}


def _flags(of: StudyRun, ask: Ask) -> dict[str, str]:
    """What eval.py and `studies.ensembles` are given alike."""
    return {"suites": ",".join(ask.suites)} | {name: ",".join(sets) for name, sets in _anomalies_of(of, ask).items()}


def _told(flags: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


@cache
def _num_examples(data: tuple[tuple[str, Any], ...]) -> int:
    """Of the training set that a config's group `data` names."""
    config = base()
    config.data.update(dict(data))
    supply, _ = open_source(config)
    supply.close()
    return supply.num_examples
