"""Collect the numbers of a study from the folders of its runs: over seeds, and relative to the standard network."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from anchor_jax.evaluation.results import Results, short_hash
from anchor_jax.reporting.comparison.statistics import Difference, Summary, difference_over_seeds, summary
from studies.runs import EnsembleRun, StudyRun, has_options
from studies.study import Column, Row, Study

_ENVIRONMENT = ("devices", "host", "python", "versions")  # facts of a measurement that are reported


class Entry(NamedTuple):
    """One number of a row."""

    summary: Summary
    difference: Difference | None  # from the baseline; None for the baseline, or if no seed is shared


class StudyResults(NamedTuple):
    """All numbers of a study that have been measured."""

    entries: Mapping[str, Mapping[str, Entry]]  # row -> column -> entry
    environments: Sequence[Mapping[str, Any]]  # all different ones
    training_seconds: float  # of the networks with a folder or a record
    evaluation_seconds: float


def collect_results(study: Study, runs: Sequence[StudyRun | EnsembleRun]) -> StudyResults:
    """Collect the numbers of all evaluated runs.

    Raises:
      UserError: a folder contains corrupt files or another run.
    """
    values: dict[str, dict[str, dict[int, float]]] = {row.name: {} for row in study.rows}
    environments, training_seconds, seconds = [], {}, {}
    evaluated: dict[tuple[str, str], set[str]] = {}  # config and suite -> hashes of the evaluated data
    for run in runs:
        suites = _required_results(study, run.results)
        for column in study.columns:
            value = _value(run, column, suites)
            if value is not None:
                values[run.row.name].setdefault(column.title, {})[run.seed] = value
        if suites:
            for network in run.networks:  # those of an ensemble may be runs of another row, with a record
                known = training_seconds.get(network.workdir, 0.0)
                training_seconds[network.workdir] = max(known, network.training_seconds)
        for key, facts in _facts(study, run, suites):
            seconds[run.name, key] = facts["seconds"]
            if content := short_hash(facts):
                evaluated.setdefault((run.row.config, key[0]), set()).add(content)
            environment = {name: facts[name] for name in _ENVIRONMENT}
            if environment not in environments:
                environments.append(environment)
    for (config, suite), contents in evaluated.items():
        if len(contents) > 1:
            warnings.warn(
                f"{suite} of {config} was evaluated on different data, {', '.join(sorted(contents))}: do not compare "
                "its numbers; evaluate all runs again",
                stacklevel=2,
            )
    entries = {
        name: {
            title: _entry(by_seed, values[baseline].get(title) if baseline and name != baseline else None)
            for title, by_seed in columns.items()
        }
        for (name, columns), baseline in zip(values.items(), find_baselines(study.rows).values(), strict=True)
    }
    return StudyResults(entries, environments, sum(training_seconds.values()), sum(seconds.values()))


def find_baselines(rows: Sequence[Row]) -> dict[str, str | None]:
    """Return for each row the nearest baseline above it, or itself if it is one; None if there is none."""
    baselines, latest = {}, None
    for row in rows:
        latest = row.name if row.is_baseline else latest
        baselines[row.name] = latest
    return baselines


def _required_results(study: Study, suites: Mapping[str, Results]) -> dict[str, Results]:
    """Return the results that were measured with the options that the study requires."""
    options = {name: evaluation.options for evaluation in study.evaluations for name in evaluation.names}
    return {
        name: {num: result for num, result in results.items() if has_options(result, options.get(name, {}))}
        for name, results in suites.items()
    }


def _facts(
    study: Study, run: StudyRun | EnsembleRun, suites: Mapping[str, Results]
) -> Iterator[tuple[tuple[str, int], Mapping[str, Any]]]:
    """Yield (suite, number of references) and facts of every measurement that the study requires."""
    for evaluation in study.evaluations:
        for suite in (name for name in evaluation.names if name in suites):
            nums = {run.stored_num_references(num) for num in evaluation.num_references}
            for num in nums & suites[suite].keys():
                yield (suite, num), suites[suite][num].facts


def _value(run: StudyRun | EnsembleRun, column: Column, suites: Mapping[str, Results]) -> float | None:
    result = suites.get(column.result_name, {}).get(run.stored_num_references(column.num_references))
    if result is None or (run.row.is_scaled and column.suite == "ood"):  # the suite has no temperature scaling
        return None
    fields = dict(column.fields)
    if run.row.is_scaled and column.metric == "ece":
        fields["prediction"] = "scaled"
    if column.corruptions:
        return result.mean_over_corruptions(column.metric, column.corruptions, **fields)
    value = result.value(column.metric, **fields)
    if value is None and column.suite == "protocols":  # without references there is a single protocol
        return result.value(column.metric, protocol="standard")
    return value


def _entry(values: dict[int, float], baseline: dict[int, float] | None) -> Entry:
    return Entry(summary(values), difference_over_seeds(values, baseline) if baseline else None)
