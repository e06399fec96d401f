"""Measure everything on an accelerator within a given time: one command, one report.

    python -m benchmarks.campaign --minutes 9 --out runs/campaign --official ../anchoring

The steps, in this order: the machine and its peaks; 20 training steps against losses of a CPU; training and K-reference
prediction of ours, PyTorch and the released code; the planner's estimates against measurements; a trace of 10 training
steps, with the two largest losses of time; the studies, the fast recipe first. Each is a process with its own time
limit. If one fails or is stopped, the campaign records it and continues. Rerunning the command runs the steps that are
not done.
"""

import os
import signal
import sys

from absl import flags

from anchor_jax.cli import app
from anchor_jax.cli.console import USAGE_STATUS, exit_with_error
from anchor_jax.core.errors import Preempted, UserError
from anchor_jax.runtime import preemption
from anchor_jax.runtime.atomic_files import exclusive_lock
from benchmarks import pytorch
from benchmarks.campaign import STARTED, campaign, running
from benchmarks.campaign.steps import Settings

MINUTES = flags.DEFINE_float("minutes", 9.0, "Time limit of the whole campaign.", lower_bound=0.1)
OUT = app.define_path("out", None, "Folder of the results; a campaign in it is resumed.")
OFFICIAL = app.define_path("official", None, "A clone of LLNL/anchoring, the released code, to time as well.")
ON_CPU = flags.DEFINE_bool("cpu", False, "Accept a machine without an accelerator.")
IS_TINY = flags.DEFINE_bool("tiny", False, "Run the smallest form of every step, on any machine; it measures nothing.")
WRITES = flags.DEFINE_bool("write_reference", False, "Only write the losses of this CPU as the reference.")


def main() -> None:
    """Run the campaign."""
    ends = STARTED + 60 * MINUTES.value
    if WRITES.value:
        _write_reference()
        return
    if not OUT.value:
        exit_with_error(USAGE_STATUS, "--out must have a value: the folder of the results; see --help")
    if OFFICIAL.value:
        pytorch.check_clone(OFFICIAL.value)
    official = OFFICIAL.value.absolute() if OFFICIAL.value else None
    machine = campaign.probe(may_be_cpu=ON_CPU.value or IS_TINY.value)
    settings = Settings(OUT.value.absolute(), MINUTES.value, official, IS_TINY.value, machine)
    earlier = campaign.earlier_records(settings)
    with exclusive_lock(settings.out), preemption.catch_stop_signals() as stop_signal:
        records = campaign.run_steps(settings, earlier, ends, stop_signal)
        number = stop_signal()
    print(f"report: {settings.out / campaign.REPORT}")
    if number:
        raise Preempted(number, f"{signal.Signals(number).name}: rerun the same command to resume")
    failed = [name for name, record in records.items() if record["status"] == running.FAILED]
    if failed:
        raise UserError(f"failed: {', '.join(failed)}; see {settings.out / 'logs'}")


def _write_reference() -> None:
    """Write the reference of the losses, in a process of its own."""
    line = [sys.executable, "-m", "benchmarks.campaign.losses", "--write_reference"]
    os.execv(sys.executable, line)


if __name__ == "__main__":
    app.run(main)
