"""The run to kill: its folder and cache, its two commands, and their output."""

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
TEST_EVERY = 5  # every fifth image is for testing


def write_digits(folder: Path) -> None:
    """Write scikit-learn's digits as a folder of images, so that a run decodes them and writes its cache."""
    digits: Any = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    for row, (image, label) in enumerate(zip(images, digits.target, strict=True)):
        file = folder / ("train" if row % TEST_EVERY else "test") / str(label) / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)


@dataclasses.dataclass(frozen=True)
class TargetRun:
    """A run in `folder / name`; the output of its commands goes to `folder / name.txt`.

    Attributes:
      folder: parent of all runs and of the data, `folder / "digits"`.
      name: of the run.
      cache: value of ANCHOR_JAX_CACHE for its commands.
      model: "resnet18" or "mlp", see `small_run`.
      epochs: length of training.
    """

    folder: Path
    name: str
    cache: Path
    model: str
    epochs: int

    @property
    def workdir(self) -> Path:
        """Return the run's folder."""
        return self.folder / self.name

    @cached_property
    def commands(self) -> dict[str, tuple[object, ...]]:
        """Return the command lines; a killed command is restarted with the same one."""
        changes = {
            "data.source": "folder",
            "data.path": self.folder / "digits",
            "training.total_epochs": self.epochs,
        }
        overrides = (f"--config.{key}={value}" for key, value in changes.items())
        return {
            "train.py": ("train.py", f"--config={CONFIG}:{self.model}", *overrides, f"--workdir={self.workdir}"),
            "eval.py": ("eval.py", f"--workdir={self.workdir}", "--num_references=1,10"),
        }

    @property
    def output_file(self) -> Path:
        """Return the file with the output of the last command."""
        return self.folder / f"{self.name}.txt"

    def start(self, command: str, fatal_byte: int | None = None) -> BaseProcess:
        """Start one of the two commands, see `forked.start`."""
        self.output_file.unlink(missing_ok=True)
        environment = os.environ | {"ANCHOR_JAX_CACHE": str(self.cache)}
        return forked.start(
            self.commands[command], environment, self.output_file, self.output_file, fatal_byte=fatal_byte
        )

    def finish(self, command: str) -> None:
        """Run one of the two commands to its end.

        Raises:
          UserError: it fails.
        """
        process = self.start(command)
        process.join()
        if process.exitcode:
            raise UserError(f"{command} of the {self.name} run exited with {process.exitcode}: {self.output()[-1000:]}")

    def output(self) -> str:
        """Return what the last command has printed so far."""
        return self.output_file.read_text() if self.output_file.exists() else ""

    def delete_cache(self) -> None:
        """Delete all decoded data and compiled programs."""
        shutil.rmtree(self.cache, ignore_errors=True)
