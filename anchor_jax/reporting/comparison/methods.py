"""Evaluated runs, grouped into methods: runs that differ only in their seed."""

import dataclasses
import math
import os
import reprlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anchor_jax.config import RESUMABLE_CHANGES, flatten
from anchor_jax.core.errors import UserError
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.data.labels import composed_name
from anchor_jax.data.orientation import STORED
from anchor_jax.evaluation import storage
from anchor_jax.evaluation.output import workdir_of
from anchor_jax.evaluation.results import Results, SuiteResult, parse_storage_name
from anchor_jax.runs import record as run_record
from anchor_jax.runs.record import Run
from anchor_jax.runtime.paths import storage_path
from anchor_jax.training.batch_norm import groups_share_masks

# what all runs of a comparison must share
_DATA = ("data.source", "data.name", "data.train_split", "data.test_split", "data.image_size")
# measured on the training set without the held-out part, which depends on the seed: runs of one method differ slightly
_MEASURED, _TOLERANCE = ("data.mean", "data.std"), 0.02


@short_repr
@dataclasses.dataclass(frozen=True)
class EvaluatedRun:
    """A run at its latest evaluated checkpoint.

    Attributes:
      run: the record of the run.
      step: step of the checkpoint.
      num_bins: bins of the calibration errors.
      suites: storage name -> number of references -> result.
      limit: of the images that were evaluated; 0 for all.
    """

    run: Run
    step: int
    num_bins: int
    suites: Mapping[str, Results]
    limit: int = 0

    @property
    def name(self) -> str:
        """The folder of the run, as given."""
        return str(self.run.workdir)

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.run.config.seed

    @property
    def anchored(self) -> bool:
        """Whether the network is anchored; a standard network has no references."""
        return self.run.config.anchoring.enabled

    def key(self, num_references: int) -> int:
        """Return the number of references that its results are stored under: 0 for a standard network."""
        return num_references if self.anchored else 0

    def result(self, suite: str, num_references: int) -> SuiteResult:
        """Return the result of a suite with that many references, or without any for a standard network."""
        return self.suites[suite][self.key(num_references)]

    def facts(self, suite: str, num_references: int) -> Mapping[str, Any]:
        """Return how, where and on which data it was measured."""
        return self.result(suite, num_references).facts

    def command(self, suite: str, num_references: int) -> str:
        """Return the command that evaluates it with that many references, on as many images."""
        return evaluation_command(self.run.workdir, suite, self.key(num_references), self.limit)


@short_repr
@dataclasses.dataclass(frozen=True)
class Method:
    """Runs that differ only in their seed.

    Attributes:
      name: unique within a comparison.
      config: flat, without the seed, the path of the data, `RESUMABLE_CHANGES`, and keys without an effect, such as the
        masking of a standard network.
      runs: one per seed, sorted by seed.
    """

    name: str
    config: Mapping[str, Any]
    runs: tuple[EvaluatedRun, ...]

    @property
    def anchored(self) -> bool:
        """Whether its networks are anchored."""
        return self.runs[0].anchored


def load(workdirs: Sequence[str | os.PathLike[str]], limit: int = 0) -> list[EvaluatedRun]:
    """Load runs at their latest evaluated checkpoints, all with the same number of calibration bins.

    Args:
      workdirs: folders of runs, or of results outside of them (`eval.py --out`), at least two.
      limit: of the images that were evaluated; 0 for results on all images.

    Raises:
      UserError: fewer than two folders, a folder without a run, a run that is not evaluated with this limit or whose
        results are corrupt, or runs with different data or calibration bins.
    """
    if len(workdirs) < 2:
        raise UserError(f"a comparison takes at least two runs; got {len(workdirs)}")
    folders = [storage_path("workdirs", workdir) for workdir in workdirs]
    records = [dataclasses.replace(run_record.load(workdir_of(each)), workdir=each) for each in folders]
    _check_same_data(records)
    latest = [_latest(record, limit) for record in records]
    shared = set.intersection(*(set(by_bins) for _, by_bins in latest))
    if not shared:
        each = [
            f"{', '.join(map(str, sorted(by_bins)))} in '{record.workdir}'"
            for record, (_, by_bins) in zip(records, latest, strict=True)
        ]
        raise UserError(
            f"the runs have no number of calibration bins in common: {'; '.join(each)}; evaluate them with the same "
            "eval.py --num_bins"
        )
    own = records[0].config.evaluation.num_bins
    num_bins = own if own in shared else min(shared)
    return [
        EvaluatedRun(record, step, num_bins, by_bins[num_bins], limit)
        for record, (step, by_bins) in zip(records, latest, strict=True)
    ]


