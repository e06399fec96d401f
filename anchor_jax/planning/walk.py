"""How often each instruction of a program runs: once, or as often as the loops around it."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from anchor_jax.planning.hlo import Computation, Instruction, Module

# instructions that do nothing at run time
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"),
    *("opt-barrier", "domain", "add-dependency", "get-dimension-size"),
}
# custom calls of the compiler of TPUs that only arrange memory
_FREE_TARGETS = {"ConcatBitcast", "AllocateBuffer"}


class Executed(NamedTuple):
    """An instruction that runs.

    Attributes:
      instruction: the instruction; not a loop, a branch or a call, whose instructions are listed themselves.
      computation: where it is.
      times: how often it runs in a step, or in a call outside of the loop over steps.
    """

    instruction: Instruction
    computation: Computation
    times: int


class Loop(NamedTuple):
    """A loop inside a step.

    Attributes:
      op_name: path of the loop in the program that was traced.
      trips: number of iterations; None if it is not known.
      times: how often the loop runs in a step.
    """

    op_name: str
    trips: int | None
    times: int


class Program(NamedTuple):
    """A program that trains, taken apart.

    Attributes:
      step: what runs in each step.
      call: what runs once per call of a loop over steps, before and after it; nothing if the program is one step.
      loops: the loops inside a step.
    """

    step: list[Executed]
    call: list[Executed]
    loops: list[Loop]


def take_apart(module: Module, weight: Callable[[Executed], float], *, loops_over_steps: bool) -> Program:
    """List what a program runs.

    Args:
      module: the program.
      weight: the cost of an instruction; of several branches, the most costly is listed.
      loops_over_steps: whether the program is a loop over steps, whose trip count is an argument.

    Raises:
      ValueError: there should be a loop over steps, and there is none.
    """
    if not loops_over_steps:
        walker = _Walker(module, weight)
        return Program(list(walker.walk(module.entry, 1)), [], walker.loops)
    around = _Walker(module, weight, skips_unknown=True)
    call = list(around.walk(module.entry, 1))
    if not around.skipped:
        raise ValueError("the compiled program has no loop over steps")
    inside = _Walker(module, weight)
    step = [item for loop in around.skipped for body in loop.called("body") for item in inside.walk(body, 1)]
    return Program(step, call, inside.loops)


class _Walker:
    def __init__(self, module: Module, weight: Callable[[Executed], float], *, skips_unknown: bool = False):
        self._module, self._weight, self._skips_unknown = module, weight, skips_unknown
        self.loops: list[Loop] = []
        self.skipped: list[Instruction] = []  # loops of unknown length

    def walk(self, name: str, times: int) -> Iterator[Executed]:
        computation = self._module.computations[name]
        for instruction in computation:
            yield from self._executed(instruction, computation, times)

    def _executed(self, instruction: Instruction, computation: Computation, times: int) -> Iterator[Executed]:
        opcode = instruction.opcode
        if opcode == "while":
            yield from self._loop(instruction, computation, times)
        elif opcode == "conditional":
            yield from self._costliest(instruction, times)
        elif opcode in ("call", "async-start"):
            for called in instruction.called("to_apply", "calls", "called_computations"):
                yield from self.walk(called, times)
        elif not _is_free(instruction):
            yield Executed(instruction, computation, times)

    def _loop(self, instruction: Instruction, computation: Computation, times: int) -> Iterator[Executed]:
        trips = trip_count(self._module, computation, instruction)
        if trips is None and self._skips_unknown:
            self.skipped.append(instruction)
            return
        self.loops.append(Loop(instruction.op_name, trips, times))
        for body in instruction.called("body"):
            yield from self.walk(body, times * (1 if trips is None else trips))

    def _costliest(self, instruction: Instruction, times: int) -> Iterator[Executed]:
        found = []
        for name in instruction.called("branch_computations", "true_computation", "false_computation"):
            branch = _Walker(self._module, self._weight)
            items = list(branch.walk(name, times))
            found.append((sum(map(self._weight, items)), items, branch.loops))
        if found:
            _, items, loops = max(found, key=lambda branch: branch[0])
            self.loops += loops
            yield from items


def _is_free(instruction: Instruction) -> bool:
    is_end = instruction.opcode.endswith(("-done", "async-update"))
    return is_end or instruction.opcode in FREE or instruction.target in _FREE_TARGETS


def trip_count(module: Module, computation: Computation, loop: Instruction) -> int | None:
    """Return the number of iterations of a `while` in a computation; None if it is not known.

    Compilers for GPUs and CPUs state it. In programs for TPUs, the loop compares an element of its tuple with a
    constant, and adds another one to it.
    """
    if stated := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(stated[1])
    condition, body = (module.computations[name] for name in loop.called("condition") + loop.called("body"))
    first, compare, last = computation.instructions[loop.operands[0]], condition.root, body.root
    if (first.opcode, compare.opcode, last.opcode) != ("tuple", "compare", "tuple"):
        return None
    counter, limit = compare.operands
    index = _element(condition, counter)
    if index is None or (following := body.instructions[last.operands[index]]).opcode != "add":
        return None
    others = [name for name in following.operands if _element(body, name) != index]
    start, end = _constant(computation, first.operands[index]), _constant(condition, limit)
    step = _constant(body, others[0]) if len(others) == 1 else None
    if start is None or end is None or not step:
        return None
    is_towards = f"direction={'LT' if step > 0 else 'GT'}" in compare.attributes
    return len(range(start, end, step)) if is_towards else None


def _element(computation: Computation, name: str) -> int | None:
    """Return which element of a parameter, a tuple, an instruction takes; None for any other instruction."""
    instruction = computation.source(name, "copy")
    found = re.search(r"\bindex=(\d+)", instruction.attributes) if instruction.opcode == "get-tuple-element" else None
    return int(found[1]) if found and computation.instructions[instruction.operands[0]].opcode == "parameter" else None


def _constant(computation: Computation, name: str) -> int | None:
    """Return the value of an integer constant; None for any other instruction."""
    instruction = computation.source(name, "copy")
    is_integer = instruction.opcode == "constant" and re.fullmatch(r"-?\d+", instruction.arguments)
    return int(instruction.arguments) if is_integer else None
