"""A prepared run: its data, model, optimizer and compiled functions."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from anchor_jax.core.short_reprs import short_repr
from anchor_jax.models.layers import Classifier
from anchor_jax.models.pretrained import AdaptedWeights
from anchor_jax.runs.record import Run
from anchor_jax.runs.state import Carry, Totals, TrainState, init_variables, initial_state, variables
from anchor_jax.runtime import backends, multihost
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.runtime.settings import with_own_settings
from anchor_jax.training.device_loop import RunSteps
from anchor_jax.training.draws import seed_keys
from anchor_jax.training.evaluator import Evaluator
from anchor_jax.training.model_batch import TrainData
from anchor_jax.training.pace import StepChunker
from anchor_jax.training.schedule import TrainingSchedule
from anchor_jax.training.source import TrainSource
from anchor_jax.training.train_metrics import mean_metrics

PROFILED_STEPS = 10

Metrics = dict[str, float | None]

_global_norm = jax.jit(optax.tree.norm)


@short_repr
@dataclasses.dataclass(frozen=True)
class Trainer:
    """The parts of a run that stay the same from its first step to its last; see `prepare`.

    Attributes:
      run: its record.
      schedule: its length.
      mesh: the devices.
      model: the network.
      optimizer: the gradient transformation.
      learning_rate: the learning rate schedule.
      specs: partition specs of the state; None if it is replicated.
      source: the training set.
      data: what the devices hold besides the state.
      run_steps: the compiled training steps.
      evaluator: the evaluation during training.
      weights: those that replace random ones at the start; None if there are none, or the run resumes.
      preprocessing: where the preprocessing of images comes from, for the user; "" if the config states it.
    """

    run: Run
    schedule: TrainingSchedule
    mesh: Mesh
    model: Classifier
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    specs: TrainState | None
    source: TrainSource
    data: TrainData
    run_steps: RunSteps
    evaluator: Evaluator
    weights: AdaptedWeights | None
    preprocessing: str = ""

    @with_own_settings
    def init_carry(self) -> Carry:
        """Return the state before the first step, and totals of no steps, on the devices."""
        state = self._jit_once(self._init_state)()
        if self.weights:
            state = self._jit_once(self._init_state)(self.weights.merge_into(variables(state)))
        return mesh_lib.place_state(state, self.specs, self.mesh), self.zero_totals()

    @with_own_settings
    def zero_totals(self) -> Totals:
        """Return the totals of no steps, on the devices."""
        return mesh_lib.replicate(Totals.zeros(), self.mesh)

    @with_own_settings
    def carry_shapes(self) -> Carry:
        """Return the shapes, dtypes and shardings of state and totals."""
        state = mesh_lib.state_shapes(jax.eval_shape(self._init_state), self.specs, self.mesh)
        return state, mesh_lib.replicated_shapes(jax.eval_shape(Totals.zeros), self.mesh)

    @with_own_settings
    def train_steps(
        self, carry: Carry, until: int, chunker: StepChunker | None = None, profile_dir: Path | None = None
    ) -> tuple[Carry, Metrics]:
        """Train up to step `until`, or until a process receives a stop signal.

        Args:
          carry: state and totals; its buffers are donated.
          until: number of the last step, in the same epoch as the next one.
          chunker: divides the steps into chunks, between which it checks for stop signals.
          profile_dir: trace the first `PROFILED_STEPS` steps into this folder.

        Returns:
          The carry, and the means of its totals, with the throughput of these steps.
        """
        chunker = chunker or StepChunker()
        step, waited, started = int(carry[0].step), self.source.waited, time.perf_counter()
        if profile_dir:
            with multihost.profile_trace(profile_dir):
                carry = self._run_chunks(carry, min(step + PROFILED_STEPS, until), chunker)
        carry = self._run_chunks(carry, until, chunker)
        state, totals = carry
        metrics = mean_metrics(jax.device_get(totals)) | self._state_metrics(state, until)
        seconds = time.perf_counter() - started
        metrics["images_per_second"] = (int(state.step) - step) * self.run.config.training.batch_size / seconds
        if self.run.config.data.streaming:
            metrics["input_wait"] = (self.source.waited - waited) / seconds
            metrics["damaged_images"] = self.source.num_corrupt or None
        return carry, metrics

    def _run_chunks(self, carry: Carry, until: int, chunker: StepChunker) -> Carry:
        max_nonfinite = self.run.config.training.max_consecutive_nonfinite
        for step, num_steps in chunker.chunks(int(carry[0].step), until):
            carry = jax.block_until_ready(self.run_steps(carry, self.data, step, num_steps))
            if int(carry[0].skipped.longest) > max_nonfinite:  # the run is going to end with an error
                break
        return carry

    def _state_metrics(self, state: TrainState, step: int) -> Metrics:
        num_skipped = int(state.skipped.total)
        num_updates = max(step - 1 - num_skipped, 0)  # before the last one
        return {
            "params_norm": float(_global_norm(state.params)),
            "learning_rate": float(jnp.asarray(self.learning_rate(num_updates))),
            "skipped_updates": num_skipped or None,
        }

    def _init_state(self, initial_variables: dict[str, Any] | None = None) -> TrainState:
        """Return the state before the first step, with the given or with random variables."""
        return init_state(self.run, self.model, self.optimizer, initial_variables)

    def _jit_once(self, function):
        options = backends.compiler_options(mesh_lib.platform_of(self.mesh), runs_once=True)
        return jax.jit(function, compiler_options=options)


def init_state(
    run: Run,
    model: Classifier,
    optimizer: optax.GradientTransformation,
    initial_variables: dict[str, Any] | None = None,
) -> TrainState:
    """Return the state before the first step of a run.

    Args:
      run: the run.
      model: its model.
      optimizer: its optimizer.
      initial_variables: what `model.apply` takes; random by default.
    """
    if initial_variables is None:
        initial_variables = init_variables(model, seed_keys(run.config.seed).init, run.input_shape)
    return initial_state(initial_variables, optimizer, averages=run.config.training.ema_decay > 0)
