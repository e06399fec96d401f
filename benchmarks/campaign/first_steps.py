"""The first training steps, whose losses are compared with those of a CPU."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from anchor_jax.config import Config
from anchor_jax.training.preparation import prepare
from benchmarks.campaign.built import changed
from benchmarks.campaign.files import ROOT
from configs import digits

NUM_STEPS = 20
REFERENCE = ROOT / "docs/results/campaign/losses_cpu.json"
# Relative, of the first step and of the others. They allow for rounding, but not for steps that are 1% too long; on a
# CPU, another number of devices changes the losses far less.
FIRST_TOLERANCE, TOLERANCE = 1e-5, 1e-4

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


def compare(found: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    """Return the losses, their relative differences from the reference, and whether all are within the tolerance."""
    differences = [abs(loss - other) / abs(other) for loss, other in zip(found, reference, strict=True)]
    tolerances = [FIRST_TOLERANCE] + [TOLERANCE] * (len(found) - 1)
    pairs = enumerate(zip(differences, tolerances, strict=True), 1)
    exceeding = [step for step, (difference, tolerance) in pairs if not difference <= tolerance]  # also NaN
    return {
        "losses": list(found),
        "reference": list(reference),
        "first_difference": differences[0],
        "largest_difference": max(differences, key=lambda difference: (difference != difference, difference)),
        "first_tolerance": FIRST_TOLERANCE,
        "tolerance": TOLERANCE,
        "first_wrong_step": exceeding[0] if exceeding else None,
        "agrees": not exceeding,
    }


def verdict(result: Mapping[str, Any]) -> str:
    """Return the outcome of a comparison in words."""
    step = result["first_wrong_step"]
    if step is None:
        return (
            f"{len(result['losses'])} losses agree with those of the CPU, to {result['largest_difference']:.1e} "
            f"(first step: {result['first_difference']:.1e}; allowed: {TOLERANCE:g}, {FIRST_TOLERANCE:g})"
        )
    allowed = FIRST_TOLERANCE if step == 1 else TOLERANCE
    found, expected = result["losses"][step - 1], result["reference"][step - 1]
    return f"the loss of step {step} is {found:.7g}, but {expected:.7g} on the CPU (allowed: {allowed:g}, relative)"
