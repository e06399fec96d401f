"""The state dict in the content of a checkpoint: which entry holds the weights that its framework evaluates."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.core.short_reprs import short_repr

Keys = tuple[str, ...]  # that lead to a mapping in nested ones
Candidates = Mapping[Keys, Mapping[str, Any]]  # the tensors of all mappings that hold any

# Entries that hold a state dict, the preferred one first. An average of the weights comes before all of them.
ENTRIES = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params")
# Parts of names that mark an average: timm's `state_dict_ema`, torchvision's `model_ema`, `swa_model`, the teacher of
# DINO and iBOT. The frameworks evaluate it and not the weights that it was taken of.
_AVERAGE = re.compile(r"(?:^|[^a-zA-Z])(?:ema|swa|avg|averaged?|polyak|shadow|teacher)(?=[^a-zA-Z]|$)|(?:Ema|EMA|SWA)")
_NOT_WEIGHTS = re.compile(r"optimizer|^optim|^opt$|scheduler|^scaler|^loops$")
TOP_LEVEL = "."  # the name of the entry that is the content itself
_MAX_DEPTH = 5  # of nested entries
_MAX_LISTED = 8  # names in a message


@short_repr
class StateDict(NamedTuple):
    """The tensors of one entry of a checkpoint.

    Attributes:
      tensors: arrays or `torch.Tensor` by name.
      entry: where they are in the checkpoint, such as "state_dict_ema"; "." for the top level.
      others: entries that hold other state dicts.
      left_out: all other keys of the checkpoint, such as "epoch" and "optimizer".
    """

    tensors: dict[str, Any]
    entry: str = TOP_LEVEL
    others: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def is_average(name: str) -> bool:
    """Return whether a name, such as of an entry or a module, says that its weights are an average."""
    return bool(_AVERAGE.search(name))


def listed(names: Iterable[str], limit: int = _MAX_LISTED) -> str:
    """Return the first names and the number of the others."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def find_state_dict(content: Any, entry: str = "") -> StateDict | None:
    """Return the state dict of a checkpoint, or of one entry of it; None if there is none.

    Without `entry`, the weights that the framework of the checkpoint evaluates are preferred: an average of the weights
    (timm, torchvision's references, callbacks of Lightning, DINO) before `ENTRIES`, and these before any other name.
    The averaging of Lightning and of mmengine stores the average as "state_dict".

    Args:
      content: of the checkpoint, nested mappings.
      entry: keys joined by dots, and then a prefix of the names of the tensors, such as "state_dict.teacher".

    Raises:
      UserError: there is no such entry.
    """
    candidates = dict(_candidates(content))
    if not entry and not candidates:
        return None
    path, prefix = _chosen(candidates, entry) if entry else (_preferred(candidates, content), "")
    tensors = {name.removeprefix(prefix): t for name, t in candidates[path].items() if name.startswith(prefix)}
    others = tuple(_joined(other) for other in _large(candidates) if other != path)
    outside = (".".join((*path, name.partition(".")[0])) for name in candidates[path] if not name.startswith(prefix))
    left_out = [key for key in (*_left_out(content, path), *dict.fromkeys(outside)) if key not in others]
    return StateDict(tensors, entry or _joined(path), others, tuple(left_out))


def _joined(path: Keys) -> str:
    """Return the name of an entry by its keys."""
    return ".".join(path) or TOP_LEVEL


def _candidates(content: Any, path: Keys = ()) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """Yield all mappings that hold tensors by name, each with its keys; optimizers are skipped."""
    if not isinstance(content, Mapping) or len(path) > _MAX_DEPTH:
        return
    if tensors := {key: value for key, value in content.items() if isinstance(key, str) and _is_tensor(value)}:
        yield path, tensors
    for key, value in content.items():
        if isinstance(key, str) and not _NOT_WEIGHTS.search(key):
            yield from _candidates(value, (*path, key))


def _is_tensor(value: Any) -> bool:
    """Return whether a value is an array; NumPy's scalars, such as a best accuracy, are not."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, np.generic)


def _large(candidates: Candidates) -> list[Keys]:
    """Return the candidates that can hold a whole network, unlike those with few tensors, such as a random state."""
    most = max(map(len, candidates.values()))
    return [path for path, tensors in candidates.items() if 2 * len(tensors) >= most]


def _preferred(candidates: Candidates, content: Mapping[str, Any]) -> Keys:
    """Return the keys of the state dict to take."""
    meta = content.get("meta")
    # mmengine swaps the average into "state_dict", Lightning's WeightAveraging too; see its "current_model_state"
    swapped = "current_model_state" in content or (isinstance(meta, Mapping) and "mmengine_version" in meta)

    def rank(path: Keys) -> tuple[bool, int, int]:
        # Lightning's StochasticWeightAveraging keeps "average_model_state", and evaluates "state_dict"
        average = not swapped and any(is_average(key) for key in path) and path[-1] != "average_model_state"
        known = min((ENTRIES.index(key) for key in path if key in ENTRIES), default=len(ENTRIES))
        return not average, known, -len(candidates[path])

    return min(_large(candidates), key=rank)


def _chosen(candidates: Candidates, entry: str) -> tuple[Keys, str]:
    """Return the keys of the state dict and the prefix of its names that an entry selects."""
    for path in sorted(candidates, key=len, reverse=True):
        start = ".".join((*path, ""))
        if entry == _joined(path):
            return path, ""
        prefix = entry.removeprefix(start) + "."
        if entry.startswith(start) and any(name.startswith(prefix) for name in candidates[path]):
            return path, prefix
    below = [path for path in candidates if _joined(path).startswith(entry + ".")]
    if below:  # the entry holds the state dict more deeply
        return max(below, key=lambda path: len(candidates[path])), ""
    raise UserError(f"there are no weights in '{entry}'; choose {listed(map(_described, candidates.items()))}")


def _described(candidate: tuple[Keys, Mapping[str, Any]]) -> str:
    """Return the name of an entry, and what the names of its tensors begin with."""
    path, tensors = candidate
    parts = dict.fromkeys(name.partition(".")[0] for name in tensors)
    return f"'{_joined(path)}' (whose names begin with {listed(parts, 4)})"


def _left_out(content: Any, path: Keys) -> Iterator[str]:
    """Yield all keys beside those that lead to a state dict, and what is in it besides tensors."""
    for depth, key in enumerate((*path, None)):
        for other, value in content.items():
            if other != key and not (key is None and isinstance(other, str) and _is_tensor(value)):
                yield ".".join((*path[:depth], str(other)))
        content = content[key] if key is not None else content
