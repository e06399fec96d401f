"""The plan of a run on a target: whether it fits, and what it takes."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from anchor_jax.config import Config
from anchor_jax.core.errors import UserError
from anchor_jax.planning.estimate import Estimate, estimate
from anchor_jax.planning.facts import DataFacts
from anchor_jax.planning.flops import count_flops
from anchor_jax.planning.hlo import parse_module
from anchor_jax.planning.memory import Memory, compiled_memory, exceeding_memory
from anchor_jax.planning.step import PlannedStep, checked, plan_step
from anchor_jax.planning.targets import Target
from anchor_jax.runtime.settings import with_own_settings
from anchor_jax.runtime.topologies import topology_mesh
from anchor_jax.training.schedule import TrainingSchedule

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a compiler says of a run on a target.

    Attributes:
      config: of the run.
      target: the chips.
      schedule: length of the run.
      memory: of one device.
      flops: operations of the products in a step, on one device; those that `model.remat` repeats count.
      estimate: of the compiled step; None if it does not fit, and the compiler refuses it.
      compile_seconds: how long the compiler took.
    """

    config: Config
    target: Target
    schedule: TrainingSchedule
    memory: Memory
    flops: int
    estimate: Estimate | None
    compile_seconds: float

    @property
    def step_seconds(self) -> float | None:
        """Estimated seconds of a step: computation, then communication, as if the two never overlapped."""
        return self.estimate.seconds + self.estimate.communication if self.estimate else None

    @property
    def images_per_second(self) -> float | None:
        """Estimated throughput of all chips."""
        return self.config.training.batch_size / self.step_seconds if self.step_seconds else None

    @property
    def fraction_of_peak(self) -> float | None:
        """Operations of the products per second, as a fraction of the chip's peak for the dtype of the config."""
        if not self.step_seconds:
            return None
        return self.flops / self.step_seconds / self.target.chip.peak(self.config.model.dtype)

    @property
    def run_hours(self) -> float | None:
        """Hours of all steps of the run; evaluation, input and compilation are not included."""
        return self.schedule.total_steps * self.step_seconds / 3600 if self.step_seconds else None

    @property
    def chip_hours(self) -> float | None:
        """Hours of all steps times the number of chips."""
        return self.run_hours * self.target.num_devices if self.run_hours is not None else None


@with_own_settings
def make_plan(config: Config, facts: DataFacts, target: Target, progress: Progress = lambda _: None) -> Plan:
    """Compile the training step of a config for a target, and return what the compiler says.

    Args:
      config: of the run; it leaves nothing open, see `training.choices`.
      facts: size of its training set.
      target: the chips.
      progress: called with what is about to be done.

    Raises:
      UserError: the config does not fit the number of chips, the compiler is not installed or knows no such target,
        or it fails.
    """
    mesh = target_mesh(config, facts, target)
    progress("tracing the step ...")
    step = plan_step(config, facts, mesh)
    traced = step.trace()
    lowered, flops = traced.lower(), count_flops(traced.jaxpr, target.chip.platform)
    progress("compiling the step ...")
    started = time.perf_counter()
    compiled, memory = _compile(step, lowered, target)
    seconds = time.perf_counter() - started
    if compiled is None:
        return Plan(config, target, step.schedule, memory, flops, None, seconds)
    progress("reading the program ...")
    estimated = estimate(parse_module(compiled.as_text()), target, loops_over_steps=step.order is not None)
    return Plan(config, target, step.schedule, memory, flops, estimated, seconds)


def target_mesh(config: Config, facts: DataFacts, target: Target) -> Mesh:
    """Return the devices of a target, which exist for its compiler only.

    Raises:
      UserError: the config does not fit the number of chips, or the compiler is not installed or knows no such target.
    """
    checked(config, facts, target.num_devices)  # its errors come first, even if there is no compiler
    chip = target.chip
    target_config = chip.gpu.target_config(chip.bandwidth) if chip.gpu else ""
    return topology_mesh(chip.platform, target.topology, target.num_devices, target_config)


def _compile(step: PlannedStep, lowered: Any, target: Target) -> tuple[Any, Memory]:
    """Return the compiled program and its memory; None if the compiler refuses it because it is too large."""
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        memory = exceeding_memory(step, str(error), target.chip.memory)
        if memory is None:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"the compiler for {target.name} failed: {reason}") from error
        return None, memory
    return compiled, compiled_memory(step, compiled.memory_analysis(), target.chip.memory)
