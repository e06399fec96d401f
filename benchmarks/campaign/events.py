"""Analyse a trace of `jax.profiler`: the time of operations, copies and idle time."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jax.profiler import ProfileData

from anchor_jax.core.errors import UserError
from anchor_jax.planning.estimate import is_layout_copy, operation_path
from anchor_jax.planning.hlo import Instruction, Module

_CONTROL = re.compile(r"%?(while|conditional|call)\b")  # names of instructions that run others

IDLE, COPIES = "idle: no operation runs on the device", "copies: between host and device, and to other layouts"


class Event(NamedTuple):
    """An operation or copy on a thread or stream of a device.

    Attributes:
      name: of the kernel or operation.
      instruction: name of its instruction in the compiled program; "" if it has none, such as a copy.
      line: name of the thread or stream.
      start: nanoseconds.
      seconds: without the time of events inside it.
      end: nanoseconds.
    """

    name: str
    instruction: str
    line: str
    start: float
    seconds: float
    end: float


class Cost(NamedTuple):
    """Time of a step by its cause.

    Attributes:
      what: module path of operations, `IDLE` or `COPIES`.
      seconds: per step.
      lost: seconds per step beyond the roofline at the measured peaks; all seconds if the peaks are not known.
    """

    what: str
    seconds: float
    lost: float


class Analysis(NamedTuple):
    """The time of a step and its causes.

    Attributes:
      seconds: per step, from the first event to the last.
      idle: seconds per step in which nothing ran on the device.
      costs: the largest first.
    """

    seconds: float
    idle: float
    costs: list[Cost]

    @property
    def losses(self) -> list[Cost]:
        """The two largest losses."""
        return sorted(self.costs, key=lambda cost: -cost.lost)[:2]


def read_events(folder: Path) -> list[Event]:
    """Return the events of the devices in the newest trace of a folder.

    Raises:
      UserError: there is no trace, or it has no events of a device.
    """
    files = sorted(folder.glob("plugins/profile/*/*.xplane.pb"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise UserError(f"the profiler wrote no trace to '{folder}'")
    planes = list(ProfileData.from_file(str(files[-1])).planes)
    on_devices = [plane for plane in planes if re.match("/device:(GPU|TPU)", plane.name)]
    found = [event for plane in on_devices or planes for event in _events_of(plane, is_host=not on_devices)]
    if not found:
        raise UserError(f"the trace '{files[-1]}' has no operations of a device")
    return found


def _events_of(plane: Any, *, is_host: bool) -> Iterator[Event]:
    """Yield the events of a device; on the CPU those of the threads of the host that run operations."""
    lines = list(plane.lines)
    if any(line.name == "XLA Ops" for line in lines):  # a TPU; its other lines sum up the same time
        lines = [line for line in lines if line.name == "XLA Ops"]
    elif not is_host:  # a GPU; what follows "Stream" is its number and what it is used for
        lines = [line for line in lines if line.name.startswith("Stream")]
    for line in lines:
        events = [(event, _instruction_of(event)) for event in line.events]
        if is_host:
            events = [(event, instruction) for event, instruction in events if instruction]
        yield from _with_own_time(line.name, events)


def _instruction_of(event: Any) -> str:
    for name, value in event.stats:
        if name == "hlo_op":
            return str(value)
    found = re.match(r"%([\w.\-]+) = ", event.name)  # a TPU's events are named by the text of the instruction
    return found[1] if found else ""


def _with_own_time(line: str, events: Iterable[tuple[Any, str]]) -> Iterator[Event]:
    """Yield the events of a line, each without the time of those inside it.

    Loops and branches are left out: between their operations, the device is idle.
    """
    open_events: list[list[Any]] = []  # [event, instruction, nanoseconds of its own]

    def closed() -> Iterator[Event]:
        event, instruction, own = open_events.pop()
        if own == event.duration_ns or not _CONTROL.match(instruction or event.name):
            yield Event(event.name, instruction, line, event.start_ns, max(own, 0.0) * 1e-9, event.end_ns)

    for event, instruction in sorted(events, key=lambda one: (one[0].start_ns, -one[0].end_ns)):
        while open_events and open_events[-1][0].end_ns <= event.start_ns:
            yield from closed()
        if open_events:
            open_events[-1][2] -= event.duration_ns
        open_events.append([event, instruction, event.duration_ns])
    while open_events:
        yield from closed()


def analyse(
    events: Sequence[Event], module: Module, num_steps: int, roofline: Mapping[str, float] | None = None
) -> Analysis:
    """Attribute the time of traced steps to modules, copies and idle time.

    Args:
      events: of the devices.
      module: the traced program.
      num_steps: number of traced steps.
      roofline: seconds of one run of each instruction at the peaks, by name; None if the peaks are not known.
    """
    instructions = {one.name: one for computation in module.computations.values() for one in computation}
    seconds: dict[str, float] = {}
    times: dict[str, dict[tuple[str, str], int]] = {}  # what -> runs of each kernel of each instruction
    for event in events:
        what = _what(event, instructions, module)
        seconds[what] = seconds.get(what, 0.0) + event.seconds
        runs = times.setdefault(what, {})
        runs[event.instruction, event.name] = runs.get((event.instruction, event.name), 0) + 1
    start, end = min(event.start for event in events), max(event.end for event in events)
    idle = 1e-9 * (end - start) - _busy(events)
    costs = [Cost(IDLE, idle / num_steps, idle / num_steps)]
    for what, total in seconds.items():
        least = 0.0 if what == COPIES else _least(times[what], roofline or {})
        costs.append(Cost(what, total / num_steps, max(total - least, 0.0) / num_steps))
    return Analysis(1e-9 * (end - start) / num_steps, idle / num_steps, sorted(costs, key=lambda cost: -cost.seconds))


def _what(event: Event, instructions: Mapping[str, Instruction], module: Module) -> str:
    """Return the cause that an event counts towards: the path of its module, copies, or the name of its kernel."""
    instruction = instructions.get(event.instruction)
    if instruction is None:
        return COPIES if re.match("mem(cpy|set)", event.name, re.IGNORECASE) else event.name
    if is_layout_copy(instruction, module) or instruction.opcode.startswith("copy"):
        return COPIES
    return operation_path(instruction, module)


def _least(runs: Mapping[tuple[str, str], int], roofline: Mapping[str, float]) -> float:
    """Return the seconds of runs on the roofline; one run of an instruction may launch several kernels."""
    times: dict[str, int] = {}
    for (instruction, _), count in runs.items():
        times[instruction] = max(times.get(instruction, 0), count)
    return sum(count * roofline.get(instruction, 0.0) for instruction, count in times.items())


def _busy(events: Iterable[Event]) -> float:
    """Return the seconds covered by at least one event."""
    total = until = 0.0
    for event in sorted(events, key=lambda event: event.start):
        total += max(event.end - max(event.start, until), 0.0)
        until = max(until, event.end)
    return 1e-9 * total
