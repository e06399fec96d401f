"""The network in a state dict: its tensors without prefixes, by the names of a table."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from anchor_jax.models.pytorch.entries import is_average, listed
from anchor_jax.models.pytorch.names import NameTable

# modules that wrap others anywhere in a network: data parallelism, averages, `torch.compile`, FSDP, checkpointing
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# parts of networks that take no part in classification: what transformers and MAE add for pretraining
_PRETRAINING = re.compile(r"(?:^|\.)(?:pooler\.dense\.|mask_token$)|^decoder_")


class Network(NamedTuple):
    """The tensors of a network, and what was done to find them.

    Attributes:
      tensors: arrays or `torch.Tensor`, by the names of a table.
      has_head: whether there are tensors of the head.
      notes: one description of each choice, for the user.
    """

    tensors: dict[str, Any]
    has_head: bool
    notes: tuple[str, ...]


def find_network(state_dict: Mapping[str, Any], tables: Sequence[NameTable]) -> Network:
    """Find a network in a state dict, which may hold it in a module or wrapped, besides other modules.

    Any prefix of names is removed, such as "model." of a Lightning module. If several modules hold such a network, an
    average ("ema") is preferred, and then the first. Tensors outside of the module are left out. Within it, only those
    for pretraining are, and a head that is not one linear layer.

    Args:
      state_dict: arrays or `torch.Tensor` by name.
      tables: names of the network.
    """
    tensors = _unwrapped(state_dict)
    prefixes = _prefixes(tensors, tables)
    prefix, notes = prefixes[0], []
    if prefix:
        notes.append(f"taken from '{prefix[:-1]}'")
    others = tuple(other for other in prefixes[1:] if other and not prefix.startswith(other))
    if others:
        notes.append(f"not from {listed(other[:-1] for other in others)}, which FILE#ENTRY would choose")
    network = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    left_out = [name for name in tensors if not name.startswith((prefix, *others)) and name != "n_averaged"]
    left_out += [name for name in network if _PRETRAINING.search(name)]
    network = {name: tensor for name, tensor in network.items() if not _PRETRAINING.search(name)}
    table = max(tables, key=lambda candidate: _matches(_modules(network), "", candidate))
    head = _head_tensors(network, table.head)
    if head is None:
        unusable = [name for name in network if _is_in(name, table.head.partition(".")[0])]
        left_out += unusable
        network = {name: tensor for name, tensor in network.items() if name not in unusable}
    elif head != table.head:
        notes.append(f"head read from '{head}'")
        for part in ("weight", "bias"):
            network[f"{table.head}.{part}"] = network.pop(f"{head}.{part}")
    if left_out:
        notes.append(f"left out: {listed(_grouped(left_out))}")
    return Network(network, head is not None, tuple(notes))


def _unwrapped(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Remove wrapping modules from all names, unless two names become equal."""
    tensors = {".".join(part for part in name.split(".") if part not in _WRAPPERS): t for name, t in state_dict.items()}
    return tensors if len(tensors) == len(state_dict) else dict(state_dict)


def _prefixes(tensors: Mapping[str, Any], tables: Iterable[NameTable]) -> list[str]:
    """Return the prefixes under which the network is as complete as anywhere, the one to take first."""
    modules, index = _modules(tensors), {name: index for index, name in enumerate(tensors)}
    candidates: dict[str, tuple[int, int]] = {}  # prefix -> number of matches, index of the first layer
    for table in tables:
        layers = [name for name in tensors if name.endswith("." + table.first_layer)]
        for prefix in ("", *(name.removesuffix(table.first_layer) for name in layers)):
            found = _matches(modules, prefix, table), -index.get(prefix + table.first_layer, len(index))
            candidates[prefix] = max(found, candidates.get(prefix, found))
    most = max(matches for matches, _ in candidates.values())
    best = [prefix for prefix, (matches, _) in candidates.items() if matches == most]
    # features without a head are found with and without a prefix such as "vit."; the longer one leaves out more
    return sorted(best, key=lambda prefix: (not is_average(prefix), -candidates[prefix][1], -len(prefix)))


def _grouped(names: Iterable[str]) -> Iterator[str]:
    """Yield the first parts of names with the number of tensors, or the name where it is only one."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition(".")[0], []).append(name)
    for part, members in groups.items():
        yield members[0] if len(members) == 1 else f"{part} ({len(members)} tensors)"


def _modules(tensors: Iterable[str]) -> set[str]:
    """Return the names of all tensors and of the modules that hold them."""
    return {name[: dot.start()] for name in tensors for dot in re.finditer(r"\.|$", name)}


def _matches(modules: set[str], prefix: str, table: NameTable) -> int:
    return sum(prefix + name in modules for name in table.landmarks())


def count_landmarks(tensors: Iterable[str], table: NameTable) -> float:
    """Return the fraction of a table's landmarks among the names of a network without prefixes."""
    return _matches(_modules(tensors), "", table) / len(table.landmarks())


def _is_in(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def _head_tensors(network: Mapping[str, Any], head: str) -> str | None:
    """Return the module that holds the tensors of the head: `head`, or the only linear layer in its place."""
    bias = network.get(f"{head}.bias")
    if bias is not None and tuple(bias.shape) == (1,):  # one logit is no classifier
        return None
    if bias is not None or f"{head}.weight" in network:
        return head
    members = {name for name in network if _is_in(name, head.partition(".")[0])}
    for module in {name.rpartition(".")[0] for name in members}:  # such as of Sequential(Dropout(), Linear())
        if members == {f"{module}.weight", f"{module}.bias"} and network[f"{module}.weight"].ndim == 2:
            return module
    return None
