"""Verified reading of checkpoints: corrupt ones are recognized, skipped and moved away.

Each checkpoint has a record with the fingerprint of every array and a digest of itself. Whatever is read is compared
with it.
"""

# orbax has partly unknown types and no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

import errno
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import orbax.checkpoint as ocp

from anchor_jax.core.errors import CorruptDataWarning, UserError
from anchor_jax.runs.fingerprint import fingerprints
from anchor_jax.runtime import multihost
from anchor_jax.runtime.atomic_files import move
from anchor_jax.runtime.object_storage import is_remote, path_of, reason_of

RECORD = "record"  # item of a checkpoint
METRIC = "accuracy"  # the score of the evaluation during training that selects the best checkpoint
CORRUPT_DIR = "damaged"  # folder in the workdir to which corrupt checkpoints are moved

# Errors of tensorstore that come from the machine, not from the files.
_MACHINE_ERRORS = re.compile(
    "PERMISSION_DENIED|UNAUTHENTICATED|RESOURCE_EXHAUSTED|UNAVAILABLE|DEADLINE_EXCEEDED|CANCELLED"
)

Record: TypeAlias = dict[str, Any]  # the record of a checkpoint, as stored in JSON
Items: TypeAlias = dict[str, Any]  # the items of a checkpoint: trees of arrays by name
Result = TypeVar("Result")


class ValidCheckpoint(NamedTuple):
    """A checkpoint that was read and verified."""

    step: int
    record: Record
    items: Items
    corrupt: dict[int, UserError]  # why later checkpoints cannot be read, by step


class CorruptCheckpointError(UserError):
    """A checkpoint does not contain what was saved, or does not fit the model."""


def digest(record: Record) -> str:
    """Return the SHA-256 of a record, without its own "sha256"."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def latest_valid(
    checkpoints: ocp.CheckpointManager, steps: Sequence[int], like: Mapping[str, Any], *, may_move: bool
) -> ValidCheckpoint:
    """Read the first of some checkpoints that all processes can read.

    Args:
      checkpoints: the run's checkpoints.
      steps: the steps to try, in this order; at least one.
      like: the items to read, as trees of `jax.ShapeDtypeStruct`.
      may_move: whether to move a checkpoint away that only some processes cannot read.

    Raises:
      UserError: none of them can be read, the machine fails, or only some processes can read one.
    """
    corrupt: dict[int, UserError] = {}
    for step in steps:
        folder = path_of(checkpoints.directory / str(step))
        try:
            record, items = _read_on_all(partial(_read, checkpoints, like, step), folder, may_move=may_move)
            _compare_fingerprints(record, items, folder)  # with the same result on all processes
        except CorruptCheckpointError as error:
            corrupt[step] = error
        else:
            return ValidCheckpoint(step, record, items, corrupt)
    others = f"; no other can be read either: {', '.join(map(str, steps[1:]))}" if len(steps) > 1 else ""
    raise UserError(f"{corrupt[steps[0]]}{others}")


def agreed_steps(checkpoints: ocp.CheckpointManager) -> list[int]:
    """Return the steps of all checkpoints that process 0 sees, the latest first."""
    steps = sorted(checkpoints.all_steps(), reverse=True)
    number = multihost.broadcast_from_primary(len(steps))
    return [multihost.broadcast_from_primary(steps[index] if index < len(steps) else -1) for index in range(number)]


def move_corrupt_checkpoints_away(checkpoints: ocp.CheckpointManager, valid: ValidCheckpoint) -> None:
    """Move the checkpoints that are later than the valid one to `CORRUPT_DIR`, since the run resumes before them."""
    for step, error in valid.corrupt.items():
        folder = path_of(checkpoints.directory / str(step))
        multihost.on_primary(partial(_move_checkpoint_away, folder, error, valid.step), f"corrupt {step}")
    if valid.corrupt:
        checkpoints.reload()


def move_corrupt_scores_away(workdir: Path) -> None:
    """Move corrupt scores to `CORRUPT_DIR`: orbax reads all of them first, and a checkpoint without them is usable."""
    for file in (workdir / "checkpoints").glob("*/metrics/metrics"):
        try:
            float(json.loads(file.read_text())[METRIC])
        except (ValueError, KeyError, TypeError):
            target = _move(file, workdir / CORRUPT_DIR / f"{file.parts[-3]}-metrics")
            warnings.warn(
                f"the scores of checkpoint '{file.parents[1]}' are corrupt; they were moved to '{target}'",
                CorruptDataWarning,
                stacklevel=2,
            )


def reason(error: Exception) -> str:
    """Return the first line of an error: both ends of a long one, since tensorstore names the cause last."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line if len(line) <= 500 else f"{line[:200]} … {line[-300:]}"


