"""The runs of a study: their folders, the commands that create them, and which commands are still needed."""

import dataclasses
import itertools
import json
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from anchor_jax.config import RENAMED_KEYS, Config, base, flatten
from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import storage, suites
from anchor_jax.evaluation.options import TransductionOption
from anchor_jax.evaluation.results import Results, SuiteResult
from anchor_jax.reporting.comparison.methods import effective_config
from anchor_jax.runs import record as run_record
from anchor_jax.runs.training_log import read_metrics
from anchor_jax.training.schedule import TrainingSchedule
from anchor_jax.training.source import open_source
from studies import records
from studies.definitions import FULL, NEAR_OOD
from studies.running import Job
from studies.study import Ensemble, Evaluation, Row, Size, Study

ROOT = Path(__file__).parents[1]

_FORMER_KEYS = {new: old for old, new in RENAMED_KEYS.items()}


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
        """Return the name of its folder, which is the same for the same run of another study."""
        return self._name(self.row.changes)

    @property
    def workdir(self) -> Path:
        """Return its folder; if only one under former names of config keys exists, return that."""
        former = self.folder / self._name({_FORMER_KEYS.get(key, key): val for key, val in self.row.changes.items()})
        current = self.folder / self.name
        return former if former.exists() and not current.exists() else current

    @cached_property
    def changes(self) -> dict[str, Any]:
        """Return the changes to the config: key -> value."""
        changes = {**self.size.changes, **self.row.changes, "seed": self.seed}
        if self.row.epochs != 1:
            config = self._config_with(changes)
            changes["training.total_epochs"] = config.training.total_epochs * self.row.epochs
            changes["optimizer.warmup_epochs"] = config.optimizer.warmup_epochs * self.row.epochs
            milestones = config.optimizer.milestones_epochs
            changes["optimizer.milestones_epochs"] = tuple(epoch * self.row.epochs for epoch in milestones)
        return changes

    @cached_property
    def config(self) -> Config:
        """Return the config, complete except for values that are measured on the data."""
        return self._config_with(self.changes)

    @property
    def train_command(self) -> list[str]:
        """Return the command that trains the run or resumes it."""
        overrides = (f"--config.{key}={value}" for key, value in self.changes.items())
        config, workdir = f"--config=configs/{self.row.config}.py", f"--workdir={self.workdir}"
        return [sys.executable, "train.py", config, *overrides, workdir]

    def eval_command(self, evaluation: Evaluation) -> list[str]:
        """Return the command of an evaluation."""
        flags = _suite_flags(self, evaluation) | {
            "num_references": ",".join(map(str, evaluation.num_references)),
            "protocol": evaluation.protocol,
            **evaluation.options,
        }
        scaled = ["--temperature_scaling"] if evaluation.temperature_scaling and self.row.is_scaled else []
        return [sys.executable, "eval.py", f"--workdir={self.workdir}", *_format_flags(flags), *scaled]

    def missing_commands(self, evaluations: Sequence[Evaluation]) -> Iterator[list[str]]:
        """Yield the commands still to be run; each is determined from the folder when it is requested.

        Raises:
          UserError: the folder contains another run, or corrupt files.
        """
        is_needed = not evaluations or not all(map(self._is_evaluated, evaluations))
        if is_needed and not self._is_trained():
            yield self.train_command
        for evaluation in evaluations:
            if not self._is_evaluated(evaluation):
                yield self.eval_command(evaluation)
                save_record(self)

    @property
    def results(self) -> Mapping[str, Results]:
        """Return the results of the final checkpoint, by storage name of the suite and number of references.

        Raises:
          UserError: the folder or the record are those of another run, or corrupt.
        """
        return _with_recorded(self, self.results_of_folder)

    @property
    def results_of_folder(self) -> Mapping[str, Results]:
        """Return the results in the folder of the run, with their arrays."""
        if not self._has_started:
            return {}
        steps, bins = self._schedule.total_steps, self.config.evaluation.num_bins
        return storage.read(storage.checkpoint_folder(self.workdir, steps, bins))

    @property
    def training_seconds(self) -> float:
        """Return the time of all training steps, without compilation; 0 without a folder or a record."""
        if not self._has_started:
            record = read_record(self)
            return record.training_seconds if record else 0.0
        seconds, last_step = 0.0, 0
        for step, speed in zip(*read_metrics(self.workdir).get("train/images_per_second", ((), ())), strict=True):
            if speed:
                seconds += (step - last_step) * self.config.training.batch_size / speed
                last_step = step
        return seconds

    @property
    def networks(self) -> "Sequence[StudyRun]":
        """Return the runs whose networks predict: this one."""
        return (self,)

    def stored_num_references(self, num_references: int) -> int:
        """Return the number under which results are stored: 0 for a standard network."""
        return (self.row.num_references or num_references) if self.config.anchoring.enabled else 0

    @property
    def ood_datasets(self) -> tuple[str, ...]:
        """Return the value of eval.py's --ood."""
        name = f"tfds:{NEAR_OOD[self.config.data.name]}"
        split = self.size.changes.get("data.test_split")
        near = f"near={name}@{split}" if split else f"near={name}"
        return near, "far=photographs"

    def _name(self, changes: Mapping[str, Any]) -> str:
        epochs = [f"epochs={self.row.epochs}"] if self.row.epochs != 1 else []
        values = (f"{key.rpartition('.')[2]}={value}" for key, value in changes.items())
        return "-".join([self.row.config, *values, *epochs, f"seed{self.seed}"])

    @property
    def _schedule(self) -> TrainingSchedule:
        return TrainingSchedule.from_config(self.config, _num_examples(tuple(self.config.data.items())))

    def _config_with(self, changes: Mapping[str, Any]) -> Config:
        config = runpy.run_path(str(ROOT / "configs" / f"{self.row.config}.py"))["get_config"]()
        config.update_from_flattened_dict(changes)
        return config

    def _is_trained(self) -> bool:
        return self._has_started and (self.workdir / "checkpoints" / str(self._schedule.total_steps)).exists()

    @property
    def _has_started(self) -> bool:
        """Return whether the folder contains this run; raise a `UserError` if it contains another."""
        if not (self.workdir / run_record.RECORD).exists():
            return False
        recorded, expected = (
            effective_config(flatten(config)) for config in (run_record.load(self.workdir).config, self.config)
        )
        for key, value in expected.items():
            is_measured = key in ("data.mean", "data.std") and not value
            if not is_measured and recorded.get(key) != value:
                raise UserError(
                    f"'{self.workdir}' contains another run: config.{key} is {recorded.get(key)!r}, but {value!r} in "
                    "studies/definitions.py; move the folder, or use another --out"
                )
        return True

    def _is_evaluated(self, evaluation: Evaluation) -> bool:
        options = {"temperature_scaling": evaluation.temperature_scaling and self.row.is_scaled, **evaluation.options}
        nums = evaluation.num_references if self.config.anchoring.enabled else (0,)
        return _has_results(self.results, evaluation, nums, options | _ood_option(self, evaluation))


