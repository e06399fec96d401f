"""The first training steps whose losses are compared between platforms: the experiments, and how to train them."""

import tempfile
from collections.abc import Mapping
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