def _read_on_all(read: Callable[[], Result], folder: Path, *, may_move: bool) -> Result:
    """Read a checkpoint, and check that all processes can read it, or none can.

    If only some can, the others are stuck in the middle of reading it: all of them must end and start again without it.
    """
    try:
        result = read()
    except CorruptCheckpointError as error:
        if multihost.all_arrive(f"{folder.name} is corrupt"):
            raise
        message = f"{error}, but only on some processes"
        if may_move:
            message += f"; it was moved to '{_move(folder, folder.parents[1] / CORRUPT_DIR / folder.name)}'"
        raise UserError(f"{message}; start the same command again on all hosts") from error
    multihost.barrier(f"{folder.name} is read")
    return result


def _read(checkpoints: ocp.CheckpointManager, like: Mapping[str, Any], step: int) -> tuple[Record, Items]:
    """Read the record of a checkpoint, and the items that `like` has."""
    folder = checkpoints.directory / str(step)
    args: dict[str, Any] = {name: ocp.args.StandardRestore(shapes) for name, shapes in like.items()}
    args[RECORD] = ocp.args.JsonRestore()
    try:
        restored: Any = checkpoints.restore(step, args=ocp.args.Composite(**args))
        record: Record = restored[RECORD]
        if record.pop("sha256") != digest(record):
            raise ValueError("its record is not the one that was saved")
    except Exception as error:  # orbax and tensorstore raise many types of errors for corrupt files
        if _is_of_machine(error, is_bucket=is_remote(path_of(folder))):
            raise UserError(
                f"cannot read '{folder}' at the moment ({reason(error)}); nothing was changed; start the same command "
                "again"
            ) from error
        raise CorruptCheckpointError(
            f"checkpoint '{folder}' is corrupt or does not fit the model ({reason(error)})"
        ) from error
    return record, {name: restored[name] for name in like}


def _is_of_machine(error: Exception, *, is_bucket: bool) -> bool:
    """Return whether the machine or the connection to a bucket failed, as opposed to the files being corrupt."""
    if is_bucket and ((isinstance(error, OSError) and not isinstance(error, FileNotFoundError)) or reason_of(error)):
        return True
    if isinstance(error, OSError):
        return error.errno not in (None, errno.ENOENT, errno.EIO, errno.EISDIR, errno.ENOTDIR)
    return isinstance(error, MemoryError) or _MACHINE_ERRORS.search(str(error)) is not None


def _compare_fingerprints(record: Record, items: Items, folder: Path) -> None:
    for item, arrays in items.items():
        saved, read = record["fingerprints"][item], fingerprints(arrays)
        different = [name for name in read if saved.get(name) != read[name]]
        if different:
            raise CorruptCheckpointError(
                f"checkpoint '{folder}' is corrupt ({item}/{different[0]} is not what was saved)"
            )


def _move_checkpoint_away(folder: Path, error: UserError, resumed: int) -> None:
    target = _move(folder, folder.parents[1] / CORRUPT_DIR / folder.name)
    message = f"{error}; it was moved to '{target}', and steps {resumed + 1} to {folder.name} are repeated"
    warnings.warn(message, CorruptDataWarning, stacklevel=2)


def _move(source: Path, target: Path) -> Path:
    """Move a file or folder; append a number to the target if it exists. Return the new path."""
    name, number = target.name, 1
    while target.exists():
        number += 1
        target = target.with_name(f"{name}-{number}")
    return move(source, target)