@dataclasses.dataclass(frozen=True)
class EnsembleRun:
    """A row of a study that averages predictions without references; has the interface of `StudyRun`.

    Attributes:
      row: of the study.
      seed: under which its results are reported; ensembles with different seeds share no network.
      networks: the runs whose networks predict.
      ensemble: what the members are.
    """

    row: Row
    seed: int
    networks: Sequence[StudyRun]
    ensemble: Ensemble

    @property
    def name(self) -> str:
        """Return the name of its folder."""
        return f"{self.networks[0].name}-{self.ensemble.kind}{self.ensemble.members}"

    def missing_commands(self, evaluations: Sequence[Evaluation]) -> Iterator[list[str]]:
        """Yield the commands still to be run after its networks are trained."""
        first, members = self.networks[0], self.ensemble.members
        for evaluation in evaluations:
            if not _has_results(self.results, evaluation, (members,), _ood_option(first, evaluation)):
                yield [
                    *(sys.executable, "-m", "studies.pool", f"--kind={self.ensemble.kind}", f"--out={self._folder}"),
                    *(f"--members={members}", *_format_flags(_suite_flags(first, evaluation))),
                    *(str(network.workdir) for network in self.networks),
                ]
                save_record(self)

    @property
    def results(self) -> Mapping[str, Results]:
        """Return the results, by name of the suite and number of members; see `StudyRun.results`."""
        return _with_recorded(self, self.results_of_folder)

    @property
    def results_of_folder(self) -> Mapping[str, Results]:
        """Return the results in the folder of the ensemble."""
        return storage.read(self._folder)

    @property
    def training_seconds(self) -> float:
        """Return the time of all training steps of its networks."""
        return sum(network.training_seconds for network in self.networks)

    def stored_num_references(self, num_references: int) -> int:
        """Return the number under which results are stored: that of the members."""
        del num_references
        return self.ensemble.members

    @property
    def _folder(self) -> Path:
        return self.networks[0].folder / self.name


def read_record(run: StudyRun | EnsembleRun) -> records.Record | None:
    """Return the record of a run; None if there is none, or its size has no records.

    Raises:
      UserError: it is the record of another run.
    """
    file = _record_file(run)
    if file is None or not file.exists():
        return None
    record, expected = records.load(file), _defining_config(run)
    for key in {**expected, **record.config}:
        if record.config.get(key) != expected.get(key):
            raise UserError(
                f"'{file}' is the record of another run: config.{key} is {record.config.get(key)!r}, but "
                f"{expected.get(key)!r} in studies/; move it away"
            )
    return record


def save_record(run: StudyRun | EnsembleRun) -> None:
    """Write what the folder of a run holds into its record, beside what that holds; nothing without a folder."""
    file = _record_file(run)
    if file is not None and run.results_of_folder:
        records.save(file, records.Record(_defining_config(run), run.training_seconds, run.results))


