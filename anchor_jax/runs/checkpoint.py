"""Checkpoints of a run by orbax: asynchronous and atomic; the latest ones and the best one are kept.

A checkpoint has these items: the variables, the optimizer state, the moving average if there is one, and a record with
the sums since the last log line and the fingerprints of all arrays (see `checkpoint_integrity`).
"""

# orbax has partly unknown types and no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

import contextlib
import shutil
import warnings
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import Mesh, NamedSharding
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from anchor_jax.config import Config
from anchor_jax.core import checks
from anchor_jax.core.errors import CorruptDataWarning, UserError
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.runs import bucket_checkpoints
from anchor_jax.runs import checkpoint_integrity as integrity
from anchor_jax.runs.checkpoint_integrity import METRIC, RECORD
from anchor_jax.runs.divergence import divergence_error
from anchor_jax.runs.fingerprint import all_finite, fingerprints
from anchor_jax.runs.state import Carry, NonFiniteCounter, Totals, TrainState, Variables, variables
from anchor_jax.runtime import leases, multihost, object_storage
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.runtime.paths import absolute

__all__ = ["METRIC", "Snapshot", "has_checkpoints", "open_manager", "restore", "restore_variables", "save"]

_VARIABLES, _OPT_STATE, _AVERAGE = "variables", "opt_state", "average"  # items, in addition to the record
_DELETED = "deleted"  # old checkpoints are moved here before they are deleted, so that a partial one is never read
_RENAMED_FIELDS = {"in_a_row": "consecutive"}  # field of a record of version 0.1 -> its name now

Numbers = TypeVar("Numbers", Totals, NonFiniteCounter)


@short_repr
class Snapshot(NamedTuple):
    """What a checkpoint saves and restores."""

    carry: Carry
    reported: int  # step of the last log line, after which the totals in `carry` begin; -1 if there is none


@contextlib.contextmanager
def open_manager(workdir: Path, config: Config) -> Generator[ocp.CheckpointManager]:
    """Open the checkpoints of a run for training; at the end, wait until all of them are written.

    Raises:
      UserError: a checkpoint could not be written.
    """
    multihost.on_primary(partial(integrity.move_corrupt_scores_away, workdir), "scores")
    with _writing_errors(workdir):
        checkpoints = _manager(workdir, config)
    try:
        yield checkpoints
        with _writing_errors(workdir):
            checkpoints.wait_until_finished()
            _delete_old(checkpoints, config.checkpoint.keep)
    finally:
        with _writing_errors(workdir):
            checkpoints.close()
            _empty_deleted(checkpoints)
            if multihost.is_primary() and not object_storage.is_remote(workdir):
                shutil.rmtree(checkpoints.directory / _DELETED, ignore_errors=True)


def has_checkpoints(workdir: Path) -> bool:
    """Return whether a run has a checkpoint, complete or not."""
    return any(folder.name.isdigit() for folder in (workdir / "checkpoints").glob("*"))


def save(checkpoints: ocp.CheckpointManager, snapshot: Snapshot, metrics: dict[str, float] | None) -> None:
    """Save a checkpoint in the background.

    Args:
      checkpoints: the run's checkpoints, see `open_manager`.
      snapshot: what to save.
      metrics: scores of the evaluation at this step, with `METRIC`; None if there was no evaluation. Only checkpoints
        with scores can be the best.

    Raises:
      UserError: the state contains NaN or infinity, or the disk fails; earlier checkpoints are kept.
    """
    (state, totals), reported = snapshot
    items, step = _items(state), int(state.step)
    if not all_finite(items):
        what = f"a number of the state is not finite after step {step} of '{checkpoints.directory.parent}'"
        raise divergence_error(what, checkpoints.latest_step())
    record: dict[str, Any] = {
        "fingerprints": {name: fingerprints(item) for name, item in items.items()},
        "totals": {name: float(total) for name, total in mesh_lib.device_get_global(totals)._asdict().items()},
        "skipped": {name: int(number) for name, number in mesh_lib.device_get_global(state.skipped)._asdict().items()},
        "reported": reported,
    }
    record["sha256"] = integrity.digest(record)
    args: dict[str, Any] = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    args[RECORD] = ocp.args.JsonSave(record)
    workdir = object_storage.path_of(checkpoints.directory.parent)
    leases.check_held(workdir)
    with _writing_errors(workdir):
        checkpoints.save(step, args=ocp.args.Composite(**args), metrics=metrics)
        _empty_deleted(checkpoints)


