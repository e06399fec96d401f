"""Checkpoints of a run by orbax: asynchronous, atomic, the newest few and the best; a damaged one is known as such.

Beside the arrays each has a record: what the steps since the last report have summed up, and the fingerprint of every
array and of the record itself, with which what is read is compared.
"""

import contextlib
import errno
import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from anchor_jax.config import Config
from anchor_jax.core import checks
from anchor_jax.core.errors import CorruptDataWarning, UserError
from anchor_jax.runs.divergence import divergence_error
from anchor_jax.runs.fingerprint import all_finite, fingerprints
from anchor_jax.runs.state import Carry, NonFiniteCounter, Totals, TrainState, variables
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.runtime import multihost

METRIC = "accuracy"  # of the evaluation in training, by which the best is known
VARIABLES, OPT_STATE, AVERAGE, RECORD = "variables", "opt_state", "average", "record"  # items of a checkpoint
CORRUPT_DIR = "damaged"  # folder of a run to which checkpoints go that cannot be read
_DELETED = "deleted"  # folder of old checkpoints on their way out: a half deleted one is never taken for a whole one

# what tensorstore says where the machine fails
_OF_MACHINE = re.compile("PERMISSION_DENIED|RESOURCE_EXHAUSTED|UNAVAILABLE|DEADLINE_EXCEEDED|CANCELLED")

_RENAMED_FIELDS = {"in_a_row": "consecutive"}  # of version 0.1 -> its name now

Result = TypeVar("Result")


class Snapshot(NamedTuple):
    """What goes on from step to step, and up to which of them it was reported."""

    carry: Carry
    reported: int  # the last step of a report; -1 where there was none


class _CorruptCheckpoint(UserError):  # noqa: N818
    """A checkpoint does not hold what was saved, or what is asked for."""


def _manager(workdir: Path, config: Config, *, read_only: bool = False) -> ocp.CheckpointManager:
    """Keeps the newest `config.checkpoint.keep` checkpoints and the best one of those that were evaluated."""

    def score(metrics):
        return metrics[METRIC]

    best = BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
    options = ocp.CheckpointManagerOptions(
        best_fn=score,
        preservation_policy=AnyPreservationPolicy([LatestN(config.checkpoint.keep), best]),
        read_only=read_only,
        create=not read_only,
        cleanup_tmp_directories=not read_only,
        todelete_subdir=None if read_only else _DELETED,
    )
    return ocp.CheckpointManager((workdir / "checkpoints").absolute(), options=options)


