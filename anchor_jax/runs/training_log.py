"""The metrics that training logs, `metrics.jsonl` in the folder of a run."""

import json
import math
from pathlib import Path
from typing import Any, cast

FILE = "metrics.jsonl"


def step_of(line: str) -> float:
    """Return the step of a line, infinity for one that is damaged."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def read_metrics(workdir: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Return name -> steps and values, of all finite numbers; damaged lines are left out.

    Args:
      workdir: of a run; without a log there are no metrics.
    """
    try:
        lines = (workdir / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found: dict[str, tuple[list[int], list[float]]] = {}
    for line in lines:
        if (step := step_of(line)) == math.inf:
            continue
        for name, value in cast("dict[str, Any]", json.loads(line)).items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                steps, values = found.setdefault(name, ([], []))
                steps.append(int(step))
                values.append(float(value))
    return found
