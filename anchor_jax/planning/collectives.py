"""The communication of a program: its collectives by kind, and the time that the links between chips need."""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from anchor_jax.planning.hlo import Instruction, Module
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


def collectives_in(instruction: Instruction, module: Module) -> list[Instruction]:
    """Return an instruction if it is a collective, otherwise the collectives that it fuses.

    XLA for TPUs spreads an asynchronous collective over several fusions: they start it, advance it next to other
    computation, and end it. All of them name the same chain.
    """
    if collective_of(instruction):
        return [instruction]
    if instruction.opcode != "fusion":
        return []
    return [one for name in instruction.called("calls") for one in module.computations[name] if collective_of(one)]


def count_collectives(executed: Iterable[Executed], module: Module, chip: Chip, num_devices: int) -> list[Collectives]:
    """Return the collectives by kind, the largest first; those of one chain count once."""
    sums: dict[str, Collectives] = {}
    chains: set[tuple[str, str]] = set()
    for item in executed:
        for one in collectives_in(item.instruction, module):
            if found := re.search(r'\bchain_id="([^"]*)"', one.attributes):
                chain = item.computation.name, found[1]
                if chain in chains:
                    continue
                chains.add(chain)
            kind, size = _kind_and_bytes(one, item.instruction, module)
            seconds = size * _sent(kind, _group_size(one, num_devices)) / chip.link
            _, times, moved, total = sums.get(kind, Collectives(kind, 0, 0, 0.0))
            sums[kind] = Collectives(kind, times + item.times, moved + item.times * size, total + item.times * seconds)
    return sorted(sums.values(), key=lambda one: -one.num_bytes)


def _kind_and_bytes(collective: Instruction, executed: Instruction, module: Module) -> tuple[str, int]:
    """Return the kind of a collective, and the bytes of its result.

    XLA for TPUs may write a reduce-scatter as a fusion that returns a slice of an all-reduce.
    """
    kind = collective_of(collective)
    if kind == "all-reduce" and executed is not collective:
        (body,) = (module.computations[name] for name in executed.called("calls"))
        users = body.users(collective.name)
        if users and all(user.opcode == "dynamic-slice" for user in users):
            return "reduce-scatter", sum(user.num_bytes for user in users)
    return kind, collective.num_bytes


def _group_size(instruction: Instruction, num_devices: int) -> int:
    """Return how many devices take part in each group: 2 in the examples in the comments."""
    attributes = instruction.attributes
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):  # {{0,1},{2,3}}
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):  # [2,2]<=[4]
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", attributes):  # mesh['a'=2,'b'=2] {'b'}
        sides = dict(re.findall(r"'([^']*)'=(\d+)", found[1]))
        return math.prod(int(sides[axis]) for axis in re.findall(r"'([^']*)'", found[2]))
    return num_devices


def _sent(kind: str, size: int) -> float:
    """Return what each device sends, in sizes of the result, with the algorithms for rings."""
    if kind == "all-reduce":
        return 2 * (size - 1) / size
    if kind == "reduce-scatter":
        return size - 1.0
    return (size - 1) / size if kind in ("all-gather", "all-to-all") else 1.0
