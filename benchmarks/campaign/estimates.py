"""Compare the planner's estimates of training steps with measurements on this chip.

    python -m benchmarks.campaign.estimates --machine machine.json --json estimates.json

Measures the step of an experiment, as the planner builds it, on one device and random images. Compares it with the plan
for this kind of chip, committed or new, and with a roofline of the measured program at the peaks that the campaign has
measured. The planner knows the chips of `CHIPS` alone; the roofline works on any machine.
"""

import statistics
from collections.abc import Mapping
from typing import Any

import jax
from absl import flags

from anchor_jax.cli import app
from anchor_jax.planning.facts import data_facts
from anchor_jax.planning.targets import Chip
from benchmarks.campaign.built import BuiltStep, build, seconds_per_step
from benchmarks.campaign.cases import CASES, TINY_CASES, Case
from benchmarks.campaign.chips import find_chip, measured_chip, target_of
from benchmarks.campaign.files import write_current
from benchmarks.campaign.planned import plan_of, with_ratio
from benchmarks.environment import environment
from benchmarks.timing import prepare

SAMPLES = 5

JSON = app.define_path("json", None, "Result file.", what="a new file")
MACHINE = app.define_path("machine", None, "Result file of benchmarks.campaign.machine.", what="a file")
IS_TINY = flags.DEFINE_bool("tiny", False, "Measure the smallest case only.")


def main() -> None:
    """Measure and compare every case; the file is written after each."""
    prepare()
    kind = jax.devices()[0].device_kind
    chip, peaks = find_chip(kind), measured_chip(MACHINE.value)
    if chip is None:
        print(f"the planner knows no chip '{kind}': only the roofline at the measured peaks is compared")
    results: list[dict[str, Any]] = []
    for case in TINY_CASES if IS_TINY.value else CASES:
        results.append(_compared(case, chip, peaks))
        print(describe(results[-1]), flush=True)
        if JSON.value:
            facts = {"device_kind": kind, "chip": chip}
            write_current(JSON.value, {"environment": environment() | facts, "results": results})


def _compared(case: Case, chip: str | None, peaks: Chip | None) -> dict[str, Any]:
    """Return the measurement of a case, and each estimate with its ratio to the measurement."""
    config = case.load()
    content: dict[str, Any] = {"experiment": case.config, "changes": dict(case.changes), "name": case.name}
    try:
        built = build(config, data_facts(config.data))
        samples = seconds_per_step(built, 1 if IS_TINY.value else SAMPLES)
    except jax.errors.JaxRuntimeError as error:  # such as too little memory
        return content | {"error": str(error).splitlines()[0]}
    seconds = statistics.median(samples)
    content["measured"] = {
        "seconds_per_step": seconds,
        "images_per_second": built.batch_size / seconds,
        "memory_bytes": built.memory,
        "compile_seconds": built.compile_seconds,
        "samples": samples,
    }
    content["estimates"] = [
        with_ratio(estimate, content["measured"]) for estimate in _estimates(case, chip, built, peaks)
    ]
    return content


def _estimates(case: Case, chip: str | None, built: BuiltStep, peaks: Chip | None) -> list[dict[str, Any]]:
    found = []
    if peaks:
        found.append({"by": "roofline at the measured peaks", "seconds_per_step": built.roofline_seconds(peaks)})
    if chip:
        found.append(plan_of(case.config, case.changes, target_of(chip)))
    return found


def describe(result: Mapping[str, Any]) -> str:
    """Return a comparison as one line."""
    if "error" in result:
        return f"{result['name']}: not measured: {result['error']}"
    measured = result["measured"]
    line = f"{result['name']}: {1e3 * measured['seconds_per_step']:.4g} ms/step"
    for estimate in result["estimates"]:
        if "error" in estimate:
            line += f"; {estimate['by']}: none ({estimate['error']})"
        elif estimate["seconds_per_step"]:
            milliseconds = 1e3 * estimate["seconds_per_step"]
            line += f"; {estimate['by']}: {milliseconds:.4g} ms ({estimate['time_over_measured']:.0%} of that)"
    return line


if __name__ == "__main__":
    app.run(main)
