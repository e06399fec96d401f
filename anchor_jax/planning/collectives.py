"""The communication of a program: its collectives by kind, and the time that the links between chips need."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from anchor_jax.planning.hlo import Instruction
from anchor_jax.planning.targets import Chip
from anchor_jax.planning.walk import Executed

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")


class Collectives(NamedTuple):
    """All collectives of one kind in a step.

    Attributes:
      kind: such as "all-reduce".
      times: how many run.
      num_bytes: of their results, on one device.
      seconds: that the link of a chip needs for them, if it is used in one direction at a time.
    """

    kind: str
    times: int
    num_bytes: int
    seconds: float


def collective_of(instruction: Instruction) -> str:
    """Return the kind of a collective; "" for any other instruction."""
    kind = instruction.opcode.removesuffix("-start")
    return kind if kind in KINDS else ""


def count_collectives(executed: Iterable[Executed], chip: Chip, num_devices: int) -> list[Collectives]:
    """Return the collectives by kind, the largest first."""
    sums: dict[str, Collectives] = {}
    for item in executed:
        kind = collective_of(item.instruction)
        if not kind:
            continue
        size = _result_bytes(item.instruction)
        seconds = size * _sent(kind, _group_size(item.instruction, num_devices)) / chip.link
        _, times, num_bytes, total = sums.get(kind, Collectives(kind, 0, 0, 0.0))
        sums[kind] = Collectives(kind, times + item.times, num_bytes + item.times * size, total + item.times * seconds)
    return sorted(sums.values(), key=lambda one: -one.num_bytes)


def _result_bytes(instruction: Instruction) -> int:
    """Return the bytes of the result; those that start a collective may return operands and results."""
    arrays = instruction.arrays
    if instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start":
        arrays = arrays[len(instruction.operands) : 2 * len(instruction.operands)] or arrays
    return sum(array.num_bytes for array in arrays)


def _group_size(instruction: Instruction, num_devices: int) -> int:
    """Return how many devices take part: of "replica_groups={{0,1},{2,3}}" or "replica_groups=[2,2]<=[4]"."""
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", instruction.attributes):
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", instruction.attributes):
        return int(found[1])
    return num_devices


def _sent(kind: str, size: int) -> float:
    """Return what each device sends, in sizes of the result, with the algorithms for rings."""
    if kind == "all-reduce":
        return 2 * (size - 1) / size
    if kind == "reduce-scatter":
        return size - 1.0
    return (size - 1) / size if kind in ("all-gather", "all-to-all") else 1.0