def group_by_method(runs: Sequence[EvaluatedRun]) -> list[Method]:
    """Group runs by method, the baseline first: the first standard method, or the first of all.

    Raises:
      UserError: two runs of one method have the same seed.
    """
    groups: list[tuple[dict[str, Any], list[EvaluatedRun]]] = []
    for run in runs:
        config = effective_config(flatten(run.run.config))
        members = next((members for known, members in groups if _same_method(known, config)), None)
        if members is None:
            groups.append((config, members := []))
        if same := [other.name for other in members if other.seed == run.seed]:
            raise UserError(
                f"'{same[0]}' and '{run.name}' are the same run: config and seed {run.seed} are equal; give only one"
            )
        members.append(run)
    groups.sort(key=lambda group: group[0]["anchoring.enabled"])  # stable: standard networks come first
    return [
        Method(name, config, tuple(sorted(members, key=lambda run: run.seed)))
        for name, (config, members) in zip(_method_names([config for config, _ in groups]), groups, strict=True)
    ]


def differing_keys(methods: Sequence[Method]) -> dict[str, dict[str, str]]:
    """Return the keys of the config in which the runs differ, except for seeds and places of the data.

    Args:
      methods: of a comparison.

    Returns:
      key -> name of the method -> value; several if its runs differ, a dash if the key has no effect on it.
    """
    configs = {method.name: [flatten(run.run.config) for run in method.runs] for method in methods}
    every = [config for of in configs.values() for config in of]
    found: dict[str, dict[str, str]] = {}
    for key in dict.fromkeys(key for config in every for key in config):
        values = [config.get(key) for config in every]
        if key in ("seed", "data.path") or not any(_differs(key, value, values[0]) for value in values[1:]):
            continue
        found[key] = {
            method.name: ", ".join(dict.fromkeys(str(config.get(key, "default")) for config in configs[method.name]))
            if key in method.config or not key.startswith("anchoring.")
            else "–"
            for method in methods
        }
    return found


def method_kind(config: Mapping[str, Any]) -> str:
    """Return the paper's name of a method: "standard", "anchored" or "anchored + masking"."""
    if not config["anchoring.enabled"]:
        is_overlaid = config.get("anchoring.overlay_weight") and config["anchoring.mask_prob"]
        return "standard + overlay" if is_overlaid else "standard"
    return "anchored + masking" if config["anchoring.mask_prob"] else "anchored"


def evaluation_command(folder: Path, suite: str, num_references: int | None = None, limit: int | None = None) -> str:
    """Return the command that evaluates a run, given its folder, or one of its results outside of it."""
    parsed, workdir = parse_storage_name(suite), workdir_of(folder)
    others = " --protocol blt" if parsed.protocol == "blt" else ""
    others += f" --data SPEC_OF_{shlex.quote(parsed.dataset)}" if parsed.dataset else ""
    others += f" --num_references {num_references}" if num_references else ""
    others += f" --limit {limit}" if limit else ""
    others += f" --out {shlex.quote(str(folder))}" if workdir != folder else ""
    return f"python eval.py --workdir {shlex.quote(str(workdir))} --suites {parsed.suite}{others}"


def _latest(record: Run, limit: int) -> tuple[int, dict[int, Mapping[str, Results]]]:
    """Return the highest step that was evaluated with a limit, and its results by number of calibration bins."""
    for step, folders in storage.checkpoint_folders(record.workdir, limit).items():
        by_bins: dict[int, Mapping[str, Results]] = {
            num_bins: storage.read(folder) for num_bins, folder in folders.items()
        }
        if by_bins := {num_bins: suites for num_bins, suites in by_bins.items() if suites}:
            return step, by_bins
    command = evaluation_command(record.workdir, "clean", 10, limit)
    limits = [of for of in storage.limits_of(record.workdir) if of != limit]
    if not limits:
        raise UserError(f"'{record.workdir}' is not evaluated; run {command}")
    first, how = limits[0], " and ".join(f"with --limit {of}" if of else "on all images" for of in limits)
    wanted = f"with --limit {limit}" if limit else "on all images"
    raise UserError(
        f"'{record.workdir}' is only evaluated {how}, not {wanted}; compare {'with' if first else 'without'} --limit"
        f"{f' {first}' if first else ''}, or run {command}"
    )


