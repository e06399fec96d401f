"""Names of metrics and suites in words."""

import re
from collections.abc import Sequence

from anchor_jax.evaluation import suites
from anchor_jax.evaluation.presentation import GROUP_TITLES, format_num_references
from anchor_jax.metrics import specs
from anchor_jax.metrics.specs import MetricSpec
from anchor_jax.reporting.comparison.runs import Method
from anchor_jax.reporting.comparison.table import SuiteTable

_PROTOCOLS = {"random1": "1 random reference", "randomK": "K random references", "blt": "BLT"}


def metric_of(name: str) -> MetricSpec:
    """Return the facts about a metric, given its flat name."""
    return specs.get(name.rpartition("/")[2].removeprefix("mean_logits_").removeprefix("scaled_"))


def title(metric: str) -> str:
    """A metric in words, with its unit and an arrow towards what is better: "accuracy, severity 5 % ↑"."""
    *of, last = metric.split("/")
    how = metric_of(metric)
    names = GROUP_TITLES | _PROTOCOLS
    parts = [names.get(part) or re.sub(r"^severity(?=\d)", "severity ", part).replace("_", " ") for part in of]
    shown = ", ".join([how.title, *parts, *["after temperature scaling"] * last.startswith("scaled_")])
    return how.headed(shown)


def suite_title(table: SuiteTable, methods: Sequence[Method]) -> str:
    """A suite and the references that its numbers were found with."""
    references = (
        f", {format_num_references(table.num_references)}" if any(method.anchored for method in methods) else ""
    )
    return f"{suites.title(table.suite)}{references}"
