"""What a finished run has left in its folder, and where two runs differ in it."""

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

_OF_TIME = ("images_per_second", "input_wait", "seconds")  # what no two runs share
_MOST_TOLD = 5
_PROTOCOL: Any = event_pb2  # whose classes are made when it is imported


def differences(clean: Path, hurt: Path) -> dict[str, list[str]]:
    """What there is to compare -> where a run that was hurt differs from the clean one: nothing, if it survived."""
    asked: dict[str, Callable[[Path], Mapping[str, Any]]] = {
        "checkpoints": _checkpoints,
        "metrics.jsonl": _lines,
        "TensorBoard": _events,
        "results of eval.py": _results,
        "files": _files,
    }
    return {name: list(_unlike(of(clean), of(hurt))) for name, of in asked.items()}


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    missing, added = sorted(one.keys() - other.keys()), sorted(other.keys() - one.keys())
    changed = sorted(key for key in one.keys() & other.keys() if one[key] != other[key])
    for kind, names in (("missing", missing), ("added", added), ("changed", changed)):
        yield from (f"{kind}: {name}" for name in names[:_MOST_TOLD])
        if len(names) > _MOST_TOLD:
            yield f"{kind}: {len(names) - _MOST_TOLD} more"


def _checkpoints(workdir: Path) -> dict[str, Any]:
    """Shape, dtype and bytes of every array of every checkpoint; what is wrong with one that cannot be read."""
    arrays: dict[str, Any] = {}
    with ocp.PyTreeCheckpointer() as checkpointer, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sharding info not provided")  # that which was saved is what is asked for
        for item in (workdir / "checkpoints").glob("[0-9]*/*/_METADATA"):
            item_name = str(item.parent.relative_to(workdir / "checkpoints"))
            try:
                restored = checkpointer.restore(item.parent.absolute())
            except ValueError as error:  # of one that is there in part
                arrays[item_name] = str(error)
                continue
            for place, leaf in jax.tree_util.tree_leaves_with_path(restored):
                array = np.asarray(leaf)
                arrays[f"{item_name}{jax.tree_util.keystr(place)}"] = array.shape, array.dtype, array.tobytes()
    return arrays


def _lines(workdir: Path) -> dict[str, Any]:
    """Lines of metrics.jsonl in their order, but for times."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {f"line {number}": _timeless(json.loads(line)) for number, line in enumerate(lines, start=1)}


def _events(workdir: Path) -> dict[str, list[float]]:
    """What TensorBoard shows of each tag and step, which should be one value."""
    shown: list[tuple[str, int, float]] = []
    for file in sorted((workdir / "tensorboard").glob("events.*")):
        for event in _events_of(file):
            if event.session_log.status == _PROTOCOL.SessionLog.START:
                shown = [each for each in shown if each[1] < event.step]
            shown += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    values: dict[str, list[float]] = {}
    for tag, step, value in shown:
        values.setdefault(f"{tag} of step {step}", []).append(0.0 if tag.endswith(_OF_TIME) else value)
    return values


def _events_of(file: Path) -> Iterator[Any]:
    """All events up to one that was cut off: length, its checksum, the event, its checksum."""
    content, place = file.read_bytes(), 0
    while place + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        record = content[place + 12 : place + 12 + length]
        if len(record) < length:
            return
        yield _PROTOCOL.Event.FromString(record)
        place += 12 + length + 4


def _results(workdir: Path) -> dict[str, Any]:
    """The JSON files of eval.py, but for times."""
    files = {str(file.relative_to(workdir)): file.read_text() for file in (workdir / "eval").rglob("*.json")}
    return {name: _timeless(json.loads(text)) for name, text in files.items()}


def _files(workdir: Path) -> dict[str, None]:
    """Names of all files, but for those in an item of a checkpoint, which orbax draws, and for TensorBoard's."""
    names = {str(_public(file.relative_to(workdir))) for file in workdir.rglob("*")}
    return dict.fromkeys(names)


def _public(file: Path) -> Path:
    depth = {"checkpoints": 3, "tensorboard": 1}.get(file.parts[0], len(file.parts))
    return Path(*file.parts[:depth])


def _timeless(value: Any) -> Any:
    """A value of JSON without times and the folder's own name."""
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if not key.endswith((*_OF_TIME, "workdir"))}
    return [_timeless(each) for each in value] if isinstance(value, list) else value
