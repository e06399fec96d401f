"""Evaluated runs, and which of them are one method with other seeds."""

import dataclasses
import math
import reprlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anchor_jax.config import RESUMABLE_CHANGES, flatten
from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import storage
from anchor_jax.evaluation.results import Results, SuiteResult
from anchor_jax.runs import record as run_record
from anchor_jax.runs.record import Run

# what all runs of a comparison must share: predictions on other data say nothing of the method
_DATA = ("data.source", "data.name", "data.train_split", "data.test_split", "data.image_size")
# measured on the training set, less what a seed held out, so that runs of one method may differ a little
_MEASURED, _NEARLY = ("data.mean", "data.std"), 0.02


@dataclasses.dataclass(frozen=True)
class EvaluatedRun:
    """A run at its newest evaluated checkpoint.

    Attributes:
      run: its record.
      step: of the checkpoint.
      num_bins: of the calibration errors.
      suites: suite -> what it found.
    """

    run: Run
    step: int
    num_bins: int
    suites: Mapping[str, Results]

    @property
    def name(self) -> str:
        """Its folder, as it was given."""
        return str(self.run.workdir)

    @property
    def seed(self) -> int:
        """Of all its randomness."""
        return self.run.config.seed

    @property
    def anchored(self) -> bool:
        """Whether it has references; a standard network has none."""
        return self.run.config.anchoring.enabled

    def key(self, num_references: int) -> int:
        """Under which number its results are kept: 0 for a standard network."""
        return num_references if self.anchored else 0

    def found(self, suite: str, num_references: int) -> SuiteResult:
        """What a suite found with so many references, or with none for a standard network."""
        return self.suites[suite][self.key(num_references)]

    def facts(self, suite: str, num_references: int) -> Mapping[str, Any]:
        """How, where and on what that was measured."""
        return self.found(suite, num_references).facts


@dataclasses.dataclass(frozen=True)
class Method:
    """Runs that differ in their seed alone.

    Attributes:
      name: unique in a comparison.
      config: flat, the keys that make the method: without seed, place of the data, what `MAY_CHANGE`, and what has no
        effect, such as the masking of a standard network.
      runs: one a seed, in the order of the seeds.
    """

    name: str
    config: Mapping[str, Any]
    runs: tuple[EvaluatedRun, ...]

    @property
    def anchored(self) -> bool:
        """Whether its predictions are means over references."""
        return self.runs[0].anchored


def load(workdirs: Sequence[Path]) -> list[EvaluatedRun]:
    """The runs at their newest evaluated checkpoints, all with the same number of calibration bins.

    Args:
      workdirs: folders of runs, at least two.

    Raises:
      UserError: fewer than two folders, one without a run, a run that is not evaluated or whose results are damaged,
        or runs with other data or other calibration bins.
    """
    if len(workdirs) < 2:
        raise UserError(f"a comparison takes at least two runs; got {len(workdirs)}")
    records = [run_record.load(workdir) for workdir in workdirs]
    _check_same_data(records)
    newest = [_newest(record) for record in records]
    shared = set.intersection(*(set(by_bins) for _, by_bins in newest))
    if not shared:
        each = [
            f"{', '.join(map(str, sorted(by_bins)))} in '{record.workdir}'"
            for record, (_, by_bins) in zip(records, newest, strict=True)
        ]
        raise UserError(
            f"the runs have no number of calibration bins in common: {'; '.join(each)}; evaluate them alike with "
            "eval.py --num_bins"
        )
    own = records[0].config.evaluation.num_bins
    num_bins = own if own in shared else min(shared)
    return [
        EvaluatedRun(record, step, num_bins, by_bins[num_bins])
        for record, (step, by_bins) in zip(records, newest, strict=True)
    ]


def grouped(runs: Sequence[EvaluatedRun]) -> list[Method]:
    """The methods of these runs, the baseline first: the first standard one, or the first of all.

    Raises:
      UserError: two runs of one method have the same seed.
    """
    groups: list[tuple[dict[str, Any], list[EvaluatedRun]]] = []
    for one in runs:
        config = effective(flatten(one.run.config))
        of_config = next((members for known, members in groups if _same_method(known, config)), None)
        if of_config is None:
            groups.append((config, [one]))
        else:
            of_config.append(one)
    for _, members in groups:
        _check_seeds(members)
    groups.sort(key=lambda group: group[0]["anchoring.enabled"])  # stable: standard networks come first
    return [
        Method(name, config, tuple(sorted(members, key=lambda one: one.seed)))
        for name, (config, members) in zip(_names([config for config, _ in groups]), groups, strict=True)
    ]


