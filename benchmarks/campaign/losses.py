"""Compare the losses of 20 training steps with committed losses of a CPU: correctness comes before speed.

    python -m benchmarks.campaign.losses --json losses.json
    JAX_PLATFORMS=cpu python -m benchmarks.campaign.losses --write_reference

Trains on scikit-learn's digits with the training step of `train.py`, in float32 with products of the highest precision,
on all devices. Losses differ by rounding, which training amplifies: the relative difference may be `FIRST_TOLERANCE` at
the first step and `TOLERANCE` at the others (see `differences`).
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import flags

from anchor_jax.cli import app
from anchor_jax.config import Config
from anchor_jax.core.errors import UserError
from anchor_jax.training.preparation import prepare
from benchmarks.campaign.built import changed
from benchmarks.campaign.differences import compare, verdict
from benchmarks.campaign.files import ROOT, read, write_current
from benchmarks.environment import environment
from configs import digits

NUM_STEPS = 20
REFERENCE = ROOT / "docs/results/campaign/losses_cpu.json"

_UNIFORM = {"anchoring.masked_target": "uniform"}  # so that the loss depends on the mask
_SGD = _UNIFORM | {"optimizer.name": "sgd", "optimizer.learning_rate": 0.01, "optimizer.weight_decay": 1e-4}
# case -> changes to configs/digits.py; together they run all code that differs between platforms: convolutions,
# BatchNorm, attention, GELU, an augmentation policy, erasing
CASES: dict[str, Mapping[str, Any]] = {
    "resnet18, masked": _SGD | {"model.options.stage_sizes": (2, 2), "augmentation.erasing_prob": 0.25},
    "vit, masked": _UNIFORM
    | {
        "model.name": "vit_b16",
        "model.options.depth": 2,
        "model.options.width": 64,
        "model.options.num_heads": 4,
        "model.options.patch_size": 2,
        "augmentation.policy": "trivial_augment",
        "optimizer.learning_rate": 3e-4,
    },
}
TINY_CASES: dict[str, Mapping[str, Any]] = {
    "tiny": _SGD | {"model.name": "mlp", "model.options.hidden": (16,)},
}

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


def config_of(changes: Mapping[str, Any]) -> Config:
    """Return the config of a case."""
    return changed(digits.get_config(), changes)


def losses(config: Config) -> list[float]:
    """Return the loss of each of the first steps of a run; nothing is written to disk."""
    with jax.default_matmul_precision("highest"), tempfile.TemporaryDirectory() as scratch:
        trainer = prepare(config, Path(scratch) / "run")
        (state, totals), found = trainer.init_carry(), []
        for step in range(1, NUM_STEPS + 1):
            (state, _), metrics = trainer.train_steps((state, totals), step)
            totals = trainer.zero_totals()
            loss = metrics["loss"]
            assert loss is not None
            found.append(loss)
    return found


if __name__ == "__main__":
    app.run(main)