def _check_same_data(records: Sequence[Run]) -> None:
    first, *others = records
    for other in others:
        for (what, expected), given in zip(_data_facts(first).items(), _data_facts(other).values(), strict=True):
            if given != expected:
                raise UserError(
                    f"runs on different data cannot be compared: {what} of '{first.workdir}' is "
                    f"{reprlib.repr(expected)}, of '{other.workdir}' {reprlib.repr(given)}"
                )


def _data_facts(record: Run) -> dict[str, Any]:
    config = flatten(record.config)
    of_config = {f"config.{key}": config[key] for key in _DATA}
    label_names = tuple(map(composed_name, record.label_names))
    return of_config | {"the image shape": record.image_shape, "the list of classes": label_names}


def effective_config(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a flat config that define a method: without the seed and keys that have no effect."""
    dropped = {"seed", "data.path", "data.mode", "data.channels"}  # the image shape, which must be equal, implies these
    if not _ignores_orientations(flat):
        dropped |= {"data.orientation"}
    if method_kind(flat) == "standard":
        dropped |= {key for key in flat if key.startswith("anchoring.") and key != "anchoring.enabled"}
    elif not flat["anchoring.enabled"]:
        dropped |= {"anchoring.masked_target"}
    elif not flat["anchoring.mask_prob"]:
        dropped |= {f"anchoring.{key}" for key in ("mask_per", "mask_draw", "masked_target", "update_bn_when_masked")}
    if flat["anchoring.enabled"]:
        dropped |= {"anchoring.overlay_weight"}
    if flat["anchoring.mask_per"] != "batch":
        dropped |= {"anchoring.mask_draw"}
        of_mask = flat["anchoring.mask_per"], flat["anchoring.group_size"]
        if not groups_share_masks(flat["training.bn_group_size"], *of_mask):
            dropped |= {"anchoring.update_bn_when_masked"}
    return {key: value for key, value in flat.items() if key not in dropped and not key.startswith(RESUMABLE_CHANGES)}


def _ignores_orientations(flat: Mapping[str, Any]) -> bool:
    """Return whether photographs are read as stored, and not upright; small images such as CIFAR's are upright."""
    may_be_photographs = flat["data.source"] == "folder" or (flat["data.source"] == "tfds" and flat["data.image_size"])
    return bool(may_be_photographs) and flat["data.orientation"] == STORED


def _same_method(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and not any(_differs(key, one[key], other[key]) for key in one)


def _differs(key: str, one: Any, other: Any) -> bool:
    if key in _MEASURED and len(one) == len(other):
        return not all(math.isclose(a, b, rel_tol=_TOLERANCE) for a, b in zip(one, other, strict=True))
    return one != other


def _method_names(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return unique names: the paper's name of each method, and the other keys in which the methods differ."""
    named = {"anchoring.enabled", "anchoring.mask_prob"}
    differing = []
    for key in dict.fromkeys(key for config in configs for key in config if key not in named):
        # a missing key has its default value, except that missing keys of anchoring have no effect
        values = [config.get(key) for config in configs if key in config or not key.startswith("anchoring.")]
        if any(_differs(key, value, values[0]) for value in values[1:]):
            differing.append(key)
    names = []
    for config in configs:
        name = method_kind(config) + (
            f" ({config['anchoring.mask_prob']})" if config.get("anchoring.mask_prob") else ""
        )
        keys = [key for key in differing if key in config or not key.startswith("anchoring.")]
        names.append(", ".join([name, *(f"{_short(key)}={config.get(key, 'default')}" for key in keys)]))
    return names


def _short(key: str) -> str:
    """Return the last part of a key, or the last two if that alone is ambiguous."""
    *_, group, last = key.split(".")
    return f"{group}.{last}" if last in ("name", "mean", "std") else last
