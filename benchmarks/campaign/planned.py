"""Plans to compare with measurements: committed ones, or new ones."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anchor_jax.core.errors import UserError
from benchmarks.campaign.files import ROOT, read
from benchmarks.speed.plan_texts import FOLDER, plan_file, read_plan


def with_ratio(estimate: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return an estimate with its ratios to the measured time and memory, where it has these."""
    keys = {"time_over_measured": "seconds_per_step", "memory_over_measured": "memory_bytes"}
    return {**estimate, **{name: estimate[key] / measured[key] for name, key in keys.items() if estimate.get(key)}}


def plan_of(config: str, changes: Mapping[str, Any], target: str) -> dict[str, Any]:
    """Return the committed plan of an experiment on a target; without one, run the planner.

    Args:
      config: name of the experiment.
      changes: key -> value; committed plans are of experiments without changes.
      target: such as "h200:1".

    Returns:
      "by" and, where the planner succeeds, "seconds_per_step" and "memory_bytes"; otherwise "error".
    """
    by = f"plan for {target}"
    plan = None if changes else read_plan(plan_file(FOLDER, config, target))
    if plan:
        by = f"committed {by}"
    else:
        try:
            plan = _new_plan(config, changes, target)
        except UserError as error:
            return {"by": by, "error": str(error)}
    return {
        "by": by,
        "seconds_per_step": plan["seconds_per_step"],
        "memory_bytes": plan["memory_bytes"]["total"],
        "jax": plan["jax"],
    }


def _new_plan(config: str, changes: Mapping[str, Any], target: str) -> dict[str, Any]:
    """Run the planner, in a process that does not use the device, and return its plan."""
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
            lines = done.stderr.strip().splitlines() or ["the planner wrote no plan"]
            raise UserError(lines[-1].removeprefix("error: "))
        return plans[0]
