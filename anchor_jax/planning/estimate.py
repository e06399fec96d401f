"""What the compiler says of a step: its time, its costliest operations, its copies and loops."""

from collections.abc import Callable
from typing import NamedTuple

from anchor_jax.planning.collectives import Collectives, collective_of, collectives_in, count_collectives
from anchor_jax.planning.hlo import Instruction, Module
from anchor_jax.planning.kernels import kernel_bytes, kernel_seconds
from anchor_jax.planning.paths import module_path
from anchor_jax.planning.targets import Target
from anchor_jax.planning.walk import Executed, Loop, take_apart

NUM_COSTLIEST = 10


class Operation(NamedTuple):
    """Operations of one path, in a step.

    Attributes:
      path: modules and operation, see `paths.module_path`.
      times: how many instructions run.
      seconds: their time.
    """

    path: str
    times: int
    seconds: float


class Estimate(NamedTuple):
    """The time of a step on one device, estimated from the compiled program.

    Attributes:
      seconds: of a step, without communication.
      cycles: of a step, as the compiler of TPUs states them; None for GPUs.
      kernels: instructions that run in a step; of a TPU program, those for which the compiler states cycles.
      moved: bytes that the kernels of a GPU read and write in a step; None for TPUs.
      unestimated: seconds of the instructions of a TPU program for which the compiler states no cycles: their bytes
        over the memory's bandwidth.
      copies: seconds of operations that only copy or transpose in a step, mostly to another layout.
      call_seconds: once per call of a loop over steps, which takes about a second of steps.
      costliest: the costliest operations.
      loops: loops inside a step.
      collectives: the communication, by kind.
    """

    seconds: float
    cycles: int | None
    kernels: int
    moved: int | None
    unestimated: float
    copies: float
    call_seconds: float
    costliest: list[Operation]
    loops: list[Loop]
    collectives: list[Collectives]

    @property
    def communication(self) -> float:
        """Seconds that the links need in a step; a part of them may overlap with computation."""
        return sum(one.seconds for one in self.collectives)


def estimate(module: Module, target: Target, *, loops_over_steps: bool) -> Estimate:
    """Estimate the time of a step.

    Args:
      module: the compiled program.
      target: what it is compiled for.
      loops_over_steps: whether the program is a loop over steps.
    """
    chip, seconds_of = target.chip, _seconds_of(module, target)
    program = take_apart(module, lambda item: item.times * seconds_of(item), loops_over_steps=loops_over_steps)
    costs = [(item, item.times * seconds_of(item)) for item in program.step]
    is_tpu = chip.platform == "tpu"
    running = [item for item in program.step if not collective_of(item.instruction)]
    moved = (item.times * kernel_bytes(item.instruction, item.computation, module) for item in running)
    return Estimate(
        seconds=sum(seconds for _, seconds in costs),
        cycles=sum(item.times * (item.instruction.estimated_cycles or 0) for item in running) if is_tpu else None,
        kernels=sum(item.times for item in running if not is_tpu or item.instruction.estimated_cycles is not None),
        moved=None if is_tpu else sum(moved),
        unestimated=sum(seconds for item, seconds in costs if is_tpu and item.instruction.estimated_cycles is None),
        copies=sum(seconds for item, seconds in costs if is_layout_copy(item.instruction, module)),
        call_seconds=sum(item.times * seconds_of(item) for item in program.call),
        costliest=_costliest(costs, module),
        loops=program.loops,
        collectives=count_collectives(program.step, module, chip, target.num_devices),
    )


def _seconds_of(module: Module, target: Target) -> Callable[[Executed], float]:
    chip = target.chip

    def of_tpu(item: Executed) -> float:
        instruction = item.instruction
        if instruction.estimated_cycles is not None and not collective_of(instruction):
            return instruction.estimated_cycles / chip.clock
        is_asynchronous = instruction.opcode.endswith("-start")
        if is_asynchronous or collectives_in(instruction, module):  # for these, see `collectives`
            return 0.0
        return kernel_bytes(instruction, item.computation, module) / chip.bandwidth

    return of_tpu if chip.platform == "tpu" else lambda item: kernel_seconds(item, module, chip)


def is_layout_copy(instruction: Instruction, module: Module) -> bool:
    """Return whether an instruction only moves elements: to another layout, order or memory."""
    moves = {"copy", "transpose"}
    if instruction.opcode != "fusion":
        return instruction.opcode in moves
    body = [one for name in instruction.called("calls") for one in module.computations[name]]
    work = {one.opcode for one in body} - {"parameter", "constant", "bitcast", "reshape", "tuple", "get-tuple-element"}
    return bool(work) and work <= moves


def _costliest(costs: list[tuple[Executed, float]], module: Module) -> list[Operation]:
    sums: dict[str, Operation] = {}
    for item, seconds in costs:
        path = operation_path(item.instruction, module)
        _, times, total = sums.get(path, Operation(path, 0, 0.0))
        sums[path] = Operation(path, times + item.times, total + seconds)
    return sorted(sums.values(), key=lambda one: -one.seconds)[:NUM_COSTLIEST]


def operation_path(instruction: Instruction, module: Module) -> str:
    """Return the path of an instruction; of a fusion without one, that of the last fused instruction that has one."""
    names = [instruction.op_name]
    for called in instruction.called("calls"):
        names += [one.op_name for one in reversed(list(module.computations[called]))]
    return next(filter(None, map(module_path, names)), instruction.opcode)
