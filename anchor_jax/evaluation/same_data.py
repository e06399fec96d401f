"""Whether results are about the same data, so that they may be compared."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation.question import describe_data, same_images
from anchor_jax.evaluation.results import Results, SuiteResult, short_hash, storage_name
from anchor_jax.evaluation.suite import DATA_FACTS

# results that differ in one of these facts are about other data
_SAME_FACTS = (*DATA_FACTS, "fitted_to")
# results with references that differ in one of these options are of other methods
_SAME_OPTIONS = ("blt_references", "probe_mask_prob")


class DataComparison(NamedTuple):
    """Whether the content of the data of some results differs, and what to say about it."""

    differ: bool
    note: str  # "" if there is nothing to say


def compare_data(results: Mapping[str, SuiteResult]) -> DataComparison:
    """Compare the data of results of one suite.

    Args:
      results: by what messages call them, such as the folder of the run.

    Raises:
      UserError: the results are about other datasets, splits or examples, and not only about other content of them; or
        references were used differently.
    """
    _check_same_limit(results)
    _check_same_options(results)
    (first, expected), *others = results.items()
    for name, given in others:
        _check_same_examples(first, expected, name, given)
    contents = {name: short_hash(result.facts) for name, result in results.items()}
    known = set(filter(None, contents.values()))
    if len(known) > 1:
        each = "; ".join(f"'{name}': {describe_data(result.facts)}" for name, result in results.items())
        note = f"{expected.name}: the runs were evaluated on different data; differences are left out: {each}."
        return DataComparison(True, note)
    unknown = ", ".join(f"'{name}'" for name, content in contents.items() if not content)
    note = f"{expected.name}: the content of the evaluated data is unknown: {unknown}."
    return DataComparison(False, note if known and unknown else "")


def clean_results_for(of_suite: Results, results: Mapping[str, Results]) -> Results:
    """Return the clean results to compare those of a suite with: of its protocol, none if of another test set."""
    protocol = next(iter(of_suite.values())).protocol
    clean = results.get(storage_name("clean", protocol), {})
    same = all(same_images(one.facts, other.facts) for one in clean.values() for other in of_suite.values())
    return clean if same else {}


def warning_of_test_sets(results: Mapping[str, Results]) -> str:
    """Return a sentence if suites are about different versions of the test set of the run, else ""."""
    newest = {name: of[max(of)].facts for name, of in results.items()}
    used = {name: describe_data(facts) for name, facts in newest.items() if facts.get("test_set")}
    if len({newest[name]["test_set"] for name in used}) < 2:
        return ""
    each = "; ".join(f"{name}: {data}" for name, data in used.items())
    return f"The suites were measured on different test sets, so do not compare them with each other. {each}."


def _check_same_examples(first: str, expected: SuiteResult, other: str, given: SuiteResult) -> None:
    which = f"{expected.name} of '{first}' and of '{other}'"
    for fact in _SAME_FACTS:
        facts = [_unordered(result.facts.get(fact)) for result in (expected, given)]
        if facts[0] != facts[1]:
            raise UserError(
                f"{which} are about different data: {fact} is {facts[0]!r} and {facts[1]!r}; evaluate both with the "
                "same options of eval.py"
            )
    for name in expected.arrays.keys() & given.arrays.keys():
        column, one, two = name.rpartition("/")[2], expected.arrays[name], given.arrays[name]
        if (column == "label" and not np.array_equal(one, two)) or (column == "correct" and one.shape != two.shape):
            raise UserError(
                f"{which} are about different test sets: the labels of their examples differ; evaluate both on the "
                "same data"
            )
        if column == "row" and not np.array_equal(one, two):
            raise UserError(f"{which} are about different test images; evaluate both with the same --seed")


def _check_same_limit(results: Mapping[str, SuiteResult]) -> None:
    (first, expected), *others = ((name, _limit_of(result)) for name, result in results.items())
    for name, limit in others:
        if limit != expected:
            raise UserError(
                f"{results[name].name} of '{first}' and of '{name}' were measured on different images, with {expected} "
                f"and with {limit}; evaluate both with the same"
            )


def _limit_of(result: SuiteResult) -> str:
    """Return the flags that say which part of the images was evaluated."""
    options = result.facts.get("options", {})
    return f"--limit {options['limit']} --seed {options['seed']}" if options.get("limit") else "no --limit"


def _check_same_options(results: Mapping[str, SuiteResult]) -> None:
    for option in _SAME_OPTIONS:
        given = {
            name: result.facts.get("options", {}).get(option, "not recorded")
            for name, result in results.items()
            if result.num_references
        }
        first = next(iter(given), "")
        for name, value in given.items():
            if value != given[first]:
                raise UserError(
                    f"{results[name].name} of '{first}' and of '{name}' were measured with different options: {option} "
                    f"is {given[first]} and {value}; evaluate both with the same --{option}"
                )


def _unordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unordered(each) for key, each in value.items()}
    return sorted(value) if isinstance(value, list) else value
