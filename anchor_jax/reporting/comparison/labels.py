"""Names of metrics and suites in words."""

import re
from collections.abc import Sequence

from anchor_jax.reporting.comparison.runs import Method
from anchor_jax.reporting.comparison.table import SuiteTable
from anchor_jax.reporting.figures import format_num_references
from anchor_jax.reporting.html import NAMES, metric_of, section_of, signed

_PROTOCOLS = {"random1": "1 random reference", "randomK": "K random references", "blt": "BLT"}


def title(metric: str) -> str:
    """A metric in words, with its unit and an arrow towards what is better: "accuracy, severity 5 % ↑"."""
    *of, last = metric.split("/")
    how = metric_of(metric)
    names = NAMES | _PROTOCOLS
    parts = [names.get(part) or re.sub(r"^severity(?=\d)", "severity ", part).replace("_", " ") for part in of]
    shown = ", ".join([how.heading, *parts, *["after temperature scaling"] * last.startswith("scaled_")])
    return signed(shown, how)


def suite_title(table: SuiteTable, methods: Sequence[Method]) -> str:
    """A suite and the references that its numbers were found with."""
    references = (
        f", {format_num_references(table.num_references)}" if any(method.anchored for method in methods) else ""
    )
    return f"{section_of(table.suite).title}{references}"