def restore(checkpoints: ocp.CheckpointManager, like: Carry) -> Snapshot | None:
    """Restore the latest valid checkpoint, to resume training.

    Later checkpoints that are corrupt move to the folder `damaged/` of the run, with a warning that names the steps to
    be repeated.

    Args:
      checkpoints: the run's checkpoints, see `open_manager`.
      like: shapes, dtypes and shardings of the carry, as `jax.ShapeDtypeStruct`.

    Returns:
      The snapshot; None if there are no checkpoints.

    Raises:
      UserError: there are checkpoints, but none can be read.
    """
    steps = integrity.agreed_steps(checkpoints)
    if not steps:
        return None
    valid = integrity.latest_valid(checkpoints, steps, _items(like[0]), may_move=True)
    integrity.move_corrupt_checkpoints_away(checkpoints, valid)
    return _snapshot(valid.step, valid.record, valid.items, like)


def restore_variables(workdir: Path, config: Config, like: Variables, which: int | str) -> tuple[int, Variables]:
    """Restore the variables to evaluate: the moving average if the run keeps one.

    Args:
      workdir: the run's folder.
      config: the run's config.
      like: shapes and shardings of the variables, as `jax.ShapeDtypeStruct`.
      which: a step, "latest" or "best". "latest" is the latest valid checkpoint, with a warning for each corrupt one.

    Returns:
      The step and its variables.

    Raises:
      UserTypeError: `which` is neither an integer nor a string.
      UserError: there is no such checkpoint, it is corrupt, or it does not fit the model.
    """
    if not isinstance(which, str):
        which = checks.integer("step", which)
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"no checkpoint in '{workdir}' yet; train first")
    item = _AVERAGE if config.training.ema_decay else _VARIABLES
    with (
        _quiet(),
        _reading_errors(workdir),
        contextlib.closing(_manager(workdir, config, read_only=True)) as checkpoints,
    ):
        valid = _read_selected(checkpoints, workdir, which, {item: like})
    for error in valid.corrupt.values() if multihost.is_primary() else ():
        warnings.warn(f"{error}; step {valid.step} is used instead", CorruptDataWarning, stacklevel=2)
    return valid.step, valid.items[item]


def _read_selected(
    checkpoints: ocp.CheckpointManager, workdir: Path, which: int | str, like: Mapping[str, Any]
) -> integrity.ValidCheckpoint:
    """Read the checkpoint that `restore_variables` selects; training may go on meanwhile, and delete old ones."""
    steps = integrity.agreed_steps(checkpoints)
    selected = {"latest": steps, "best": [checkpoints.best_step()]}.get(str(which), [which])
    existing = [step for step in selected if step in steps]
    if not existing:
        there_are = ", ".join(map(str, sorted(steps))) or "none"
        raise UserError(f"no checkpoint {which} in '{workdir}'; there are: {there_are}")
    try:
        valid = integrity.latest_valid(checkpoints, existing, like, may_move=False)
    except UserError:
        if not _were_deleted(checkpoints, existing):
            raise
        return _read_selected(checkpoints, workdir, which, like)
    return _read_selected(checkpoints, workdir, which, like) if _were_deleted(checkpoints, [*valid.corrupt]) else valid


def _were_deleted(checkpoints: ocp.CheckpointManager, steps: Sequence[int]) -> bool:
    """Return whether one of some checkpoints that were listed is gone."""
    if not steps:
        return False
    checkpoints.reload()
    return not set(steps) <= set(integrity.agreed_steps(checkpoints))


