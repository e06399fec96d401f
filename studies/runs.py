"""The runs of a study: their folders, the commands that make them, and what of that is done, as the folders tell."""

import dataclasses
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from anchor_jax.config import MAY_CHANGE, Config, base, flatten
from anchor_jax.errors import UserError
from anchor_jax.evaluation import found
from anchor_jax.evaluation.found import ASKED, TRANSDUCED, SuiteResult
from anchor_jax.training import run
from anchor_jax.training.loop import Length
from anchor_jax.training.supply import open_supply
from studies.tables import ANOMALIES, Ask, Row, Size, Study

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """One run: a row of a study with a seed.

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
        changes = (f"{key.rpartition('.')[2]}={value}" for key, value in self.row.changes.items())
        return "-".join([self.row.config, *changes, f"seed{self.seed}"])

    @property
    def workdir(self) -> Path:
        """Its folder."""
        return self.folder / self.name

    @cached_property
    def changes(self) -> dict[str, Any]:
        """Of the config: key -> value."""
        return {**self.size.changes, **self.row.changes, "seed": self.seed}

    @cached_property
    def config(self) -> Config:
        """Complete, but for what is measured on the data."""
        config = runpy.run_path(str(ROOT / "configs" / f"{self.row.config}.py"))["get_config"]()
        config.update_from_flattened_dict(self.changes)
        return config

    @property
    def training(self) -> list[str]:
        """The command that trains it, or goes on with it."""
        changes = (f"--config.{key}={value}" for key, value in self.changes.items())
        return [sys.executable, "train.py", f"--config=configs/{self.row.config}.py", *changes, self._workdir]

    def evaluation(self, ask: Ask) -> list[str]:
        """The command that asks it."""
        flags = {
            "suites": ",".join(ask.suites),
            "num_references": ",".join(map(str, ask.num_references)),
            "protocol": ask.protocol,
        } | ({"ood": ",".join(self._anomalies)} if "ood" in ask.suites else {})
        return [sys.executable, "eval.py", self._workdir, *(f"--{name}={value}" for name, value in flags.items())]

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
    def evaluated(self) -> Mapping[str, SuiteResult]:
        """What its suites have found at its end."""
        bins = self.config.evaluation.num_bins
        return found.read(self.workdir / "eval" / f"step{self._length.total_steps}-bins{bins}")

    @property
    def _workdir(self) -> str:
        return f"--workdir={self.workdir}"

    @property
    def _anomalies(self) -> tuple[str, ...]:
        name = f"tfds:{ANOMALIES[self.config.data.name]}"
        return (f"near={name}" if self.size.test_split == "test" else f"near={name}@{self.size.test_split}",)

    @property
    def _length(self) -> Length:
        return Length.of(self.config, _num_examples(tuple(self.config.data.items())))

    def _is_trained(self) -> bool:
        if not (self.workdir / run.RECORD).exists():
            return False
        recorded, expected = (flatten(config) for config in (run.load(self.workdir).config, self.config))
        for key, value in expected.items():
            measured = key in ("data.mean", "data.std") and not value
            if not measured and not key.startswith(MAY_CHANGE) and recorded.get(key) != value:
                raise UserError(
                    f"'{self.workdir}' holds another run: config.{key} is {recorded.get(key)!r} there, and {value!r} "
                    "in studies/tables.py; move it away, or give another --out"
                )
        return (self.workdir / "checkpoints" / str(self._length.total_steps)).exists()

    def _is_answered(self, ask: Ask) -> bool:
        suffix = TRANSDUCED if ask.protocol == "blt" else ""
        numbers = ask.num_references if self.config.anchoring.enabled else (0,)
        options = {"ood": list(self._anomalies)}
        for suite in ask.suites:
            answers = self.evaluated.get(suite + suffix)
            for num in numbers:
                if not answers or num not in answers.results:
                    return False
                asked = answers.facts_of[num].get(ASKED, {})
                if any(asked[name] != value for name, value in options.items() if name in asked):
                    return False
        return True


def runs_of(study: Study, size: Size, folder: Path) -> list[StudyRun]:
    """All runs of a study, the first seed of every row before the second."""
    seeds = {row.name: row.seeds if size.name == "full" else row.reduced_seeds for row in study.rows}
    return [
        StudyRun(row, seed, size, folder)
        for seed in range(max(seeds.values()))
        for row in study.rows
        if seed < seeds[row.name]
    ]


@cache
def _num_examples(data: tuple[tuple[str, Any], ...]) -> int:
    """Of the training set that a config's group `data` names."""
    config = base()
    config.data.update(dict(data))
    supply, _ = open_supply(config)
    supply.close()
    return supply.num_examples
