"""Titles of scores and suites."""

from collections.abc import Sequence

from anchor_jax.evaluation import suites
from anchor_jax.evaluation.presentation import GROUP_TITLES, format_num_references
from anchor_jax.evaluation.results import Score
from anchor_jax.metrics import specs
from anchor_jax.reporting.comparison.comparison import SuiteTable
from anchor_jax.reporting.comparison.methods import Method

_PROTOCOLS = {"random1": "1 random reference", "randomK": "K random references", "blt": "BLT"}
_PREDICTIONS = {"mean_logits": "mean logits", "scaled": "after temperature scaling"}


def score_title(score: Score) -> str:
    """Return a score in words, with its unit and an arrow towards better values.

    >>> score_title(Score("accuracy", 0, severity=5)).replace("\N{NO-BREAK SPACE}", " ")
    'accuracy, severity 5 % ↑'
    """
    spec = specs.get(score.metric)
    parts = [
        _PROTOCOLS.get(score.protocol or "", score.protocol),
        GROUP_TITLES.get(score.group or "", score.group),
        score.dataset,
        score.corruption and score.corruption.replace("_", " "),
        score.severity and f"severity {score.severity}",
        score.score and score.score.replace("_", " "),
        _PREDICTIONS.get(score.prediction),
    ]
    return spec.headed(", ".join([spec.title, *filter(None, parts)]))


def suite_title(table: SuiteTable, methods: Sequence[Method]) -> str:
    """Return the title of a suite with the number of references."""
    title = suites.title(table.suite)
    anchored = any(method.anchored for method in methods)
    return f"{title}, {format_num_references(table.num_references)}" if anchored else title
