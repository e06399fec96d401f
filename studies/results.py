"""The numbers of a study, from the folders of its runs: each over seeds, and beside the standard network."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from anchor_jax.evaluation.results import Results
from anchor_jax.reporting.comparison.statistics import Difference, Summary, difference_over_seeds, summary
from studies.definitions import Column, Row, Study
from studies.runs import PooledRun, StudyRun

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


def measured(study: Study, runs: Sequence[StudyRun | PooledRun]) -> Table:
    """The numbers of all runs that are evaluated; those of one that several rows share stand in each of them.

    Raises:
      UserError: what is in a folder is damaged, or of another run.
    """
    values: dict[str, dict[str, dict[int, float]]] = {row.name: {} for row in study.rows}
    environments, networks, seconds = [], {}, {}
    for one in runs:
        suites = one.evaluated
        for column in study.columns:
            value = _value(one, column, suites)
            if value is not None:
                values[one.row.name].setdefault(column.title, {})[one.seed] = value
        if suites:
            networks |= {network.workdir: network for network in one.trained}
        for what, facts in _facts(study, one, suites):
            seconds[one.name, what] = facts["seconds"]
            environment = {name: facts[name] for name in _FACTS}
            if environment not in environments:
                environments.append(environment)
    entries = {
        name: {
            title: _entry(of_seeds, values[baseline].get(title) if baseline and name != baseline else None)
            for title, of_seeds in of_row.items()
        }
        for (name, of_row), baseline in zip(values.items(), _baselines(study.rows).values(), strict=True)
    }
    training = sum(sum(_training_seconds(network)) for network in networks.values())
    return Table(entries, environments, training, sum(seconds.values()))


def _facts(
    study: Study, one: StudyRun | PooledRun, suites: Mapping[str, Results]
) -> Iterator[tuple[tuple[str, int], Mapping[str, Any]]]:
    """Of what the study asks and is answered: suite and number, how and where it was measured."""
    for ask in study.asks:
        for suite in (name for name in ask.names if name in suites):
            for number in {one.key(num) for num in ask.num_references} & suites[suite].keys():
                yield (suite, number), suites[suite][number].facts


def _value(one: StudyRun | PooledRun, column: Column, suites: Mapping[str, Results]) -> float | None:
    number, answers = one.key(column.num_references), suites.get(column.suite)
    if not answers or number not in answers:
        return None
    found, metric = answers[number].metrics, column.metric
    if one.row.is_scaled and column.suite == "ood":
        return None  # knows no temperature
    if one.row.is_scaled and metric == "ece":
        metric = "scaled_ece"
    if column.suite == "protocols" and metric not in found:  # without references there is one protocol
        metric = f"standard/{metric.partition('/')[2]}"
    return found.get(metric)


def _baselines(rows: Sequence[Row]) -> dict[str, str | None]:
    """For each row the baseline that stands above it, itself for that; None where there is none."""
    baselines, newest = {}, None
    for row in rows:
        newest = row.name if row.is_baseline else newest
        baselines[row.name] = newest
    return baselines


def _entry(values: dict[int, float], baseline: dict[int, float] | None) -> Entry:
    return Entry(summary(values), difference_over_seeds(values, baseline) if baseline else None)


def _training_seconds(one: StudyRun) -> Iterator[float]:
    """Of each report, without compilation of what came before the first step."""
    done = 0
    for line in map(json.loads, (one.workdir / "metrics.jsonl").read_text().splitlines()):
        if speed := line.get("train/images_per_second"):
            yield (line["step"] - done) * one.config.training.batch_size / speed
            done = line["step"]
