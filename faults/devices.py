"""Train the same run twice on one device, then on several: what stays the same, and how nearly.

    python -m faults.devices --json devices.json

The second run on one device must have the bits of the first. Of all others the differences of the loss, relative to
that on one device, are told after some numbers of steps, and of the parameters in the end, relative to their norm.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from anchor_jax import load_predictor
from anchor_jax.cli import app
from anchor_jax.core.errors import UserError
from benchmarks.report import Result, report
from faults import forked

JSON = flags.DEFINE_string("json", None, "The result file.")
EPOCHS = flags.DEFINE_float("epochs", 10.0, "Of training.", lower_bound=1.0)
DEVICES = flags.DEFINE_list("devices", ["2", "4", "8"], "Numbers of devices that are compared with one.")

CONFIG = "faults/small_run.py"
AFTER_STEPS = (1, 10, 100)


def main() -> None:
    """Train all runs, then compare each with the first."""
    with tempfile.TemporaryDirectory() as scratch:
        first, again = (_trained(Path(scratch) / name, 1) for name in ("first", "again"))
        others = {num: _trained(Path(scratch) / num, int(num)) for num in DEVICES.value}
        results = [_result("twice on 1 device", "losses_that_differ", [float(np.sum(first[0] != again[0]))])]
        for num, (losses, params) in others.items():
            differences = np.abs(losses / first[0] - 1)
            for steps in (steps for steps in (*AFTER_STEPS, len(losses)) if steps <= len(losses)):
                case = f"{num} devices, the first {steps} steps"
                results.append(
                    _result(case, "greatest_relative_difference_of_loss", [float(differences[:steps].max())])
                )
            distance = np.linalg.norm(params - first[1]) / np.linalg.norm(first[1])
            case = f"{num} devices, after {len(losses)} steps"
            results.append(_result(case, "relative_distance_of_parameters", [float(distance)]))
    facts = {"command": " ".join(["python -m faults.devices", *sys.argv[1:]]), "config": CONFIG}
    report("The same run on several numbers of devices", facts, results, JSON.value)
    if any(np.any(one != other) for one, other in zip(first, again, strict=True)):
        raise UserError("two runs on one device differ")


def _trained(workdir: Path, num_devices: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses of all steps, float64 `[S]`, and parameters in the end, float32 `[P]`, of a run on so many devices."""
    changes = {"training.total_epochs": EPOCHS.value, "logging.every_steps": 1, "checkpoint.every_epochs": EPOCHS.value}
    changed = (f"--config.{key}={value}" for key, value in changes.items())
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}"}
    said = workdir.with_suffix(".txt")
    arguments = ("train.py", f"--config={CONFIG}", *changed, f"--workdir={workdir}")
    process = forked.started(arguments, environment, said, said)
    process.join()
    if process.exitcode:
        raise UserError(f"training on {num_devices} devices ended with {process.exitcode}: {said.read_text()[-1000:]}")
    lines: list[dict[str, Any]] = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = np.array([line["train/loss"] for line in lines if "train/loss" in line])
    leaves = jax.tree.leaves(load_predictor(workdir).variables["params"])
    return losses, np.concatenate([np.ravel(leaf) for leaf in leaves])


def _result(case: str, metric: str, samples: list[float]) -> Result:
    return Result(case, "anchor_jax", metric, "1", samples)


if __name__ == "__main__":
    app.run(main)
