"""Trackers: TensorBoard, Weights & Biases and MLflow, to which a run sends its metrics and pictures.

A resumed run continues the same run of a tracker, and so does its evaluation: `trackers.json` in its folder holds the
identifiers, and the last step that was sent of each kind of metrics. A tracker that fails causes a warning and receives
nothing more.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from anchor_jax.config import flatten
from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.metrics import ReliabilityBins
from anchor_jax.runs.record import Run
from anchor_jax.runtime.atomic_files import atomic_write
from anchor_jax.runtime.object_storage import AppendedFiles, is_remote
from anchor_jax.runtime.paths import resolved
from anchor_jax.training.tensorboard import TensorBoardWriter

TENSORBOARD = "tensorboard"
STATE = "trackers.json"
_CLIENTS = {"wandb": ("wandb", "anchor-jax[wandb]"), "mlflow": ("mlflow", "anchor-jax[mlflow]")}
NAMES = (TENSORBOARD, *_CLIENTS)
_PROJECT = "anchor_jax"
_MAX_PARAMS, _MAX_METRICS, _MAX_VALUE = 100, 1000, 500  # of one request to MLflow


class Pictures(Protocol):
    """Draws the pictures that trackers show; see `anchor_jax.reporting.pictures`. Each is returned as a PNG."""

    def examples(self, references: np.ndarray | None, images: np.ndarray) -> bytes:
        """Draw references and images, uint8 `[n, H, W, C]` each."""
        ...

    def reliability(self, bins: ReliabilityBins, title: str) -> bytes:
        """Draw a reliability diagram."""
        ...


class Tracker(Protocol):
    """One run of a tracker."""

    @property
    def identifiers(self) -> dict[str, str]:
        """What finds the run again; kept in the folder of the run."""
        ...

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send the metrics of a step."""
        ...

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Send a picture of a step."""
        ...

    def scores(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send the final scores of the checkpoint at a step."""
        ...

    def close(self, status: str) -> None:
        """End the run: "FINISHED", "KILLED" (it can be resumed) or "FAILED"."""
        ...


