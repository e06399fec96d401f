"""The names of the tensors of one family of networks in one source."""

import re
from collections.abc import Callable
from typing import NamedTuple

# leaf of a Flax module -> its name in PyTorch
LEAF_NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


class QKVSlice(NamedTuple):
    """One third of a PyTorch tensor that concatenates the parameters of queries, keys and values."""

    tensor: str
    part: int  # 0: queries, 1: keys, 2: values


TensorNames = tuple[str, ...] | QKVSlice  # several tensors are concatenated along their first axis
Names = str | tuple[str, ...] | QKVSlice


class NameTable(NamedTuple):
    """Names of the tensors of one family in the networks of one source.

    Attributes:
      block: (stage, block), both counted from 1 -> prefix of the names in that block.
      in_block: module or variable in a block -> names without the prefix.
      outside: module or variable outside of blocks -> names.
      has_position_buffers: whether the state dict contains the tables of relative positions.
      features: prefix of all names but those of the head, for sources that keep features in a module of their own.
    """

    block: Callable[[int, int], str]
    in_block: dict[str, Names]
    outside: dict[str, Names]
    has_position_buffers: bool = False
    features: str = ""

    def tensor_names(self, path: tuple[str, ...]) -> TensorNames | None:
        """Return the names of the tensors that hold a variable, such as ("head", "kernel"); None if there are none."""
        prefix, table = "" if path[0] == "head" else self.features, self.outside
        if block := re.fullmatch(r"(?:stage(\d+)_)?block(\d+)", path[0]):
            prefix, table, path = prefix + self.block(int(block[1] or 1), int(block[2])), self.in_block, path[1:]
        variable, module = "/".join(path), "/".join(path[:-1])
        if variable in table:
            names, suffix = table[variable], ""
        else:
            names, suffix = table.get(module, ()), f".{LEAF_NAMES.get(path[-1])}"
        if isinstance(names, QKVSlice):
            return names._replace(tensor=prefix + names.tensor)
        return tuple(prefix + name + suffix for name in ((names,) if isinstance(names, str) else names)) or None

    @property
    def head(self) -> str:
        """The name of the head, a linear layer."""
        return str(self.outside["head"])

    @property
    def first_layer(self) -> str:
        """The name of the kernel of the first layer."""
        (layer,) = (self.outside[layer] for layer in ("stem_conv", "patch_embedding") if layer in self.outside)
        return f"{self.features}{layer}.weight"

    def landmarks(self) -> set[str]:
        """Return names of modules and tensors that tell this network from others: those outside and in block 1."""
        outside = {
            self.features + name for key, names in self.outside.items() if key != "head" for name in _each(names)
        }
        block = self.features + self.block(1, 1)
        return outside | {block + name for names in self.in_block.values() for name in _each(names)} | {self.head}


def _each(names: Names) -> tuple[str, ...]:
    """Return all names in an entry of a table."""
    if isinstance(names, QKVSlice):
        return (names.tensor,)
    return (names,) if isinstance(names, str) else names