@contextlib.contextmanager
def open_manager(workdir: Path, config: Config) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints of a run that goes on; in the end all that were saved are on disk.

    Raises:
      UserError: one of them could not be saved.
    """
    multihost.on_primary(partial(_put_damaged_scores_away, workdir), "scores")
    with _writing(workdir):
        checkpoints = _manager(workdir, config)
    try:
        yield checkpoints
        with _writing(workdir):
            checkpoints.wait_until_finished()
            _delete_old(checkpoints, config.checkpoint.keep)
    finally:
        with _writing(workdir):
            checkpoints.close()
            _remove_deleted(checkpoints)


def _put_damaged_scores_away(workdir):
    """Orbax reads all scores before anything else; a checkpoint without one is as good as any but for the best."""
    for file in (workdir / "checkpoints").glob("*/metrics/metrics"):
        try:
            float(json.loads(file.read_text())[METRIC])
        except (ValueError, KeyError, TypeError):
            place = _moved(file, workdir / CORRUPT_DIR / f"{file.parts[-3]}-metrics")
            warnings.warn(
                f"the scores of checkpoint '{file.parents[1]}' are damaged; they were moved to '{place}'",
                CorruptDataWarning,
                stacklevel=2,
            )


def _delete_old(checkpoints, keep):
    """Delete what one that was killed between a checkpoint and the deletions that follow has left."""
    for step in set(sorted(checkpoints.all_steps())[:-keep]) - {checkpoints.best_step()}:
        checkpoints.delete(step)


def has_checkpoints(workdir: Path) -> bool:
    """Whether a run has a checkpoint, complete or not."""
    return any(folder.name.isdigit() for folder in (workdir / "checkpoints").glob("*"))


def save(checkpoints: ocp.CheckpointManager, saved: Snapshot, metrics: dict[str, float] | None) -> None:
    """Save what goes on from step to step, in the background; what evaluation needs lies apart from the rest.

    Args:
      checkpoints: of the run.
      saved: the state, what the steps since the last report have summed up, and which that was.
      metrics: of the evaluation of the state; None where there was none: such a checkpoint cannot be the best.

    Raises:
      UserError: a number of the state is not finite, or the disk takes no more; checkpoints of before are kept.
    """
    (state, totals), reported = saved
    items, step = _items(state), int(state.step)
    if not all_finite(items):
        what = f"a number of the state is not finite after step {step} of '{checkpoints.directory.parent}'"
        raise divergence_error(what, checkpoints.latest_step())
    record = {
        "fingerprints": {name: fingerprints(item) for name, item in items.items()},
        "totals": {name: float(total) for name, total in mesh_lib.device_get_global(totals)._asdict().items()},
        "skipped": {name: int(number) for name, number in mesh_lib.device_get_global(state.skipped)._asdict().items()},
        "reported": reported,
    }
    record["sha256"] = _digest(record)
    args: dict[str, Any] = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    args[RECORD] = ocp.args.JsonSave(record)
    with _writing(checkpoints.directory.parent):
        checkpoints.save(step, args=ocp.args.Composite(**args), metrics=metrics)
        _remove_deleted(checkpoints)


def _remove_deleted(checkpoints):
    if multihost.is_primary():
        shutil.rmtree(checkpoints.directory / _DELETED, ignore_errors=True)


@contextlib.contextmanager
def _writing(workdir):
    """Tells what orbax could not write as a UserError."""
    try:
        yield
    except jax.errors.JaxRuntimeError:  # of a device or another process, not of the disk
        raise
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise UserError(
            f"cannot write to '{workdir / 'checkpoints'}' ({_reason(error)}); checkpoints that are complete are kept; "
            "see to the disk, then start the same command again"
        ) from error


def restore(checkpoints: ocp.CheckpointManager, like: Carry) -> Snapshot | None:
    """The newest that was saved and can be read, with shapes, dtypes and devices as in `like`; None if there is none.

    Newer ones that are damaged move to the run's folder `damaged/`, with a warning that says what is lost.

    Raises:
      UserError: there are checkpoints, and none can be read.
    """
    steps = _agreed_steps(checkpoints)
    if not steps:
        return None
    step, record, items, damaged = _latest_valid(checkpoints, steps, _items(like[0]), may_move=True)
    _give_up(checkpoints, damaged, step)
    return _saved(step, record, items, like)


def _latest_valid(checkpoints, steps, like, *, may_move):
    """The first of these steps that all processes can read, its record and items, and why those before it cannot be."""
    damaged: dict[int, UserError] = {}
    for step in steps:
        try:
            folder = checkpoints.directory / str(step)
            record, items = _by_all(partial(_read, checkpoints, like, step), folder, may_move=may_move)
            _compare(record, items, folder)  # which is the same for all processes
        except _CorruptCheckpoint as error:
            damaged[step] = error
        else:
            return step, record, items, damaged
    others = f"; nor can any other be read: {', '.join(map(str, steps[1:]))}" if len(steps) > 1 else ""
    raise UserError(f"{damaged[steps[0]]}{others}")


def _agreed_steps(checkpoints):
    """All steps there are, the newest first, as process 0 sees them."""
    steps = sorted(checkpoints.all_steps(), reverse=True)
    number = multihost.broadcast_from_primary(len(steps))
    return [multihost.broadcast_from_primary(steps[index] if index < len(steps) else -1) for index in range(number)]


def _by_all(read: Callable[[], Result], folder: Path, *, may_move: bool) -> Result:
    """What is read of a checkpoint, if all processes can read it or none can.

    Where only some can, those wait for the others in the middle of it: all must end, and begin anew without it.
    """
    try:
        found = read()
    except _CorruptCheckpoint as error:
        if multihost.all_arrive(f"{folder.name} is damaged"):
            raise
        told = f"{error}, for this process and not for all"
        if may_move:
            told += f"; it was moved to '{_moved(folder, folder.parents[1] / CORRUPT_DIR / folder.name)}'"
        raise UserError(f"{told}; start the same command again on all hosts") from error
    multihost.barrier(f"{folder.name} is read")
    return found


def _give_up(checkpoints, damaged, step):
    """Put checkpoints that are damaged out of the way, since a run goes on from an older one."""
    for lost, error in damaged.items():
        multihost.on_primary(partial(_put_away, checkpoints.directory / str(lost), error, step), f"damaged {lost}")
    if damaged:
        checkpoints.reload()


def _put_away(folder, error, step):
    place = _moved(folder, folder.parents[1] / CORRUPT_DIR / folder.name)
    told = f"{error}; it was moved to '{place}', and steps {step + 1} to {folder.name} are done again"
    warnings.warn(told, CorruptDataWarning, stacklevel=2)


def _moved(source: Path, place: Path) -> Path:
    """Move what is damaged out of the way, and over nothing that is there: where it is now."""
    name, number = place.name, 1
    while place.exists():
        number += 1
        place = place.with_name(f"{name}-{number}")
    place.parent.mkdir(exist_ok=True)
    return source.rename(place)


def _saved(step, record, items, like):
    mesh = like[0].step.sharding.mesh
    totals = _numbers(Totals, record["totals"], np.float32)
    skipped = _numbers(NonFiniteCounter, record["skipped"], np.int32).reset_longest(np.int32(step))
    done, totals, skipped = mesh_lib.replicate((np.int32(step), totals, skipped), mesh)
    average = items.get(AVERAGE, {})
    state = TrainState(done, **items[VARIABLES], opt_state=items[OPT_STATE], average=average, skipped=skipped)
    return Snapshot((state, totals), record["reported"])


def _numbers(kind, numbers, dtype):
    numbers = {_RENAMED_FIELDS.get(name, name): value for name, value in numbers.items()}
    return kind(**{name: dtype(numbers[name]) for name in kind._fields})


def _items(state: TrainState) -> dict[str, Any]:
    items = {VARIABLES: variables(state), OPT_STATE: state.opt_state}
    return items | ({AVERAGE: state.average} if state.average else {})


def restore_variables(workdir: Path, config: Config, like: Any, which: int | str) -> tuple[int, Any]:
    """Step and variables of a checkpoint, of the shapes and devices in `like`; `which` is a step, "latest" or "best".

    "latest" is the newest that can be read; there is a warning for each that cannot.

    Raises:
      UserTypeError: `which` is neither an integer nor a string.
      UserError: there is no such checkpoint, it is damaged, or it does not fit the model.
    """
    if not isinstance(which, str):
        which = checks.integer("step", which)
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"no checkpoint in '{workdir}' yet; train first")
    item = AVERAGE if config.training.ema_decay else VARIABLES
    with _quiet(), _reading(workdir), _manager(workdir, config, read_only=True) as checkpoints:
        steps = _agreed_steps(checkpoints)
        wanted = {"latest": steps, "best": [checkpoints.best_step()]}.get(str(which), [which])
        if not set(wanted) & set(steps):
            there_are = ", ".join(map(str, sorted(steps))) or "none"
            raise UserError(f"no checkpoint {which} in '{workdir}'; there are: {there_are}")
        step, _, items, damaged = _latest_valid(checkpoints, wanted, {item: like}, may_move=False)
    for error in damaged.values() if multihost.is_primary() else ():
        warnings.warn(f"{error}; that of step {step} is taken", CorruptDataWarning, stacklevel=2)
    return step, items[item]


@contextlib.contextmanager
def _reading(workdir):
    """Tells scores that are damaged, of which orbax makes many kinds of errors, as a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"cannot read the scores in '{workdir / 'checkpoints'}' ({_reason(error)}); the command of train.py puts "
            "them out of the way"
        ) from error


