"""Train the same run twice on one device, then on several devices, and compare losses and parameters.

    python -m faults.devices --devices 2,4,8 --json devices.json

The two runs on one device must agree bit for bit. For the others, reports the maximum difference of the loss up to some
steps, relative to the loss on one device, and the distance of the final parameters, relative to their norm.
"""

import json
import os
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

JSON = app.define_path("json", None, "Result file.", what="a new file")
EPOCHS = flags.DEFINE_float("epochs", 10.0, "Length of training.", lower_bound=1.0)
DEVICES = flags.DEFINE_list("devices", ["2", "4", "8"], "Comma-separated numbers of devices to compare with one.")

CONFIG = "faults/small_run.py"
AFTER_STEPS = (1, 10, 100)


def main() -> None:
    """Train all runs and compare them with the first."""
    with tempfile.TemporaryDirectory() as scratch:
        first, second = (_train(Path(scratch) / name, 1) for name in ("first", "second"))
        others = {num: _train(Path(scratch) / num, int(num)) for num in DEVICES.value}
        results = [_result("twice on 1 device", "losses_that_differ", [float(np.sum(first[0] != second[0]))])]
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
    report("The same run on several numbers of devices", {"config": CONFIG}, results, JSON.value)
    if any(np.any(one != other) for one, other in zip(first, second, strict=True)):
        raise UserError("two runs on one device differ")


def _train(workdir: Path, num_devices: int) -> tuple[np.ndarray, np.ndarray]:
    """Train on CPU devices; return the losses of all steps, float64 `[S]`, and the final parameters, float32 `[P]`."""
    changes = {"training.total_epochs": EPOCHS.value, "logging.every_steps": 1, "checkpoint.every_epochs": EPOCHS.value}
    overrides = (f"--config.{key}={value}" for key, value in changes.items())
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}"}
    output = workdir.with_suffix(".txt")
    arguments = ("train.py", f"--config={CONFIG}", *overrides, f"--workdir={workdir}")
    process = forked.start(arguments, environment, output, output)
    process.join()
    if process.exitcode:
        raise UserError(
            f"training on {num_devices} devices exited with {process.exitcode}: {output.read_text()[-1000:]}"
        )
    lines: list[dict[str, Any]] = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = np.array([line["train/loss"] for line in lines if "train/loss" in line])
    leaves = jax.tree.leaves(load_predictor(workdir).variables["params"])
    return losses, np.concatenate([np.ravel(leaf) for leaf in leaves])


def _result(case: str, metric: str, samples: list[float]) -> Result:
    return Result(case, "anchor_jax", metric, "1", samples)


if __name__ == "__main__":
    app.run(main)
