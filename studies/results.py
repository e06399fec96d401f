"""The numbers of a study, from the folders of its runs: each over seeds, and beside the standard network."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from anchor_jax.comparison.statistics import Difference, Summary, difference_over_seeds, summary
from studies.runs import StudyRun
from studies.tables import Column, Row, Study

# of how and where something was measured, what is told of it
_FACTS = ("devices", "host", "python", "versions")


class Entry(NamedTuple):
    """One number of a row."""

    summary: Summary
    difference: Difference | None  # to the standard network above it; None for that one, and without a shared seed


class Table(NamedTuple):
    """What is known of a study so far."""

    entries: Mapping[str, Mapping[str, Entry]]  # row -> column -> number; what is not measured is missing
    environments: Sequence[Mapping[str, Any]]  # all there were
    training_seconds: float
    evaluation_seconds: float


def measured(study: Study, runs: Sequence[StudyRun]) -> Table:
    """The numbers of all runs that are evaluated.

    Raises:
      UserError: what is in a folder is damaged, or of another run.
    """
    values: dict[str, dict[str, dict[int, float]]] = {row.name: {} for row in study.rows}
    environments, training, evaluation = [], 0.0, 0.0
    for one in runs:
        suites = one.evaluated
        for column in study.columns:
            value = _value(one, column, suites)
            if value is not None:
                values[one.row.name].setdefault(column.title, {})[one.seed] = value
        training += sum(_training_seconds(one)) if suites else 0.0
        for facts in (facts for suite in suites.values() for facts in suite.facts_of.values()):
            evaluation += facts["seconds"]
            environment = {name: facts[name] for name in _FACTS}
            if environment not in environments:
                environments.append(environment)
    baselines = _baselines(study.rows)
    entries = {
        name: {title: _entry(of_seeds, values[baselines[name]].get(title), name == baselines[name])
               for title, of_seeds in of_row.items()}
        for name, of_row in values.items()
    }  # fmt: skip
    return Table(entries, environments, training, evaluation)


def _value(one: StudyRun, column: Column, suites) -> float | None:
    number = column.num_references if one.config.anchoring.enabled else 0
    answers = suites.get(column.suite)
    return answers.results[number].metrics.get(column.metric) if answers and number in answers.results else None


def _baselines(rows: Sequence[Row]) -> dict[str, str]:
    """For each row the standard network that stands above it, itself for that; the first row where there is none."""
    baselines, newest = {}, rows[0].name
    for row in rows:
        if row.changes.get("anchoring.enabled") is False:
            newest = row.name
        baselines[row.name] = newest
    return baselines


def _entry(values: dict[int, float], baseline: dict[int, float] | None, is_baseline: bool) -> Entry:
    difference = difference_over_seeds(values, baseline) if baseline and not is_baseline else None
    return Entry(summary(values), difference)


def _training_seconds(one: StudyRun) -> Iterator[float]:
    """Of each report, without compilation of what came before the first step."""
    done = 0
    for line in map(json.loads, (one.workdir / "metrics.jsonl").read_text().splitlines()):
        if speed := line.get("train/images_per_second"):
            yield (line["step"] - done) * one.config.training.batch_size / speed
            done = line["step"]