def _manager(workdir: Path, config: Config, *, read_only: bool = False) -> ocp.CheckpointManager:
    """Return a manager that keeps the latest `config.checkpoint.keep` checkpoints and the best evaluated one."""

    def score(metrics: Mapping[str, float]) -> float:
        return metrics[METRIC]

    best = BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
    folder = absolute(workdir / "checkpoints")
    of_deletion: dict[str, Any] = {"todelete_subdir": None if read_only else _DELETED}
    options = ocp.CheckpointManagerOptions(
        best_fn=score,
        preservation_policy=AnyPreservationPolicy([LatestN(config.checkpoint.keep), best]),
        read_only=read_only,
        create=not read_only,
        cleanup_tmp_directories=not read_only,
        **(of_deletion | bucket_checkpoints.manager_options(folder)),
    )
    return ocp.CheckpointManager(folder, options=options)


def _delete_old(checkpoints: ocp.CheckpointManager, keep: int) -> None:
    """Delete old checkpoints that a process left because it was killed between saving and deleting."""
    for step in set(sorted(checkpoints.all_steps())[:-keep]) - {checkpoints.best_step()}:
        checkpoints.delete(step)


def _empty_deleted(checkpoints: ocp.CheckpointManager) -> None:
    """Delete the checkpoints in the folder, not the folder itself: Orbax may be moving another one into it."""
    directory = object_storage.path_of(checkpoints.directory)
    if multihost.is_primary() and not object_storage.is_remote(directory):
        for folder in (directory / _DELETED).glob("*"):
            shutil.rmtree(folder, ignore_errors=True)


def _items(state: TrainState) -> dict[str, Any]:
    items = {_VARIABLES: variables(state), _OPT_STATE: state.opt_state}
    return items | ({_AVERAGE: state.average} if state.average else {})


def _snapshot(step: int, record: integrity.Record, items: integrity.Items, like: Carry) -> Snapshot:
    mesh = cast(Mesh, cast(NamedSharding, like[0].step.sharding).mesh)
    totals = _numbers(Totals, record["totals"], np.float32)
    skipped = _numbers(NonFiniteCounter, record["skipped"], np.int32).reset_longest(np.int32(step))
    done, totals, skipped = mesh_lib.replicate((np.int32(step), totals, skipped), mesh)
    state = TrainState(
        done, **items[_VARIABLES], opt_state=items[_OPT_STATE], average=items.get(_AVERAGE, {}), skipped=skipped
    )
    return Snapshot((state, totals), record["reported"])


def _numbers(kind: type[Numbers], recorded: Mapping[str, float], dtype: Any) -> Numbers:
    numbers = {_RENAMED_FIELDS.get(name, name): value for name, value in recorded.items()}
    return kind(**{name: dtype(numbers[name]) for name in kind._fields})


@contextlib.contextmanager
def _writing_errors(workdir: Path) -> Generator[None]:
    """Turn errors of orbax while writing into a `UserError`."""
    try:
        yield
    except jax.errors.JaxRuntimeError:  # of a device or another process, not of the disk
        raise
    except Exception as error:  # orbax and tensorstore raise many types of errors
        raise UserError(
            f"cannot write to '{workdir / 'checkpoints'}' ({integrity.reason(error)}); complete checkpoints are kept; "
            f"check the {'bucket' if object_storage.is_remote(workdir) else 'disk'}, then start the same command again"
        ) from error


@contextlib.contextmanager
def _reading_errors(workdir: Path) -> Generator[None]:
    """Turn errors of orbax on corrupt scores into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # orbax raises many types of errors
        raise UserError(
            f"cannot read the scores in '{workdir / 'checkpoints'}' ({integrity.reason(error)}); resuming the run with "
            "train.py moves corrupt ones away"
        ) from error


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Suppress orbax's warnings about a read-only manager."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
