"""Compare the folders of two finished runs."""

import json
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from tensorboardX.proto import event_pb2

_TIMES = ("images_per_second", "input_wait", "seconds")  # keys that differ between any two runs
_MAX_NAMES = 5  # per kind of difference
_PROTOCOL: Any = event_pb2  # its classes are created at import


def differences(clean: Path, other: Path) -> dict[str, list[str]]:
    """Return the differences of a run from an uninterrupted one, by what is compared; all lists are empty if none.

    Args:
      clean: folder of the uninterrupted run.
      other: folder of the other run.
    """
    readers: dict[str, Callable[[Path], Mapping[str, Any]]] = {
        "checkpoints": _checkpoints,
        "metrics.jsonl": _lines,
        "TensorBoard": _events,
        "results of eval.py": _results,
        "files": _files,
    }
    return {name: list(_compare(read(clean), read(other))) for name, read in readers.items()}


def _compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    missing, added = sorted(one.keys() - other.keys()), sorted(other.keys() - one.keys())
    changed = sorted(key for key in one.keys() & other.keys() if one[key] != other[key])
    for kind, names in (("missing", missing), ("added", added), ("changed", changed)):
        yield from (f"{kind}: {name}" for name in names[:_MAX_NAMES])
        if len(names) > _MAX_NAMES:
            yield f"{kind}: {len(names) - _MAX_NAMES} more"


def _checkpoints(workdir: Path) -> dict[str, Any]:
    """Return shape, dtype and bytes of every array of every checkpoint, or the error if one cannot be read."""
    arrays: dict[str, Any] = {}
    with ocp.PyTreeCheckpointer() as checkpointer, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sharding info not provided")  # the saved sharding is wanted
        for item in (workdir / "checkpoints").glob("[0-9]*/*/_METADATA"):
            item_name = str(item.parent.relative_to(workdir / "checkpoints"))
            try:
                restored = checkpointer.restore(item.parent.absolute())
            except ValueError as error:  # incomplete
                arrays[item_name] = str(error)
                continue
            for place, leaf in jax.tree_util.tree_leaves_with_path(restored):
                array = np.asarray(leaf)
                arrays[f"{item_name}{jax.tree_util.keystr(place)}"] = array.shape, array.dtype, array.tobytes()
    return arrays


def _lines(workdir: Path) -> dict[str, Any]:
    """Return the lines of metrics.jsonl in order, without times."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {f"line {number}": _without_times(json.loads(line)) for number, line in enumerate(lines, start=1)}


def _events(workdir: Path) -> dict[str, list[float]]:
    """Return what TensorBoard shows for each tag and step, which should be a single value."""
    shown: list[tuple[str, int, float]] = []
    for file in sorted((workdir / "tensorboard").glob("events.*")):
        for event in _read_events(file):
            if event.session_log.status == _PROTOCOL.SessionLog.START:
                shown = [each for each in shown if each[1] < event.step]
            shown += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    values: dict[str, list[float]] = {}
    for tag, step, value in shown:
        values.setdefault(f"{tag} of step {step}", []).append(0.0 if tag.endswith(_TIMES) else value)
    return values


def _read_events(file: Path) -> Iterator[Any]:
    """Yield all events up to an incomplete one; a record is length, checksum, event, checksum."""
    content, place = file.read_bytes(), 0
    while place + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        record = content[place + 12 : place + 12 + length]
        if len(record) < length:
            return
        yield _PROTOCOL.Event.FromString(record)
        place += 12 + length + 4


def _results(workdir: Path) -> dict[str, Any]:
    """Return the JSON files of eval.py, without times."""
    files = {str(file.relative_to(workdir)): file.read_text() for file in (workdir / "eval").rglob("*.json")}
    return {name: _without_times(json.loads(text)) for name, text in files.items()}


def _files(workdir: Path) -> dict[str, None]:
    """Return the names of all files, except inside a checkpoint's items and TensorBoard's, which have random names."""
    names = {str(_stable_part(file.relative_to(workdir))) for file in workdir.rglob("*")}
    return dict.fromkeys(names)


def _stable_part(file: Path) -> Path:
    depth = {"checkpoints": 3, "tensorboard": 1}.get(file.parts[0], len(file.parts))
    return Path(*file.parts[:depth])


def _without_times(value: Any) -> Any:
    """Remove times and the name of the folder from a JSON value."""
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if not key.endswith((*_TIMES, "workdir"))}
    return [_without_times(each) for each in value] if isinstance(value, list) else value
