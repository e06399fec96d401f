"""Several training steps in one call: a device-side loop on a training set in memory, or a host loop on a stream."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from anchor_jax.config import Config
from anchor_jax.data import Batch
from anchor_jax.runs.state import Carry
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training.draws import epoch_order, seed_keys
from anchor_jax.training.model_batch import TrainData
from anchor_jax.training.step import TrainStep, make_in_memory_step

MAX_STEPS_AHEAD = 2  # how far the host may be ahead of the devices, and how many batches wait in their memory

_epoch_order = jax.jit(epoch_order, static_argnums=2)


class RunSteps(Protocol):
    """Run training steps within one epoch, without waiting for the devices."""

    def __call__(self, carry: Carry, data: TrainData, step: int, num_steps: int, /) -> Carry:
        """Return the carry after `num_steps` more steps.

        Args:
          carry: state and totals after `step` steps; its buffers are donated.
          data: what the devices hold besides the state.
          step: number of steps done.
          num_steps: number of steps to run, up to the end of the epoch.
        """
        ...


def compile_in_memory_loop(
    train_step: TrainStep, config: Config, mesh: Mesh, carry_specs: Any, num_examples: int
) -> RunSteps:
    """Compile training steps on a training set in device memory.

    On accelerators, all `num_steps` run inside one compiled program, a device-side loop: the host only draws the order
    of each epoch. On CPU, where XLA compiles loops badly, the host dispatches a compiled step `num_steps` times. See
    `runtime.mesh.run_n_steps`. Either is compiled once, for any number of steps.

    Args:
      train_step: of `make_train_step`.
      config: of the run.
      mesh: the devices.
      carry_specs: partition specs of the carry.
      num_examples: size of the training set.
    """
    batch_size = config.training.batch_size
    steps_per_epoch = num_examples // batch_size
    order_key = seed_keys(config.seed).order
    run_n_steps = in_memory_program(train_step, config, mesh, carry_specs)

    @lru_cache(maxsize=1)
    def order_of(epoch: int) -> jax.Array:
        return mesh_lib.replicate(_epoch_order(order_key, epoch, num_examples), mesh)

    def run_steps(carry: Carry, data: TrainData, step: int, num_steps: int) -> Carry:
        return run_n_steps(carry, num_steps, data, order_of(step // steps_per_epoch))

    return run_steps


def compile_stream_loop(
    train_step: TrainStep, next_batches: Callable[[int, int], Iterator[Batch]], mesh: Mesh, carry_specs: Any
) -> RunSteps:
    """Compile training steps on a stream; the host sends the batches, at most `MAX_STEPS_AHEAD` ahead of the devices.

    Args:
      train_step: of `make_train_step`.
      next_batches: `next_batches(step, num_steps)` yields this process's part of the next batches.
      mesh: the devices.
      carry_specs: partition specs of the carry.
    """
    compiled = stream_program(train_step, mesh, carry_specs)

    def run_steps(carry: Carry, data: TrainData, step: int, num_steps: int) -> Carry:
        ahead: deque[jax.Array] = deque()
        for batch in next_batches(step, num_steps):
            carry, step_done = compiled(carry, data, mesh_lib.make_global_batch(batch, mesh))
            ahead.append(step_done)
            if len(ahead) > MAX_STEPS_AHEAD:
                ahead.popleft().block_until_ready()
        return carry

    return run_steps


def in_memory_program(train_step: TrainStep, config: Config, mesh: Mesh, carry_specs: Any) -> mesh_lib.NSteps:
    """Return `program(carry, num_steps, data, order) -> carry`, see `compile_in_memory_loop`."""
    return mesh_lib.run_n_steps(make_in_memory_step(train_step, config.training.batch_size), mesh, carry_specs)


def stream_program(train_step: TrainStep, mesh: Mesh, carry_specs: Any) -> Callable[..., Any]:
    """Return `program(carry, data, batch) -> (carry, step)`, see `compile_stream_loop`."""

    def stream_train_step(carry, data, batch):
        carry = train_step(carry, data, batch)
        return carry, carry[0].step  # the step is an output to wait for: the carry is donated to the next step

    return mesh_lib.pmapped(
        stream_train_step,
        mesh,
        in_specs=(carry_specs, mesh_lib.REPLICATED, mesh_lib.SHARDED),
        out_specs=(carry_specs, mesh_lib.REPLICATED),
        donate_argnums=(0,),
    )
