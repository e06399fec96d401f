"""Read the text of XLA's optimized programs (HLO): computations, instructions, shapes."""

import dataclasses
import math
import re
from collections.abc import Iterator
from functools import cached_property

# bits of an element; types that are not listed, such as tokens, occupy nothing
_BITS = {
    "pred": 8,
    **{f"{kind}{bits}": bits for kind in "su" for bits in (2, 4, 8, 16, 32, 64)},
    **{f"f{bits}": bits for bits in (16, 32, 64)},
    "bf16": 16,
    "c64": 64,
    "c128": 128,
}
DTYPES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32", "f64": "float64"}

_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\]")
_COMMENT = re.compile(r"/\*.*?\*/")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .* )?\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_REFERENCE = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Array:
    """The shape of an array: HLO's name of its dtype, and its sides."""

    dtype: str
    sides: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.sides)

    @property
    def num_bytes(self) -> int:
        """The bytes of the elements, without padding; those of 8-bit floats of any kind are one each."""
        bits = 8 if self.dtype.startswith("f8") else _BITS.get(self.dtype, 0)
        return math.ceil(self.size * bits / 8)


def parse_arrays(shape: str) -> tuple[Array, ...]:
    """Return the arrays of a shape, which may be a tuple.

    >>> parse_arrays("(bf16[2,3]{1,0:T(8,128)}, u8[])")
    (Array(dtype='bf16', sides=(2, 3)), Array(dtype='u8', sides=()))
    """
    return tuple(
        Array(dtype, tuple(int(side.lstrip("<=")) for side in sides.split(",") if side))
        for dtype, sides in _ARRAY.findall(shape)
    )


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: unique in the module.
      shape: text of the shape of its result.
      opcode: such as "fusion".
      operands: names of the operands.
      arguments: text between the parentheses.
      attributes: text after the operands.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    arguments: str
    attributes: str
    is_root: bool = False

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays of the result."""
        return parse_arrays(self.shape)

    @property
    def results(self) -> tuple[Array, ...]:
        """The arrays that it computes; where it starts an operation, operands may come before them."""
        num = len(self.operands) if self.opcode.endswith("-start") else 0
        return self.arrays[num : 2 * num] or self.arrays

    @property
    def num_bytes(self) -> int:
        """The bytes of the arrays that it computes."""
        return sum(array.num_bytes for array in self.results)

    @property
    def op_name(self) -> str:
        """The path in the program that was traced, such as "jit(step)/ResNet/conv1/conv_general_dilated"."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes)
        return found[1] if found else ""

    @property
    def estimated_cycles(self) -> int | None:
        """The compiler's estimate for a TPU; None where it states none."""
        found = re.search(r'"estimated_cycles":"?(\d+)', self.attributes)
        return int(found[1]) if found else None

    @property
    def target(self) -> str:
        """What a custom call calls."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def called(self, *names: str) -> list[str]:
        """Return the computations in the attributes of these names, such as "body" or "branch_computations"."""
        found = re.findall(rf"\b(?:{'|'.join(names)})=(?:\{{([^}}]*)\}}|%?([\w.\-]+))", self.attributes)
        return [name for several, one in found for name in (_REFERENCE.findall(several) if several else [one])]

    def integers(self, name: str) -> tuple[int, ...]:
        """Return the integers of an attribute such as `lhs_contracting_dims={1}`."""
        found = re.search(rf"\b{name}=\{{([\d,]*)\}}", self.attributes)
        return tuple(map(int, found[1].split(","))) if found and found[1] else ()


@dataclasses.dataclass(frozen=True)
class Computation:
    """A sequence of instructions, by name."""

    name: str
    instructions: dict[str, Instruction]

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())

    @property
    def root(self) -> Instruction:
        """The instruction whose result is that of the computation."""
        return next((one for one in self if one.is_root), list(self)[-1])

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """Return the operands of an instruction."""
        return [self.instructions[name] for name in instruction.operands if name in self.instructions]

    def source(self, name: str, opcode: str) -> Instruction:
        """Return an instruction, or the one behind it if its opcode is this one: "copy" or "bitcast"."""
        instruction = self.instructions[name]
        return self.source(instruction.operands[0], opcode) if instruction.opcode == opcode else instruction

    def users(self, name: str) -> list[Instruction]:
        """Return the instructions that have an operand of this name."""
        return self._users.get(name, [])

    @cached_property
    def _users(self) -> dict[str, list[Instruction]]:
        users: dict[str, list[Instruction]] = {}
        for instruction in self:
            for operand in dict.fromkeys(instruction.operands):
                users.setdefault(operand, []).append(instruction)
        return users


@dataclasses.dataclass(frozen=True)
class Module:
    """A program: its computations, and the name of the one that runs first."""

    computations: dict[str, Computation]
    entry: str


def parse_module(text: str) -> Module:
    """Return the computations of a program, given as `compiled.as_text()`.

    Raises:
      ValueError: there is no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, name, instructions = "", "", {}
    for line in text.splitlines():
        if found := _INSTRUCTION.match(line):
            if instruction := _parse_instruction(found[2], _COMMENT.sub("", found[3]), bool(found[1])):
                instructions[instruction.name] = instruction
        elif found := _COMPUTATION.match(line.strip()):
            name, instructions = found[2], {}
            entry = name if found[1] else entry
        elif line.strip() == "}" and name:
            computations[name], name = Computation(name, instructions), ""
    if entry not in computations:
        raise ValueError("the text has no entry computation: it is not a program of XLA")
    return Module(computations, entry)


def _parse_instruction(name: str, text: str, is_root: bool) -> Instruction | None:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.find(" ")
    shape, rest = text[:end], text[end:].lstrip()
    opcode, parenthesis, _ = rest.partition("(")
    if not parenthesis or not re.fullmatch(r"[\w\-]+", opcode):
        return None
    start = len(opcode)
    close = _closing(rest, start)
    arguments = rest[start + 1 : close]
    operands = tuple(_REFERENCE.findall(arguments))
    return Instruction(name, shape, opcode, operands, arguments, rest[close + 1 :], is_root)


def _closing(text: str, start: int) -> int:
    """Return the position of the parenthesis that closes the one at `start`."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.start()
    return len(text) - 1
