"""Where the data of a run are: where its config says, where they were at training, or where they have moved since."""

import contextlib
import dataclasses
import os
import re
import warnings
from collections.abc import Generator
from pathlib import Path

from anchor_jax.config import DataConfig
from anchor_jax.core.errors import UserError
from anchor_jax.data.sources import SOURCES
from anchor_jax.data.sources.tfds import tfds_data_dir
from anchor_jax.runs.record import Run
from anchor_jax.runtime.object_storage import is_address
from anchor_jax.runtime.paths import absolute_storage_path, storage_path


def locate(run: Run, data_path: str | os.PathLike[str] | None = None) -> Run:
    """Return a run whose `config.data.path` is where its data are now.

    Args:
      run: as recorded. A relative path means the place that it meant at training, if the data are still there; else it
        is relative to the current folder.
      data_path: the new place of moved data, which takes the place of `config.data.path`; None if they have not moved.

    Raises:
      UserTypeError: `data_path` is not a path.
      UserError: the data of the run are part of a package, or there is nothing at `data_path`.
    """
    if data_path is None:
        return _with_path(run, _recorded_path(run))
    data_path = storage_path("data_path", data_path)
    data = run.config.data
    if place_of(data) is None:
        raise UserError(f"--data_path does not apply to a run on data.source='{data.source}'; omit it")
    moved = _with_path(run, str(data_path))
    if not _exists(moved.config.data):
        raise UserError(
            f"no data of the run at '{place_of(moved.config.data)}'; --data_path takes the place of config.data.path, "
            f"which is '{data.path}'"
        )
    return moved


def place_of(data: DataConfig) -> Path | None:
    """Return the absolute path of a dataset; None if the source has no files."""
    if data.source not in SOURCES:
        return None
    if SOURCES[data.source].located_by == "path":
        return absolute_storage_path("data.path", data.path)
    return tfds_data_dir(data.path) / re.split("[/:]", data.name)[0] if data.source == "tfds" else None


@contextlib.contextmanager
def explain_moved_data(run: Run, flag: str) -> Generator[None]:
    """Add to an error about missing data where they were at training, and what to do if they have moved.

    Args:
      run: whose data are read; its config says where they should be.
      flag: that takes their new place.
    """
    try:
        yield
    except UserError as error:
        if place_of(run.config.data) is None or _exists(run.config.data):
            raise
        were = f", which were at '{run.data_path}' at training," if run.data_path else ""
        raise UserError(f"{error}; if the data{were} have moved, give their new place as {flag}") from error


def _recorded_path(run: Run) -> str:
    """Return the path to use, after a warning if it is another place than at training."""
    data, recorded = run.config.data, run.data_path
    if not recorded or _is_absolute(data.path) or place_of(data) is None:
        return data.path
    there = _with_path(run, recorded).config.data
    if data.path and _exists(there):
        return recorded
    if not data.path:  # of tfds, whose default place may have changed
        return data.path if _exists(data) or not _exists(there) else recorded
    if _exists(data):
        warnings.warn(
            f"the data of the run are no longer at '{recorded}'; those at '{place_of(data)}' are used, because "
            f"config.data.path is '{data.path}'",
            stacklevel=2,
        )
    return data.path


def _is_absolute(path: str) -> bool:
    return os.path.isabs(os.path.expanduser(path)) or is_address(path)


def _exists(data: DataConfig) -> bool:
    place = place_of(data)
    return place is None or place.exists()


def _with_path(run: Run, path: str) -> Run:
    if path == run.config.data.path:
        return run
    config = run.config.copy_and_resolve_references()
    config.data.path = path
    return dataclasses.replace(run, config=config)
