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
    operands = [computation.instructions[name] for name in instruction.operands if name in computation.instructions]
    if instruction.opcode in _SLICES:
        return 2 * instruction.num_bytes
    if instruction.opcode == "dynamic-update-slice":
        return 2 * operands[1].num_bytes
    written = sum(array.num_bytes for array in _results(instruction))
    fused = (
        [module.computations[name] for name in instruction.called("calls")] if instruction.opcode == "fusion" else []
    )
    if not fused:
        return written + sum(operand.num_bytes for operand in operands)
    (body,) = fused
    updates = [one for one in body if one.opcode == "dynamic-update-slice"]
    for update in updates:  # in place: only the part is written
        whole, part = (body.instructions[name] for name in update.operands[:2])
        written -= whole.num_bytes - part.num_bytes
    parameters = {int(one.arguments): one for one in body if one.opcode == "parameter"}
    read = sum(_bytes_read(parameters[index], body, operand) for index, operand in enumerate(operands))
    return max(written, 0) + read


def _bytes_read(parameter: Instruction, body: Computation, operand: Instruction) -> int:
    users = _users(body, parameter.name)
    parts = 0
    for name, user in users:
        if user.opcode in _SLICES and user.operands[0] == name:
            parts += user.num_bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
            parts += 0
        else:
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
    return tuple(array for array in instruction.arrays if not (is_library and array.dtype in ("u8", "s8")))


def kernel_flops(instruction: Instruction, computation: Computation, module: Module) -> tuple[int, str]:
    """Return the operations of the products in a kernel, and the dtype of their operands."""
    if instruction.opcode == "fusion":
        found = [
            kernel_flops(one, body, module)
            for name in instruction.called("calls")
            for body in [module.computations[name]]
            for one in body
        ]
        return max(found, default=(0, ""), key=lambda one: one[0]) if len(found) < 2 else _summed(found)
    operands = [arrays[0] for arrays in computation.operand_arrays(instruction) if arrays]
    dtype = DTYPES.get(operands[0].dtype, "") if operands else ""
    return _products(instruction, operands), dtype


def _summed(found: list[tuple[int, str]]) -> tuple[int, str]:
    flops = sum(one for one, _ in found)
    return flops, max(found, key=lambda one: one[0])[1]


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

    All three have as many: two per element of the kernel, example and position of the convolution's output.
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
    return 2 * kernel.size * positions


def _attention_flops(instruction: Instruction, operands: list[Array]) -> int:
    """Return the operations of cuDNN's attention: two products forward, and five backward, one recomputed."""
    found = re.search(r'"intermediate_tensor_shape":\{.*?"dimensions":(\[[^\]]*\])', instruction.attributes)
    if not found:
        return 0
    scores = math.prod(int(side) for side in json.loads(found[1]))
    return 2 * (5 if "Backward" in instruction.target else 2) * scores * operands[0].sides[-1]
