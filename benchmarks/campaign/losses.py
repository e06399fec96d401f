"""Compare the losses of 20 training steps with committed losses of a CPU: correctness comes before speed.

    python -m benchmarks.campaign.losses --json losses.json
    JAX_PLATFORMS=cpu python -m benchmarks.campaign.losses --write_reference

Trains on scikit-learn's digits with the training step of `train.py`, in float32 with products of the highest precision,
on all devices. Losses differ by rounding, which training amplifies: the relative difference may be `FIRST_TOLERANCE` at
the first step and `TOLERANCE` at the others (see `first_steps`).
"""

from typing import Any

import jax
from absl import flags

from anchor_jax.cli import app
from anchor_jax.core.errors import UserError
from benchmarks.campaign.files import read, write_current
from benchmarks.campaign.first_steps import CASES, REFERENCE, TINY_CASES, compare, config_of, losses, verdict
from benchmarks.environment import environment

JSON = app.define_path("json", None, "Result file.", what="a new file")
IS_TINY = flags.DEFINE_bool("tiny", False, "Compare the smallest case only.")
WRITES = flags.DEFINE_bool("write_reference", False, "Write the losses of this CPU as the reference.")


def main() -> None:
    """Train every case; compare its losses with the reference, or write that."""
    if WRITES.value:
        write_reference()
        return
    reference = (read(REFERENCE) or {}).get("losses", {})
    results: list[dict[str, Any]] = []
    for case, changes in (TINY_CASES if IS_TINY.value else CASES).items():
        if case not in reference:
            raise UserError(f"'{REFERENCE}' has no losses of '{case}'; write them on a CPU with --write_reference")
        results.append({"case": case, **compare(losses(config_of(changes)), reference[case])})
        print(f"{case}: {verdict(results[-1])}", flush=True)
        if JSON.value:
            write_current(JSON.value, {"environment": environment(), "results": results})
    if wrong := [result for result in results if not result["agrees"]]:
        raise UserError("; ".join(f"{result['case']}: {verdict(result)}" for result in wrong))


def write_reference() -> None:
    """Write the losses of all cases.

    Raises:
      UserError: the device is not a CPU.
    """
    if jax.default_backend() != "cpu":
        raise UserError(f"the reference is that of a CPU, not of {jax.default_backend()}: set JAX_PLATFORMS=cpu")
    found = {case: losses(config_of(changes)) for case, changes in (CASES | TINY_CASES).items()}
    write_current(REFERENCE, {"environment": environment(), "losses": found})
    print(f"wrote {REFERENCE}")


if __name__ == "__main__":
    app.run(main)