def check(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of trackers, each once.

    Raises:
      UserError: one is unknown, or its client is not installed.
    """
    for name in (names := checks.several("trackers", names)):
        checks.known("tracker", name, NAMES)
        module, extra = _CLIENTS.get(name, ("", ""))
        if module and importlib.util.find_spec(module) is None:
            raise UserError(f"tracker '{name}' needs the package {module}; run pip install '{extra}'")
    return tuple(dict.fromkeys(names))


class Trackers:
    """The trackers of a run.

    Args:
      names: of the trackers.
      run: its record.
      folder: of the identifiers; that of the run, if it can be written.
      tensorboard: folder of a new event file.
      first_step: the step from which a new event file replaces earlier ones.
    """

    def __init__(self, names: Sequence[str], run: Run, folder: Path, tensorboard: Path, first_step: int = 0):
        self._file, self._open = folder / STATE, dict[str, Tracker]()
        self._state: dict[str, dict[str, Any]] = _read(run.workdir / STATE) | _read(self._file)
        for name in names:
            make = {
                TENSORBOARD: lambda _: TensorBoard(tensorboard, first_step),
                "wandb": lambda known: WandbRun(run, known, folder),
                "mlflow": lambda known: MlflowRun(run, known, folder),
            }[name]
            self._guarded(name, lambda name=name, make=make: self._start(name, make))

    def _start(self, name: str, make: Callable[[dict[str, str]], Tracker]) -> None:
        known = self._state.get(name, {}).get("identifiers", {})
        tracker = self._open[name] = make(known)
        if tracker.identifiers != known:
            self._state[name] = {"identifiers": tracker.identifiers, "sent": {}}
            self._write()

    def log(self, step: int, prefix: str, scalars: Mapping[str, float]) -> None:
        """Send the metrics of a step; a resumed run does not send a step twice."""
        for name, tracker in [*self._open.items()]:
            sent = self._state.get(name, {}).get("sent", {})
            if step > sent.get(prefix, -1):
                self._guarded(name, lambda tracker=tracker: tracker.log(step, scalars))
                sent |= {prefix: step} if name in self._open else {}
        self._guarded("", self._write)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Send a picture."""
        for which, tracker in [*self._open.items()]:
            self._guarded(which, lambda tracker=tracker: tracker.picture(step, name, png))

    def scores(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send the final scores of the checkpoint at a step."""
        for name, tracker in [*self._open.items()]:
            self._guarded(name, lambda tracker=tracker: tracker.scores(step, scalars))

    def close(self, status: str) -> None:
        """End the runs of all trackers; see `Tracker.close`."""
        for name, tracker in [*self._open.items()]:
            self._guarded(name, lambda tracker=tracker: tracker.close(status))
        self._open.clear()

    def _write(self) -> None:
        if self._open:
            with atomic_write(self._file) as file:
                file.write_text(json.dumps(self._state, indent=2) + "\n", encoding="utf-8")

    def _guarded(self, name: str, action: Callable[[], object]) -> None:
        """Act; if that fails, warn, and leave the tracker of this name alone from now on."""
        try:
            action()
        except Exception as error:  # clients raise what they like, and none of it is worth a training
            self._open.pop(name, None)
            reason = " ".join(str(error).split()) or type(error).__name__
            what = f"tracker '{name}' failed and gets nothing more" if name else f"cannot write '{self._file}'"
            warnings.warn(f"{what}; the run continues ({shortened(reason)})", stacklevel=3)


class TensorBoard:
    """An event file; see `TensorBoardWriter`."""

    def __init__(self, folder: Path, first_step: int):
        self.identifiers: dict[str, str] = {}
        self._files = AppendedFiles(folder)
        self._events = TensorBoardWriter(self._files.folder, first_step)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars of a step."""
        self._events.add(step, scalars)
        self._events.flush()

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Write an image."""
        self._events.add_image(step, name, png)

    scores = log

    def close(self, status: str) -> None:
        """Close the file."""
        del status
        with contextlib.closing(self._files):
            self._events.close()
            self._files.publish()


class WandbRun:
    """A run of Weights & Biases, in the project `WANDB_PROJECT` or "anchor_jax"; the variables of its client apply."""

    def __init__(self, run: Run, known: Mapping[str, str], folder: Path):
        wandb = self._wandb = importlib.import_module("wandb")
        options = {"id": known["id"], "resume": "allow"} if known else {}
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or _PROJECT,
            name=os.environ.get("WANDB_NAME") or resolved(run.workdir).name,
            dir=None if is_remote(folder) else str(folder),  # by default $WANDB_DIR or the current folder
            config={key: of if isinstance(of, int | float) else str(of) for key, of in flatten(run.config).items()},
            allow_val_change=True,
            settings=wandb.Settings(console="off"),
            **options,
        )

    @property
    def identifiers(self) -> dict[str, str]:
        """The id of the run."""
        return {"id": str(self._run.id)}

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log the metrics of a step."""
        self._run.log(dict(scalars), step=step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Log an image."""
        # earlier steps than the last one would be dropped, such as those of an earlier checkpoint that is evaluated
        self._run.log({name: self._wandb.Image(_image(png))}, step=max(step, self._run.step))

    def scores(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the scores, and the step that they belong to, into the summary of the run."""
        steps = {f"{name.partition('/')[0]}/step": step for name in scalars}  # such as "eval/step"
        self._run.summary.update({**scalars, **steps})

    def close(self, status: str) -> None:
        """Finish the run; one that was stopped is no failure."""
        self._run.finish(exit_code=int(status == "FAILED"))


class MlflowRun:
    """A run of MLflow at `MLFLOW_TRACKING_URI`, by default the folder `mlruns` of the run, on this machine.

    Its experiment is `MLFLOW_EXPERIMENT_NAME`, or "anchor_jax".
    """

    def __init__(self, run: Run, known: Mapping[str, str], folder: Path):
        # a server that is gone holds up a training for seconds, not for the client's ten minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._mlflow = importlib.import_module("mlflow")
        uri = os.environ.get("MLFLOW_TRACKING_URI") or known.get("uri") or _local_store(folder)
        self._client = self._mlflow.MlflowClient(tracking_uri=uri)
        public = re.sub("//[^/@]*@", "//", uri)  # without a password
        is_known = known.get("uri") == public
        self._id = known["id"] if is_known else self._create(run)
        self.identifiers = {"id": self._id, "uri": public}
        if is_known:
            self._client.update_run(self._id, status="RUNNING")

    def _create(self, run: Run) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _PROJECT
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        created = self._client.create_run(experiment, run_name=resolved(run.workdir).name).info.run_id
        make = self._mlflow.entities.Param
        params = [make(key, str(value)[:_MAX_VALUE]) for key, value in flatten(run.config).items()]
        for start in range(0, len(params), _MAX_PARAMS):
            self._client.log_batch(created, params=params[start : start + _MAX_PARAMS])
        return created

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log the metrics of a step; letters that names must not have become underscores."""
        make, now = self._mlflow.entities.Metric, int(1000 * time.time())
        metrics = [make(re.sub(r"[^\w\-. /]", "_", name), value, now, step) for name, value in scalars.items()]
        for start in range(0, len(metrics), _MAX_METRICS):
            self._client.log_batch(self._id, metrics=metrics[start : start + _MAX_METRICS])

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Log an image."""
        self._client.log_image(self._id, np.asarray(_image(png)), key=name, step=step)

    scores = log

    def close(self, status: str) -> None:
        """Set the status of the run."""
        self._client.set_terminated(self._id, status)


def shortened(text: str) -> str:
    """Return at most 200 letters of a message."""
    return text if len(text) <= 200 else text[:199] + "…"


def _local_store(folder: Path) -> str:
    """Return the address of MLflow's store in the folder of a run."""
    if is_remote(folder):
        raise UserError(f"MLflow cannot write to '{folder}'; set MLFLOW_TRACKING_URI to a server or a local folder")
    return (folder / "mlruns").resolve().as_uri()


def _image(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {name: of for name, of in content.items() if {"identifiers", "sent"} <= of.keys()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        warnings.warn(f"'{file}' is corrupt ({error}): trackers start new runs", stacklevel=2)
        return {}