def kind_of(config: Mapping[str, Any]) -> str:
    """What the paper calls a method: "standard", "anchored" or "anchored + masking"."""
    if not config["anchoring.enabled"]:
        return "standard"
    return "anchored + masking" if config["anchoring.mask_prob"] else "anchored"


def evaluating(workdir: Path | str, suite: str, num_references: int | None = None) -> str:
    """The command that evaluates a run, for messages."""
    references = f" --num_references {num_references}" if num_references else ""
    return f"python eval.py --workdir {shlex.quote(str(workdir))} --suites {suite}{references}"


def _newest(record: Run) -> tuple[int, dict[int, Mapping[str, Results]]]:
    """The highest evaluated step, and by number of calibration bins what was found there."""
    for step, folders in storage.checkpoint_folders(record.workdir).items():
        by_bins: dict[int, Mapping[str, Results]] = {
            num_bins: storage.read(folder) for num_bins, folder in folders.items()
        }
        if by_bins := {num_bins: suites for num_bins, suites in by_bins.items() if suites}:
            return step, by_bins
    raise UserError(f"'{record.workdir}' is not evaluated; run {evaluating(record.workdir, 'clean', 10)}")


def _check_same_data(records: Sequence[Run]) -> None:
    first, *others = records
    for other in others:
        for (what, expected), given in zip(_data_of(first).items(), _data_of(other).values(), strict=True):
            if given != expected:
                raise UserError(
                    f"runs on other data cannot be compared: {what} of '{first.workdir}' is {reprlib.repr(expected)}, "
                    f"of '{other.workdir}' {reprlib.repr(given)}"
                )


def _data_of(record: Run) -> dict[str, Any]:
    config = flatten(record.config)
    of_config = {f"config.{key}": config[key] for key in _DATA}
    return of_config | {"the image shape": record.image_shape, "the list of classes": record.label_names}


def _check_seeds(members: Sequence[EvaluatedRun]) -> None:
    by_seed: dict[int, EvaluatedRun] = {}
    for one in members:
        if other := by_seed.get(one.seed):
            raise UserError(
                f"'{other.name}' and '{one.name}' are the same run: config and seed {one.seed} are equal; give one"
            )
        by_seed[one.seed] = one


def effective(flat: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a method, of a flat config: without the seed, and keys that have no effect in it."""
    dropped = {"seed", "data.path"}
    if not flat["anchoring.enabled"]:
        dropped |= {key for key in flat if key.startswith("anchoring.") and key != "anchoring.enabled"}
    elif not flat["anchoring.mask_prob"]:
        dropped |= {"anchoring.mask_per", "anchoring.masked_target", "anchoring.update_bn_when_masked"}
    elif flat["anchoring.mask_per"] != "batch":
        dropped |= {"anchoring.update_bn_when_masked"}
    return {key: value for key, value in flat.items() if key not in dropped and not key.startswith(RESUMABLE_CHANGES)}


def _same_method(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and not any(_differs(key, one[key], other[key]) for key in one)


def _differs(key: str, one: Any, other: Any) -> bool:
    if key in _MEASURED and len(one) == len(other):
        return not all(math.isclose(a, b, rel_tol=_NEARLY) for a, b in zip(one, other, strict=True))
    return one != other


def _names(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the paper calls each method, and all else in which it differs from another, so that names are unique."""
    told = {"anchoring.enabled", "anchoring.mask_prob"}
    differing = []
    for key in dict.fromkeys(key for config in configs for key in config if key not in told):
        # an option that a config does not name has its default; one of anchoring that it lacks has no effect in it
        values = [config.get(key) for config in configs if key in config or not key.startswith("anchoring.")]
        if any(_differs(key, value, values[0]) for value in values[1:]):
            differing.append(key)
    names = []
    for config in configs:
        name = kind_of(config) + (f" ({config['anchoring.mask_prob']})" if config.get("anchoring.mask_prob") else "")
        keys = [key for key in differing if key in config or not key.startswith("anchoring.")]
        names.append(", ".join([name, *(f"{_short(key)}={config.get(key, 'default')}" for key in keys)]))
    return names


def _short(key: str) -> str:
    """The last part of a key; the last two where that alone says too little."""
    *_, group, last = key.split(".")
    return f"{group}.{last}" if last in ("name", "mean", "std") else last
