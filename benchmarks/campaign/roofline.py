"""A roofline of a compiled step at the peaks that the campaign has measured, on any platform."""

from typing import Any

from anchor_jax.planning.estimate import estimate
from anchor_jax.planning.hlo import Module, parse_module
from anchor_jax.planning.kernels import kernel_seconds
from anchor_jax.planning.targets import Chip, Target
from anchor_jax.planning.walk import Executed
from benchmarks.campaign.built import BuiltStep


def module_of(built: BuiltStep) -> Module:
    """Return the program of a step."""
    text: Any = built.program.as_text()
    return parse_module(text)


def step_seconds(built: BuiltStep, chip: Chip) -> float:
    """Return the seconds of a step if every kernel moved its bytes or computed its products at the peaks of a chip."""
    return estimate(module_of(built), Target("", chip, "", 1), loops_over_steps=built.loops).seconds


def instruction_seconds(module: Module, chip: Chip) -> dict[str, float]:
    """Return the seconds of one run of each instruction of a program on the roofline, by name."""
    return {
        instruction.name: kernel_seconds(Executed(instruction, computation, 1), module, chip)
        for computation in module.computations.values()
        for instruction in computation
    }