@contextlib.contextmanager
def _quiet():
    """Without orbax's warnings that what was asked to be read only is read only."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _read(checkpoints, like, step):
    """The record of a checkpoint, and those of its items that `like` has."""
    folder = checkpoints.directory / str(step)
    args: dict[str, Any] = {name: ocp.args.StandardRestore(shapes) for name, shapes in like.items()}
    args[RECORD] = ocp.args.JsonRestore()
    try:
        restored = checkpoints.restore(step, args=ocp.args.Composite(**args))
        record = restored[RECORD]
        if record.pop("sha256") != _digest(record):
            raise ValueError("its record is not the one that was saved")
    except Exception as error:  # orbax and tensorstore raise many kinds on damaged files
        if _passes(error):
            told = f"cannot read '{folder}' now ({_reason(error)}); nothing was changed: start the same command again"
            raise UserError(told) from error
        told = f"checkpoint '{folder}' is damaged or does not fit the model ({_reason(error)})"
        raise _CorruptCheckpoint(told) from error
    return record, {name: restored[name] for name in like}


def _passes(error: Exception) -> bool:
    """Whether it is the machine that fails, and not what is on the disk."""
    if isinstance(error, OSError):
        return error.errno not in (None, errno.ENOENT, errno.EIO, errno.EISDIR, errno.ENOTDIR)
    return isinstance(error, MemoryError) or _OF_MACHINE.search(str(error)) is not None


def _compare(record, items, folder):
    """Refuse arrays that are not those which were saved."""
    for item, arrays in items.items():
        saved, found = record["fingerprints"][item], fingerprints(arrays)
        differ = [name for name in found if saved.get(name) != found[name]]
        if differ:
            raise _CorruptCheckpoint(
                f"checkpoint '{folder}' is damaged ({item}/{differ[0]} does not hold what was saved)"
            )


def _digest(record):
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:500]
