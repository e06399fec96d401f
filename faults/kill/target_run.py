"""The run that is killed: its folder and cache, the two commands that work on it, and what they have said."""

import dataclasses
import os
import shutil
from functools import cached_property
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from anchor_jax.core.errors import UserError
from faults import forked

CONFIG = "faults/small_run.py"
TEST_EVERY = 5  # one image of so many is for testing


def write_digits(folder: Path) -> None:
    """The digits of scikit-learn as images of a folder, so that they are decoded, and then kept in the cache."""
    digits: Any = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    for row, (image, label) in enumerate(zip(images, digits.target, strict=True)):
        file = folder / ("train" if row % TEST_EVERY else "test") / str(label) / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)


@dataclasses.dataclass(frozen=True)
class Victim:
    """A run in `folder / name`, with all that its commands say in a file beside it.

    Attributes:
      folder: of the data, which lie in `folder / "digits"`, and of all runs.
      name: of the run.
      cache: what ANCHOR_JAX_CACHE is for it.
      model: "resnet18" or "mlp", see `small_run`.
      epochs: how long it is.
    """

    folder: Path
    name: str
    cache: Path
    model: str
    epochs: int

    @property
    def workdir(self) -> Path:
        """The run's folder."""
        return self.folder / self.name

    @cached_property
    def commands(self) -> dict[str, tuple[object, ...]]:
        """The command lines; one that was killed is started again just so."""
        changes = {
            "data.source": "folder",
            "data.path": self.folder / "digits",
            "training.total_epochs": self.epochs,
        }
        changed = (f"--config.{key}={value}" for key, value in changes.items())
        return {
            "train.py": ("train.py", f"--config={CONFIG}:{self.model}", *changed, f"--workdir={self.workdir}"),
            "eval.py": ("eval.py", f"--workdir={self.workdir}", "--num_references=1,10"),
        }

    @property
    def output(self) -> Path:
        """What the last command has said."""
        return self.folder / f"{self.name}.txt"

    def start(self, command: str, fatal_byte: int | None = None) -> BaseProcess:
        """Start one of the two commands, see `forked.started`."""
        self.output.unlink(missing_ok=True)
        environment = os.environ | {"ANCHOR_JAX_CACHE": str(self.cache)}
        return forked.started(self.commands[command], environment, self.output, self.output, fatal_byte=fatal_byte)

    def finish(self, command: str) -> None:
        """Let one of the two commands come to its end.

        Raises:
          UserError: it fails.
        """
        process = self.start(command)
        process.join()
        if process.exitcode:
            raise UserError(f"{command} of the {self.name} run ended with {process.exitcode}: {self.said()[-1000:]}")

    def said(self) -> str:
        """By the last command so far."""
        return self.output.read_text() if self.output.exists() else ""

    def forget_cache(self) -> None:
        """Nothing is decoded or compiled any more."""
        shutil.rmtree(self.cache, ignore_errors=True)
