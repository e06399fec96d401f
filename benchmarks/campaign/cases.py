"""The experiments whose steps are measured and traced."""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from anchor_jax.config import Config
from benchmarks.campaign.built import changed


class Case(NamedTuple):
    """An experiment, changed so that it fits one device."""

    config: str
    changes: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        """Return the config, with its changes."""
        return " ".join([self.config, *(f"--config.{key}={value}" for key, value in self.changes.items())])

    def load(self) -> Config:
        """Return its config."""
        return changed(importlib.import_module(f"configs.{self.config}").get_config(), self.changes)


CASES = (
    Case("cifar10_fast"),
    Case("cifar10"),
    Case("cifar10", {"model.dtype": "bfloat16", "training.batch_size": 512}),
    Case("imagenet_vit_b16", {"training.batch_size": 128}),
)
TINY_CASES = (Case("digits", {"model.name": "mlp", "model.options.hidden": (16,), "training.batch_size": 16}),)
