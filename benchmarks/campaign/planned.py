"""The plan of an experiment beside a measurement: the committed one, or one that is made now."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anchor_jax.core.errors import UserError
from benchmarks.campaign.files import ROOT, read
from benchmarks.speed.plan_texts import FOLDER, plan_file


def with_ratio(estimate: dict[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return an estimate with its ratio to the measurement, in time and memory, where it has a number."""
    for name, key in (("time_over_measured", "seconds_per_step"), ("memory_over_measured", "memory_bytes")):
        if estimate.get(key):
            estimate[name] = estimate[key] / measured[key]
    return estimate


def plan_of(config: str, changes: Mapping[str, Any], target: str) -> dict[str, Any]:
    """Return the plan of an experiment on a target: the committed one, or one that is made now.

    Args:
      config: name of the experiment.
      changes: to it: key -> value.
      target: such as "h200:1".

    Returns:
      "by" and, where the planner succeeds, "seconds_per_step" and "memory_bytes"; otherwise "error".
    """
    committed = plan_file(FOLDER, config, target)
    if not changes and committed.exists():
        plan, by = read(committed), f"committed plan for {target}"
    else:
        try:
            plan, by = _made_plan(config, changes, target), f"plan for {target}"
        except UserError as error:
            return {"by": f"plan for {target}", "error": str(error)}
    assert plan
    return {
        "by": by,
        "seconds_per_step": plan["seconds_per_step"],
        "memory_bytes": plan["memory_bytes"]["total"],
        "jax": plan["jax"],
    }


def _made_plan(config: str, changes: Mapping[str, Any], target: str) -> dict[str, Any]:
    """Run the planner, in a process that does not see the device, and return its plan."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "plan.json"
        overrides = [f"--config.{key}={value}" for key, value in changes.items()]
        line = [*(sys.executable, "-m", "anchor_jax.plan", f"--config={config}", f"--target={target}")]
        done = subprocess.run(
            [*line, "--noadvice", f"--json={file}", *overrides],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
        plans: Any = read(file)
        if not plans:
            raise UserError((done.stderr.strip().splitlines() or ["the planner wrote no plan"])[-1])
        return plans[0]