def _with_recorded(run: StudyRun | EnsembleRun, results: Mapping[str, Results]) -> dict[str, Results]:
    record = read_record(run)
    return records.merge(record.results if record else {}, results)


def _record_file(run: StudyRun | EnsembleRun) -> Path | None:
    folder = run.networks[0].size.records
    return ROOT / folder / f"{run.row.record}-{run.seed}.json" if folder and run.row.record else None


def _defining_config(run: StudyRun | EnsembleRun) -> dict[str, Any]:
    """Return the keys that define a run and differ from the defaults, as JSON has them."""
    defaults, defining = flatten(base()), effective_config(flatten(run.networks[0].config)) | {"seed": run.seed}
    changed = {key: value for key, value in defining.items() if key not in defaults or value != defaults[key]}
    return json.loads(json.dumps(changed))


def create_runs(study: Study, size: Size, folder: Path) -> list[StudyRun | EnsembleRun]:
    """Return all runs of a study, the first seed of every row before the second."""
    is_full = size in (FULL, study.size)
    seeds = {row.name: row.seeds if is_full else row.reduced_seeds for row in study.rows}
    return [
        _create_run(row, seed, size, folder)
        for seed in range(max(seeds.values()))
        for row in study.rows
        if seed < seeds[row.name]
    ]


def create_jobs(studies: Mapping[str, Study], size: Size, folder: Path) -> tuple[list[Job], list[Job]]:
    """Return the jobs still to be run: of single runs, then of ensembles; studies that share a run share its job."""
    single: dict[str, list[tuple[StudyRun, Sequence[Evaluation]]]] = {}
    ensembles: dict[str, list[tuple[EnsembleRun, Sequence[Evaluation]]]] = {}
    for study in studies.values():
        for run in create_runs(study, size, folder):
            if isinstance(run, EnsembleRun):
                ensembles.setdefault(run.name, []).append((run, study.evaluations))
                if any(run.missing_commands(study.evaluations)):  # otherwise its record or folder is complete
                    for network in run.networks:
                        single.setdefault(network.name, []).append((network, ()))
            else:
                single.setdefault(run.name, []).append((run, study.evaluations))
    return _missing_jobs(single, folder), _missing_jobs(ensembles, folder)


def _missing_jobs(runs: Mapping[str, Sequence[tuple[Any, Sequence[Evaluation]]]], folder: Path) -> list[Job]:
    def commands(name):
        return itertools.chain.from_iterable(run.missing_commands(evaluations) for run, evaluations in runs[name])

    return [Job(name, commands(name), folder / "logs" / f"{name}.txt") for name in runs if any(commands(name))]


def _create_run(row: Row, seed: int, size: Size, folder: Path) -> StudyRun | EnsembleRun:
    if not row.ensemble:
        return StudyRun(row, seed, size, folder)
    num_networks = row.ensemble.members if row.ensemble.kind == "ensemble" else 1
    seeds = range(seed * num_networks, (seed + 1) * num_networks)
    of_network = row._replace(record="")  # the record is that of the ensemble
    networks = [StudyRun(of_network, network_seed, size, folder) for network_seed in seeds]
    return EnsembleRun(row, seed, networks, row.ensemble)


def _has_results(
    results: Mapping[str, Results], evaluation: Evaluation, nums: Sequence[int], options: Mapping[str, Any]
) -> bool:
    """Return whether all suites have results for these numbers of references, measured with these options."""
    found = [results.get(name, {}).get(num) for name in evaluation.names for num in nums]
    return all(result is not None and has_options(result, options) for result in found)


def has_options(result: SuiteResult, options: Mapping[str, Any]) -> bool:
    """Return whether a result was measured with these options; those that its suite does not have do not count."""
    measured = result.facts.get("options", {})
    names = {field.name for field in dataclasses.fields(suites.find(result.suite).options)}
    if result.protocol == "blt":
        names |= {field.name for field in dataclasses.fields(TransductionOption)}
    return all(measured.get(name) == value for name, value in options.items() if name in names)


def _ood_option(run: StudyRun, evaluation: Evaluation) -> dict[str, list[str]]:
    return {"ood": list(run.ood_datasets)} if "ood" in evaluation.suites else {}


def _suite_flags(run: StudyRun, evaluation: Evaluation) -> dict[str, str]:
    """Return the flags that eval.py and `studies.pool` share."""
    ood = {name: ",".join(datasets) for name, datasets in _ood_option(run, evaluation).items()}
    return {"suites": ",".join(evaluation.suites)} | ood


def _format_flags(flags: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


@cache
def _num_examples(data: tuple[tuple[str, Any], ...]) -> int:
    """Return the number of training examples, given the items of a config's section `data`."""
    config = base()
    config.data.update(dict(data))
    source, _ = open_source(config)
    source.close()
    return source.num_examples
