"""A roofline of the kernels of a GPU program: bytes that each moves, operations that it computes."""

import json
import math
import re

from anchor_jax.planning.collectives import collective_of
from anchor_jax.planning.hlo import DTYPES, Array, Computation, Instruction, Module
from anchor_jax.planning.targets import Chip
from anchor_jax.planning.walk import Executed

# instructions that read only a part of their first operand
_SLICES = {"dynamic-slice", "slice", "gather"}


def kernel_seconds(executed: Executed, module: Module, chip: Chip) -> float:
    """Return the seconds of one kernel on a roofline: its bytes over the bandwidth, or its operations over the peak.

    The launch of the kernel does not count, nor do collectives, see `collectives`.
    """
    if collective_of(executed.instruction):
        return 0.0
    moving = kernel_bytes(executed.instruction, executed.computation, module) / chip.bandwidth
    flops, dtype = kernel_flops(executed.instruction, executed.computation, module)
    return max(moving, flops / chip.peak(dtype))


def kernel_bytes(instruction: Instruction, computation: Computation, module: Module) -> int:
    """Return the bytes that a kernel reads and writes; of arrays that it slices or updates, those of the part."""
    operands = computation.operands(instruction)
    if instruction.opcode in _SLICES:
        return 2 * instruction.num_bytes
    if instruction.opcode == "dynamic-update-slice":
        return 2 * operands[1].num_bytes
    written = sum(array.num_bytes for array in _results(instruction))
    if instruction.opcode != "fusion":
        return written + sum(operand.num_bytes for operand in operands)
    (body,) = (module.computations[name] for name in instruction.called("calls"))
    updates = _updates_in_place(body)
    for update in updates:  # only the part is written
        written -= update.num_bytes - body.instructions[update.operands[1]].num_bytes
    parameters = {int(one.arguments): one for one in body if one.opcode == "parameter"}
    read = sum(_bytes_read(parameters[index], body, operand, updates) for index, operand in enumerate(operands))
    return written + read


def _updates_in_place(body: Computation) -> list[Instruction]:
    """Return the updates of a part of an array that are results of a fusion; any other makes a new array."""
    names = body.root.operands if body.root.opcode == "tuple" else [body.root.name]
    results = [body.source(name, "bitcast") for name in names]
    return [one for one in results if one.opcode == "dynamic-update-slice"]


def _bytes_read(parameter: Instruction, body: Computation, operand: Instruction, updates: list[Instruction]) -> int:
    """Return the bytes that a fusion reads of an operand: its parts if it is sliced or updated, otherwise all of it."""
    parts = 0
    for name, user in _users(body, parameter.name):
        is_first = user.operands[0] == name and name not in user.operands[1:]
        if is_first and user.opcode in _SLICES:
            parts += user.num_bytes
        elif not (is_first and user in updates):
            return operand.num_bytes
    return min(parts, operand.num_bytes)


def _users(body: Computation, name: str) -> list[tuple[str, Instruction]]:
    """Return the users of a value, through bitcasts, each with the name under which it uses it."""
    found = []
    for user in body.users(name):
        found += _users(body, user.name) if user.opcode == "bitcast" else [(name, user)]
    return found


def _results(instruction: Instruction) -> tuple[Array, ...]:
    """Return the results of a kernel, without the scratch memory of libraries."""
    is_library = instruction.target.startswith(("__cu", "cu"))
    return tuple(array for array in instruction.results if not (is_library and array.dtype in ("u8", "s8")))


def kernel_flops(instruction: Instruction, computation: Computation, module: Module) -> tuple[int, str]:
    """Return the operations of the products in a kernel, and the dtype of their operands."""
    if instruction.opcode == "fusion":
        bodies = [module.computations[name] for name in instruction.called("calls")]
        found = [kernel_flops(one, body, module) for body in bodies for one in body]
        return sum(flops for flops, _ in found), max(found)[1]  # the dtype is that of the largest product
    operands = [operand.arrays[0] for operand in computation.operands(instruction) if operand.arrays]
    dtype = DTYPES.get(operands[0].dtype, "") if operands else ""
    return _products(instruction, operands), dtype


def _products(instruction: Instruction, operands: list[Array]) -> int:
    target, results = instruction.target, instruction.arrays
    if instruction.opcode == "dot":
        sides = [operands[0].sides[axis] for axis in instruction.integers("lhs_contracting_dims")]
        return 2 * results[0].size * math.prod(sides)
    if target.startswith("__cublas"):
        return _library_product_flops(instruction, operands, results[0])
    if instruction.opcode == "convolution" or target.startswith("__cudnn$conv"):
        return _convolution_flops(instruction, operands, results[0])
    if target.startswith("__cudnn$fmha"):
        return _attention_flops(instruction, operands)
    return 0


def _library_product_flops(instruction: Instruction, operands: list[Array], result: Array) -> int:
    found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
    axes = [int(axis) for axis in re.findall(r"\d+", found[1])] if found else []
    return 2 * result.size * math.prod(operands[0].sides[axis] for axis in axes)


def _convolution_flops(instruction: Instruction, operands: list[Array], result: Array) -> int:
    """Return the operations of a convolution or of a gradient of one, products with padding included.

    All three have as many: two per element of the kernel, example and position of the convolution's output. Zeros that
    a dilation puts between the elements of its input are no operand.
    """
    found = re.search(r"dim_labels=\w+_\w+->(\w+)", instruction.attributes)
    if not found or len(operands) < 2:
        return 0
    output, kernel = result, operands[1]
    if "BackwardInput" in instruction.target:
        output = operands[0]
    elif "BackwardFilter" in instruction.target:
        output, kernel = operands[1], result
    positions = math.prod(side for side, label in zip(output.sides, found[1], strict=True) if label != "f")
    dilations = re.search(r"lhs_dilate=([\dx]+)", instruction.attributes)
    return 2 * kernel.size * positions // math.prod(map(int, dilations[1].split("x") if dilations else ()))


def _attention_flops(instruction: Instruction, operands: list[Array]) -> int:
    """Return the operations of cuDNN's attention: two products forward, and five backward, one recomputed."""
    found = re.search(r'"intermediate_tensor_shape":\{.*?"dimensions":(\[[^\]]*\])', instruction.attributes)
    if not found:
        return 0
    scores = math.prod(int(side) for side in json.loads(found[1]))
    return 2 * (5 if "Backward" in instruction.target else 2) * scores * operands[0].sides[-1]
