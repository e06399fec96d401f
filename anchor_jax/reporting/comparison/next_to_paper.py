"""Published results next to ours."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation.results import SuiteResult
from anchor_jax.metrics import specs
from anchor_jax.reporting.comparison import paper
from anchor_jax.reporting.comparison.methods import EvaluatedRun, Method, evaluation_command
from anchor_jax.reporting.comparison.paper import PublishedResult
from anchor_jax.reporting.comparison.paper_results import DATASET_NAMES, EVALUATION_OPTIONS, GROUPS, Quantity
from anchor_jax.reporting.comparison.statistics import Summary, summary


class PaperRow(NamedTuple):
    """A published result and ours."""

    method: str
    quantity: str
    suite: str
    metric: str
    paper: PublishedResult
    ours: Summary | None
    source: str  # of our images
    missing: str  # why there is no result of ours, and how to get it
    note: str  # what the publication leaves open


class NextToPaper(NamedTuple):
    """Published results next to ours.

    Attributes:
      rows: of methods that are trained as published.
      mismatches: method -> the first difference to the published configuration.
      remarks: other method -> what readers must know.
    """

    rows: tuple[PaperRow, ...]
    mismatches: Mapping[str, str]
    remarks: Mapping[str, str]


def next_to_paper(methods: Sequence[Method], suites: Sequence[str], num_references: Mapping[str, int]) -> NextToPaper:
    """Find the published results of methods, and ours.

    Args:
      methods: all of a comparison.
      suites: that are requested; () for all.
      num_references: suite -> K that is compared.
    """
    mismatches = {method.name: reason for method in methods if (reason := paper.protocol_mismatch(method))}
    comparable = [method for method in methods if method.name not in mismatches]
    remarks = {method.name: remark for method in comparable if (remark := paper.remark(method))}
    rows = [row for method in comparable for row in _rows(method, comparable, suites, num_references)]
    return NextToPaper(tuple(rows), mismatches, remarks)


def _rows(
    method: Method, comparable: Sequence[Method], suites: Sequence[str], num_references: Mapping[str, int]
) -> Iterator[PaperRow]:
    model = method.config["model.name"]
    baseline = next((each for each in comparable if not each.anchored and each.config["model.name"] == model), None)
    for quantity, published in paper.published_results(method).items():
        if suites and quantity.suite not in suites:
            continue
        title, suite, metric, note = quantity.title, quantity.suite, quantity.metric, quantity.note
        row = PaperRow(method.name, title, suite, metric, published, None, "", "", note)
        num = quantity.references or num_references.get(suite, 1)
        try:
            ours, source = _ours(method, baseline, quantity, num)
            yield row._replace(ours=summary(ours), source=source)
        except UserError as error:
            yield row._replace(missing=str(error))


def _ours(method: Method, baseline: Method | None, quantity: Quantity, num: int) -> tuple[dict[int, float], str]:
    """Return seed -> our result, and the sources of our images.

    Raises:
      UserError: a run was not evaluated as in the publication.
    """
    if quantity.gain and baseline is None:
        raise UserError("needs a standard network trained with the paper's protocol among the runs")
    ours, source = _by_seed(method, quantity, num)
    if not quantity.gain or baseline is None:
        return ours, source
    of_baseline, _ = _by_seed(baseline, quantity, num)
    if not ours.keys() & of_baseline.keys():
        raise UserError("needs a seed that the standard network has too")
    return {seed: ours[seed] - of_baseline[seed] for seed in ours.keys() & of_baseline.keys()}, source


def _by_seed(method: Method, quantity: Quantity, num: int) -> tuple[dict[int, float], str]:
    """Return seed -> value, and the sources of our images.

    Raises:
      UserError: a run was not evaluated as in the publication.
    """
    if quantity.references is None and num == 1:
        raise UserError("needs more than 1 reference, such as --num_references 10")
    options = EVALUATION_OPTIONS.get(paper.dataset_of(method), {}).get(quantity.suite, "")
    values, sources = {}, []
    for run in method.runs:
        command = evaluation_command(run.run.workdir, quantity.suite, num, run.limit)
        command = " ".join(filter(None, [command, options]))
        if run.key(num) not in run.suites.get(quantity.suite, {}):
            raise UserError(f"run {command}")
        result = run.result(quantity.suite, num)
        value, of_run = _VALUES[quantity.suite](run, result, quantity)
        if value is None:
            what = GROUPS.get(quantity.group or "") or quantity.dataset or specs.get(quantity.metric).title
            raise UserError(f"needs {what}; run {command}")
        values[run.seed] = value
        sources += [source for source in of_run if source not in sources]
    return values, ", ".join(sources)


_Value = tuple[float | None, Sequence[str]]  # None if it was not measured; the sources of the images


def _of_corruptions(run: EvaluatedRun, result: SuiteResult, quantity: Quantity) -> _Value:
    facts, group, severity = result.facts, quantity.group or "", quantity.severity
    value = result.value(quantity.metric, group=group)
    if value is None or severity is None:
        return value, facts["source"]
    members = facts.get("averages", {}).get(group, facts["members"])
    if set(members) == set(facts["members"]):
        return result.value(quantity.metric, severity=severity), facts["source"]
    return result.mean_over_corruptions(quantity.metric, members, severity=severity), facts["source"]


def _of_dataset(run: EvaluatedRun, result: SuiteResult, quantity: Quantity) -> _Value:
    for member in result.facts["members"]:
        words = re.findall(r"[a-z0-9]+", member.casefold())
        if {"_".join(words), "_".join(words[:-1])} & set(DATASET_NAMES[quantity.dataset or ""]):  # perhaps with a split
            return result.value(quantity.metric, dataset=member, score=quantity.score), [member]
    return None, []


def _of_test_set(run: EvaluatedRun, result: SuiteResult, quantity: Quantity) -> _Value:
    data = run.run.config.data
    return result.value(quantity.metric), [(result.facts.get("data") or {}).get("name") or data.name or data.source]


_VALUES = {"clean": _of_test_set, "corruptions": _of_corruptions, "shift": _of_dataset, "ood": _of_dataset}
