"""The training step of a config as the planner builds it, compiled for the first device, on random data."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from anchor_jax.config import Config
from anchor_jax.planning import advice
from anchor_jax.planning.estimate import estimate
from anchor_jax.planning.facts import DataFacts
from anchor_jax.planning.hlo import Module, parse_module
from anchor_jax.planning.memory import compiled_memory
from anchor_jax.planning.step import PlannedStep, plan_step
from anchor_jax.planning.targets import Chip, Target
from anchor_jax.runs.state import Totals
from anchor_jax.runtime import backends
from anchor_jax.runtime import mesh as mesh_lib

SAMPLE_SECONDS = 1.0  # of steps, at least, on an accelerator


class BuiltStep(NamedTuple):
    """A compiled training step with its data.

    Attributes:
      batch_size: images per step.
      run: makes a number of steps, and returns when the device is done.
      program: the compiled program; on accelerators a loop over steps, unless the data are a stream.
      loops: whether it is such a loop.
      memory: bytes that the step needs on a device, as its compiler states them and a plan counts them.
      compile_seconds: time of the compilation.
    """

    batch_size: int
    run: Callable[[int], None]
    program: jax.stages.Compiled
    loops: bool
    memory: int
    compile_seconds: float

    @property
    def module(self) -> Module:
        """The program as its compiler writes it."""
        text: Any = self.program.as_text()
        return parse_module(text)

    def roofline_seconds(self, chip: Chip) -> float:
        """Return the seconds of a step if every kernel moved its bytes or computed its products at the chip's peaks."""
        return estimate(self.module, Target("", chip, "", 1), loops_over_steps=self.loops).seconds


def build(config: Config, facts: DataFacts) -> BuiltStep:
    """Compile the training step of a config for the first device, and fill its data with random images.

    Args:
      config: of the run.
      facts: size of its training set.

    Raises:
      UserError: the config is invalid.
    """
    mesh = mesh_lib.mesh(1)
    planned = plan_step(config, facts, mesh)
    started = time.perf_counter()
    program = planned.trace().lower().compile()
    seconds = time.perf_counter() - started
    options = backends.compiler_options(mesh_lib.platform_of(mesh), runs_once=True)
    state = jax.jit(planned.init, compiler_options=options)()
    carry = mesh_lib.replicate((state, Totals.zeros()), mesh)
    is_loop = planned.order is not None and backends.has_fast_device_loops(mesh_lib.platform_of(mesh))
    step = _steps(planned, program, facts, mesh, is_loop=is_loop)

    def run(num_steps):
        nonlocal carry
        carry = jax.block_until_ready(step(carry, num_steps))

    memory = compiled_memory(planned, program.memory_analysis(), available=0).total
    return BuiltStep(config.training.batch_size, run, program, is_loop, memory, seconds)


def _steps(
    planned: PlannedStep, program: jax.stages.Compiled, facts: DataFacts, mesh: Mesh, *, is_loop: bool
) -> Callable[[Any, int], Any]:
    """Return a function that makes a number of steps: (carry, number) -> carry."""
    data = _random(planned.data, facts)
    if planned.batch is not None:
        arguments = data, _random(planned.batch, facts)
        step = lambda carry: program(carry, *arguments)[0]  # noqa: E731
    else:
        order = np.random.default_rng(0).permutation(facts.num_examples).astype(np.int32)
        arguments = data, mesh_lib.replicate(order, mesh)
        if is_loop:
            return lambda carry, num_steps: program(carry, mesh_lib.replicate(np.int32(num_steps), mesh), arguments)
        step = lambda carry: program(carry, arguments)  # noqa: E731

    def steps(carry, num_steps):
        for _ in range(num_steps):
            carry = step(carry)
        return carry

    return steps


def _random(shapes: Any, facts: DataFacts) -> Any:
    """Return random images (uint8) and labels (int32) of these shapes on the device."""
    rng = np.random.default_rng(0)

    def draw(shape: Any) -> Any:
        bound = 256 if shape.dtype == np.uint8 else facts.num_classes
        return jax.device_put(rng.integers(0, bound, shape.shape, shape.dtype), shape.sharding)

    return jax.tree.map(draw, shapes)


def seconds_per_step(built: BuiltStep, num_samples: int) -> list[float]:
    """Return samples of the seconds per step, after two steps of warm-up."""
    built.run(1)
    started = time.perf_counter()
    built.run(1)
    seconds = time.perf_counter() - started
    is_cpu = jax.default_backend() == "cpu"
    num_steps = 1 if is_cpu else max(1, min(round(SAMPLE_SECONDS / seconds), 1_000))
    samples = []
    for _ in range(num_samples):
        started = time.perf_counter()
        built.run(num_steps)
        samples.append((time.perf_counter() - started) / num_steps)
    return samples


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a config with changes: key -> value; a change of the model drops all options that are not among them."""
    config = config.copy_and_resolve_references()
    if changes.get("model.name", config.model.name) != config.model.name:
        no_options: Any = ConfigDict()
        config.model.options = no_options
    return advice.changed(config, changes)
