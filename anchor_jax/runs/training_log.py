"""The metrics that training logs, `metrics.jsonl` in the folder of a run."""

import json
import math
from pathlib import Path
from typing import Any

FILE = "metrics.jsonl"


def step_of(line: str) -> float:
    """Return the step of a line, infinity for one that is damaged."""
    return _parsed(line)[0]


def read_metrics(workdir: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Return name -> steps and values, of all finite numbers; damaged lines are left out.

    Args:
      workdir: of a run; without a log there are no metrics.
    """
    try:
        lines = (workdir / FILE).read_bytes().decode(errors="replace").splitlines()
    except OSError:
        return {}
    found: dict[str, tuple[list[int], list[float]]] = {}
    for line in lines:
        step, content = _parsed(line)
        for name, value in content.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                steps, values = found.setdefault(name, ([], []))
                steps.append(int(step))
                values.append(float(value))
    return found


def _parsed(line: str) -> tuple[float, dict[str, Any]]:
    """Return the step of a line, and its content; infinity and nothing for one that is damaged."""
    try:
        content = json.loads(line)
        return int(content["step"]), content
    except (ValueError, KeyError, TypeError):
        return math.inf, {}
