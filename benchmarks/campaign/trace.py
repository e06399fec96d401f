"""Trace 10 training steps and name the two largest losses: operations, copies, or time in which nothing runs.

    python -m benchmarks.campaign.trace --machine machine.json --folder trace --json trace.json

A loss is time beyond a roofline: that of an operation which moved its bytes or computed its products at the peaks that
the campaign has measured. Idle time and copies are lost completely. Without measured peaks, all time counts as lost.
TensorBoard and Perfetto open the trace.
"""

from pathlib import Path
from typing import Any

import jax
from absl import flags

from anchor_jax.cli import app
from anchor_jax.planning.facts import data_facts
from anchor_jax.planning.kernels import kernel_seconds
from anchor_jax.planning.walk import Executed
from benchmarks.campaign.built import BuiltStep, build
from benchmarks.campaign.cases import TINY_CASES, Case
from benchmarks.campaign.chips import measured_chip
from benchmarks.campaign.events import analyse, read_events
from benchmarks.campaign.files import write_current
from benchmarks.environment import environment
from benchmarks.timing import prepare

NUM_STEPS = 10
NUM_COSTLIEST = 10
CASE = Case("cifar10", {"model.dtype": "bfloat16", "training.batch_size": 512})
CPU_CASE = Case("cifar10_fast", {"training.batch_size": 128})

JSON = app.define_path("json", None, "Result file.", what="a new file")
FOLDER = app.define_path("folder", None, "Folder of the trace.", required=True)
MACHINE = app.define_path("machine", None, "Result file of benchmarks.campaign.machine.", what="a file")
IS_TINY = flags.DEFINE_bool("tiny", False, "Trace the smallest case.")


def main() -> None:
    """Trace, analyse, print and write."""
    prepare()
    case = TINY_CASES[0] if IS_TINY.value else CPU_CASE if jax.default_backend() == "cpu" else CASE
    config = case.load()
    built = build(config, data_facts(config.data))
    built.run(2)
    _trace(built, FOLDER.value)

    peaks, module = measured_chip(MACHINE.value), built.module
    roofline = peaks and {
        instruction.name: kernel_seconds(Executed(instruction, computation, 1), module, peaks)
        for computation in module.computations.values()
        for instruction in computation
    }
    analysis = analyse(read_events(FOLDER.value), module, NUM_STEPS, roofline)
    content: dict[str, Any] = {
        "experiment": case.name,
        "steps": NUM_STEPS,
        "trace": str(FOLDER.value),
        "lost_means": "beyond the roofline at the measured peaks" if peaks else "all: the peaks were not measured",
        "seconds_per_step": analysis.seconds,
        "idle_seconds_per_step": analysis.idle,
        "losses": [cost._asdict() for cost in analysis.losses],
        "costliest": [cost._asdict() for cost in analysis.costs[:NUM_COSTLIEST]],
    }
    for number, cost in enumerate(analysis.losses, 1):
        print(
            f"loss {number}: {cost.what}: {1e3 * cost.lost:.3g} ms of {1e3 * analysis.seconds:.3g} ms per step are lost"
        )
    if JSON.value:
        write_current(JSON.value, {"environment": environment(), **content})


def _trace(built: BuiltStep, folder: Path) -> None:
    """Write a trace of the device, without the functions of Python."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(str(folder), profiler_options=options):
        built.run(NUM_STEPS)


if __name__ == "__main__":
    app.run(main)
