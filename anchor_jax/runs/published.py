"""A run as it is published: its record, its references and one checkpoint, in files that hold no code.

run.json            the record, with the names of files and folders instead of their paths
references.npz      pixels of the references, of an anchored run
model.safetensors   the variables by name, such as "params/head/kernel", and the step in its metadata

`record.load` reads such a folder like that of any run, and `load.load_checkpoint` its only checkpoint.
"""

# Flax and safetensors have partly unknown types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.runs import record as run_record
from anchor_jax.runs.record import RECORD, REFERENCES, Run
from anchor_jax.runs.state import Variables
from anchor_jax.runtime.object_storage import local_file

WEIGHTS = "model.safetensors"
FILES = (RECORD, REFERENCES, WEIGHTS)
_FORMAT = "anchor_jax.published/1"
_LOCAL = ("data_path", "changes")  # of a record: paths and the history of the folder
_PATHS = (("data", "path"), ("data", "classes"), ("augmentation", "mixing_images_dir"))  # of a config


def is_published(folder: Path) -> bool:
    """Return whether a folder holds a published run, which has no checkpoints to resume from."""
    return (folder / WEIGHTS).is_file() and not (folder / "checkpoints").exists()


def check_can_train(folder: Path) -> None:
    """Raise a `UserError` if a folder holds a published run."""
    if is_published(folder):
        raise UserError(
            f"'{folder}' holds a published model, which has no checkpoint to resume from; choose another --workdir"
        )


def write(folder: Path, run: Run, step: int, variables: Variables) -> None:
    """Write a run and the variables of one checkpoint to an empty folder.

    Args:
      folder: it must exist.
      run: a run that has a record.
      step: step of the checkpoint.
      variables: of the checkpoint, on one device or replicated.
    """
    assert run.record is not None
    record = {key: value for key, value in json.loads(run.record).items() if key not in _LOCAL}
    # that of the run says how it reads images, where that of an earlier version leaves it open
    record["config"] = run.config.to_dict()
    for section, key in _PATHS:
        record["config"][section][key] = Path(record["config"][section][key]).name
    source, colon, file = record["config"]["model"]["weights"].partition(":")
    record["config"]["model"]["weights"] = source + colon + Path(file).name
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    if run.references is not None:
        (folder / REFERENCES).write_bytes((run.workdir / REFERENCES).read_bytes())
    named: dict[Any, Any] = flatten_dict(variables, sep="/")
    arrays = {name: np.ascontiguousarray(jax.device_get(array)) for name, array in named.items()}
    metadata = {"format": _FORMAT, "step": str(step)}
    safetensors.numpy.save_file(arrays, folder / WEIGHTS, metadata)


def read_variables(folder: Path, like: Variables, which: int | str) -> tuple[int, Variables]:
    """Return the step and the variables of a published run, on the host.

    Args:
      folder: see `is_published`.
      like: shapes of the variables.
      which: the step, or "latest".

    Raises:
      UserTypeError: `which` is neither an integer nor a string.
      UserError: another step is asked for, or the file is corrupt or does not fit the model.
    """
    file = folder / WEIGHTS
    try:
        with local_file(file) as local:
            with safetensors.safe_open(local, "numpy") as opened:
                metadata: dict[str, str] = opened.metadata() or {}
            arrays = safetensors.numpy.load_file(local)
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT}")
        step = int(metadata["step"])
    except Exception as error:  # corrupt files raise many types
        raise UserError(f"cannot read '{file}' ({str(error)[:200]}); download or push it again") from error
    if which != "latest" and (isinstance(which, str) or checks.integer("step", which) != step):
        raise UserError(f"a published model has one checkpoint; here it is step {step}; got {which}")

    def read(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray[Any, Any]:
        name = "/".join(str(part.key) for part in path)
        array = arrays.pop(name, None)
        if array is None or (array.shape, array.dtype) != (shape.shape, shape.dtype):
            raise UserError(f"'{file}' does not fit the model of {RECORD}: {name} is missing or of another shape")
        return array

    variables = jax.tree_util.tree_map_with_path(read, like)
    if arrays:
        raise UserError(f"'{file}' does not fit the model of {RECORD}: it holds {', '.join([*arrays][:4])} as well")
    return step, variables


def load(folder: Path) -> Run:
    """Load a published run.

    Raises:
      UserError: the folder does not hold one.
    """
    if not (folder / RECORD).is_file() or not is_published(folder):
        raise UserError(f"'{folder}' holds no model that anchor-jax push has written: it needs {RECORD} and {WEIGHTS}")
    return run_record.load(folder)
