"""Import of results written by version 0.1, whose scores have flat names alone.

This is the only place where a name such as "fog/3/accuracy" is taken apart. Newer files say what each name means.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from anchor_jax.evaluation.results import Score

_GROUPS = ("mean15", "mean19", "cbar", "near", "far")


def import_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts with the names of today."""
    renamed = {"asked": "options"}
    return {renamed.get(name, name): value for name, value in facts.items()}


def import_scores(suite: str, metrics: Mapping[str, float]) -> tuple[Score, ...]:
    """Return the scores that flat names stand for.

    Args:
      suite: name of the suite, whatever the protocol.
      metrics: flat name -> value.

    >>> import_scores("corruptions", {"fog/3/scaled_ece": 0.1})[0].corruption
    'fog'
    """
    fields_of = _SUITES.get(suite, lambda parent: {"dataset": parent or None})
    return tuple(_score(name, value, fields_of) for name, value in metrics.items())


def _score(name: str, value: float, fields_of: Callable[[str], dict[str, Any]]) -> Score:
    parent, _, metric = name.rpartition("/")
    for prediction in ("mean_logits", "scaled"):
        if metric.startswith(f"{prediction}_"):
            return Score(metric.removeprefix(f"{prediction}_"), value, prediction=prediction, **fields_of(parent))
    return Score(metric, value, **fields_of(parent))


def _of_corruptions(parent: str) -> dict[str, Any]:
    if match := re.fullmatch(r"(.+)/([1-9])", parent):
        return {"corruption": match[1], "severity": int(match[2])}
    if match := re.fullmatch(r"severity([1-9])", parent):
        return {"severity": int(match[1])}
    return {"group": parent} if parent in _GROUPS else {"corruption": parent or None}


def _of_anomalies(parent: str) -> dict[str, Any]:
    dataset, _, score = parent.rpartition("/")
    kind = "group" if dataset in _GROUPS else "dataset"
    return {"score": score or None, kind: dataset or None}


def _of_protocols(parent: str) -> dict[str, Any]:
    if match := re.fullmatch(r"draws/(\d+)/(\d+)", parent):
        return {"draw": int(match[1]), "draw_size": int(match[2])}
    return {"protocol": parent or None}


_SUITES = {"corruptions": _of_corruptions, "ood": _of_anomalies, "protocols": _of_protocols}
