"""Training from a configuration and a folder: begin or resume, then step, report, evaluate and save."""

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import linen as nn
from jax.sharding import Mesh

from anchor_jax import config as configuration
from anchor_jax import metrics
from anchor_jax.config import Config
from anchor_jax.core.errors import Preempted, UserError
from anchor_jax.data import EvalDataset, Normalization, eval_dataset, load_test, open_test
from anchor_jax.models.pretrained import AdaptedWeights
from anchor_jax.runs import checkpoint, state
from anchor_jax.runs import record as run_record
from anchor_jax.runs.divergence import check_finite, check_nonfinite_updates
from anchor_jax.runs.load import create_model, create_predictor, run_normalization
from anchor_jax.runs.predictor import Predictor, tree_concatenate
from anchor_jax.runs.record import Run
from anchor_jax.runs.state import Carry, Totals, TrainState
from anchor_jax.runtime import backends, multihost, preemption
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.training import optimizer, sharding, source, warm_start
from anchor_jax.training.logging import TrainLogger, create_logger
from anchor_jax.training.pace import StepChunker
from anchor_jax.training.source import TrainSource
from anchor_jax.training.step import TrainData, make_train_step, seed_keys

TRACED_STEPS = 10
_MOST_STEPS = 2**31 - 1  # of int32


class TrainingSchedule(NamedTuple):
    """How long a run is."""

    steps_per_epoch: int
    total_steps: int

    @classmethod
    def of(cls, config: Config, num_examples: int) -> "TrainingSchedule":
        """On a training set of so many examples."""
        steps_per_epoch = num_examples // config.training.batch_size
        return cls(steps_per_epoch, round(config.training.total_epochs * steps_per_epoch))

    def is_due(self, step: int, every_epochs: float) -> bool:
        """Whether something done every so many epochs is to be done after a step; after the last it always is."""
        return step == self.total_steps or step % max(round(every_epochs * self.steps_per_epoch), 1) == 0

    def stops(self, done: int, config: Config) -> Iterator[int]:
        """The steps after which the host reports: the ends of epochs among them."""
        every_steps = config.logging.every_steps or self.steps_per_epoch
        for step in range(done + 1, self.total_steps + 1):
            logs = step % self.steps_per_epoch % every_steps == 0
            if logs or any(self.is_due(step, due.every_epochs) for due in (config.evaluation, config.checkpoint)):
                yield step


def train(config: Config, workdir: Path, *, profile: bool = False, accept_changes: tuple[str, ...] = ()) -> TrainState:
    """Train a network in a folder, from the beginning or from its newest checkpoint; the state at the end.

    SIGTERM and SIGINT end it after the step that is being done, which is saved, see `stopping.listening`; a second one,
    a second later or more, ends the whole process, that of a notebook too.

    Args:
      config: of the run.
      workdir: its folder.
      profile: trace some steps into `<workdir>/profile/`, once all is compiled.
      accept_changes: keys of the config that may differ from those with which the run began, or "data": the images.

    Raises:
      UserError: a mistake in the configuration, the data or the folder; the loss became NaN or infinite.
      Stopped: somebody asked for it.
    """
    training = prepare(config, workdir, accept_changes)
    config, length = training.run.config, training.length
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(training.training_set))
        stack.enter_context(run_record.lock_workdir(training.run))
        checkpoints = stack.enter_context(checkpoint.open_manager(workdir, config))
        saved = checkpoint.restore(checkpoints, training.carry_shapes())
        run_record.record_config_changes(training.run, checkpoints.latest_step())
        carry, reported = saved or checkpoint.Snapshot(training.first_carry(), -1)
        reporter = stack.enter_context(create_logger(workdir, reported, length.total_steps))
        reporter.print(run_summary(training, carry[0]))
        asked_to_stop = stack.enter_context(preemption.catch_stop_signals())
        session = Session(checkpoints, reporter, StepChunker(asked_to_stop))
        if length.total_steps == 0 and not saved:
            _evaluate(training, carry, session)
        last = _train_loop(training, carry, session, profile)
        if number := asked_to_stop():
            raise Preempted(number, f"{signal.Signals(number).name}: the run has come to its end")
    return last


class Session(NamedTuple):
    """What one process that trains writes to, and how far it goes at once."""

    checkpoints: ocp.CheckpointManager
    reporter: TrainLogger
    pace: StepChunker

    @property
    def last_good(self) -> int | None:
        """The step of the newest checkpoint."""
        return self.checkpoints.latest_step()


def _train_loop(training, carry, session, profile):
    """Step, report, evaluate and save, up to the last step; the state then."""
    config, length, workdir = training.run.config, training.length, training.run.workdir
    for look, stop in enumerate(length.stops(int(carry[0].step), config)):
        # up to the first look of the host much is compiled
        traced = profile and (look == 1 or (look == 0 and stop == length.total_steps))
        carry, numbers = training.advance(carry, stop, session.pace, workdir / "profile" if traced else None)
        check_nonfinite_updates(carry[0], config.training.max_consecutive_nonfinite, session.last_good, workdir)
        if int(carry[0].step) < stop:
            _stop(carry, length, session)
        if traced:
            session.reporter.print(f"profile   {workdir / 'profile'}")
        check_finite(stop, numbers, session.last_good, workdir)
        session.reporter.log(stop, "train", numbers)
        carry = carry[0], training.no_totals()
        if any(length.is_due(stop, due.every_epochs) for due in (config.evaluation, config.checkpoint)):
            _evaluate(training, carry, session)
    return carry[0]


def _evaluate(training, carry, session):
    """Evaluate a state, and save it where that is due."""
    step = int(carry[0].step)
    scores = training.evaluate(carry[0])
    check_finite(step, scores, session.last_good, training.run.workdir)
    session.reporter.log(step, training.evaluation_set.name, scores)
    if training.length.is_due(step, training.run.config.checkpoint.every_epochs):
        session.reporter.flush()
        checkpoint.save(session.checkpoints, checkpoint.Snapshot(carry, session.reporter.reported), scores)


def _stop(carry, length, session):
    """Save what is there, between two reports, and end."""
    step, number = int(carry[0].step), session.pace.signal
    done = "nothing is done yet; the same command begins anew"
    if step:
        done = f"{step:,} of {length.total_steps:,} steps are done and saved; the same command goes on from there"
    if step not in (0, session.last_good):
        session.reporter.flush()
        checkpoint.save(session.checkpoints, checkpoint.Snapshot(carry, session.reporter.reported), None)
    raise Preempted(number, f"{signal.Signals(number).name}: {done}")


def prepare(config: Config, workdir: Path, accept_changes: tuple[str, ...] = ()) -> "Training":
    """All that a run needs before its first step, of which nothing is written yet; see `train`."""
    configuration.validate(config)
    mesh = mesh_lib.mesh()
    training_set, held_out = source.open_source(config)
    length = _length(config, training_set.num_examples, mesh)
    config = _with_normalization(config, training_set)
    bank = source.bank_rows(training_set, config)
    this_run = run_record.open_or_create(workdir, config, training_set, bank, accept_changes)
    evaluation_set = _evaluation_set(this_run, held_out)

    model = create_model(this_run, axis_name=mesh_lib.AXIS)
    schedule = optimizer.create_schedule(config.optimizer, *length)
    transformation = optimizer.create(config.optimizer, schedule)
    create = partial(_create_state, this_run, model, transformation)
    shapes = jax.eval_shape(create)
    specs = sharding.state_partition_specs(shapes, mesh.size, config.training.sharding)
    step = make_train_step(model, transformation, config, run_normalization(this_run), specs)
    data = mesh_lib.replicate(training_set.on_devices(bank, config), mesh)
    begins_from_weights = config.model.weights and not checkpoint.has_checkpoints(workdir)
    weights = warm_start.read(this_run, model, state.variables(shapes)) if begins_from_weights else None
    return Training(
        run=this_run,
        length=length,
        mesh=mesh,
        model=model,
        schedule=schedule,
        create=create,
        specs=specs,
        training_set=training_set,
        data=data,
        evaluation_set=evaluation_set,
        run_steps=training_set.steps(step, config, mesh, (specs or mesh_lib.REPLICATED, mesh_lib.REPLICATED)),
        predictor=create_predictor(this_run, None, mesh),
        weights=weights,
    )


def _evaluation_set(this_run, held_out):
    """What the evaluations in training see: decoded once for all of them, but where that might be too much to hold."""
    config, like = this_run.config.data, (this_run.label_names, this_run.image_shape)
    if held_out:
        return eval_dataset(held_out, "validation")
    return open_test(config, *like) if config.streaming else eval_dataset(load_test(config, *like), "test")


def _create_state(this_run, model, transformation, variables=None):
    key = seed_keys(this_run.config.seed).init
    first = state.init_variables(model, key, this_run.input_shape) if variables is None else variables
    return state.initial_state(first, transformation, averages=this_run.config.training.ema_decay > 0)


@dataclasses.dataclass(frozen=True)
class Training:
    """What stays the same from the first step of a run to its last."""

    run: Run
    length: TrainingSchedule
    mesh: Mesh
    model: nn.Module
    schedule: optax.Schedule
    create: Callable[..., TrainState]  # the state before the first step, of drawn variables or of those given
    specs: TrainState | None  # which part of it a device holds, see `sharding.specs_of`
    training_set: TrainSource
    data: TrainData
    evaluation_set: EvalDataset  # "validation" or "test"
    run_steps: source.RunSteps
    predictor: Predictor
    weights: AdaptedWeights | None  # to begin from, if the run does not begin from drawn ones

    def first_carry(self) -> Carry:
        """The state before the first step, on the devices, and sums over no step."""
        first = self._once(self.create)()
        if self.weights:
            first = self._once(self.create)(self.weights.merge_into(state.variables(first)))
        return mesh_lib.place_state(first, self.specs, self.mesh), self.no_totals()

    def no_totals(self) -> Totals:
        """Sums over no step, on the devices."""
        return mesh_lib.replicate(Totals.zeros(), self.mesh)

    def _once(self, function):
        return jax.jit(
            function, compiler_options=backends.compiler_options(mesh_lib.platform_of(self.mesh), runs_once=True)
        )

    def carry_shapes(self) -> Carry:
        """Shapes, dtypes and devices of the state and the sums."""
        shapes = mesh_lib.state_shapes(jax.eval_shape(self.create), self.specs, self.mesh)
        return shapes, mesh_lib.replicated_shapes(jax.eval_shape(Totals.zeros), self.mesh)

    def advance(
        self, carry: Carry, stop: int, pace: StepChunker | None = None, profile: Path | None = None
    ) -> tuple[Carry, dict[str, Any]]:
        """Train up to step `stop`, within one epoch, or to a request to stop; also what was seen since the last report.

        `carry` is donated. The first few steps are traced into the folder `profile`, if there is one.
        """
        pace = pace or StepChunker()
        started, waited, first = time.perf_counter(), self.training_set.waited, int(carry[0].step)
        if profile:
            with multihost.profile_trace(profile):
                carry = self._run(carry, min(first + TRACED_STEPS, stop), pace)
        carry = self._run(carry, stop, pace)
        current, totals = carry
        numbers = _numbers(jax.device_get(totals))
        numbers["params_norm"] = float(_norm(current.params))
        skipped = int(current.skipped.total)
        numbers["learning_rate"] = float(jnp.asarray(self.schedule(max(stop - 1 - skipped, 0))))
        numbers["skipped_updates"] = skipped or None
        seconds = time.perf_counter() - started
        numbers["images_per_second"] = (int(current.step) - first) * self.run.config.training.batch_size / seconds
        if self.run.config.data.streaming:
            numbers["input_wait"] = (self.training_set.waited - waited) / seconds
            numbers["damaged_images"] = self.training_set.num_corrupt or None
        return carry, numbers

    def _run(self, carry, stop, pace):
        for done, num in pace.chunks(int(carry[0].step), stop):
            carry = jax.block_until_ready(self.run_steps(carry, self.data, done, num))
            if int(carry[0].skipped.longest) > self.run.config.training.max_consecutive_nonfinite:
                break
        return carry

    def evaluate(self, current: TrainState) -> dict[str, float]:
        """Scores of a state on the evaluation set, see `metrics.summary`; NaN where a prediction is no number."""
        config = self.run.config.evaluation
        variables = mesh_lib.replicate(state.eval_variables(current), self.mesh)  # gathered, if they are divided
        predictor = dataclasses.replace(self.predictor, variables=variables)
        batches = self.evaluation_set.batches(predictor.size_for(self.evaluation_set.num_examples))
        answers = predictor.stream(
            batches, config.num_references, then=lambda poll, labels: (poll.classification.probs, labels)
        )
        probs, labels = tree_concatenate(answers)
        if not np.isfinite(probs).all():
            return {checkpoint.METRIC: math.nan}
        return {name: float(score) for name, score in metrics.summary(probs, labels, config.num_bins).items()}


def run_summary(training: Training, current: TrainState) -> str:
    """What runs where, in a few lines."""
    this_run, length = training.run, training.length
    config = this_run.config
    devices = training.mesh.devices.ravel()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(current.params))
    anchoring = config.anchoring
    method = "standard training"
    if anchoring.enabled:
        method = f"anchored training, {len(training.data.bank):,} references"
        method += f", masked with probability {anchoring.mask_prob}" if anchoring.mask_prob else ", no masking"
    weights = ", ".join((config.model.weights, *(training.weights.changes if training.weights else ())))
    begin = f"goes on after step {int(current.step):,}" if int(current.step) else "begins"
    steps = (
        f"{length.total_steps:,} of {config.training.batch_size} images, {length.steps_per_epoch:,} an epoch; {begin}"
    )
    return "\n".join(
        [
            f"devices   {len(devices)} x {devices[0].device_kind}, jax {jax.__version__}",
            f"method    {method}",
            f"model     {config.model.name}, {parameters:,} parameters, computed in {config.model.dtype}",
            *([f"weights   {weights}"] if weights else []),
            f"data      {config.data.name or config.data.path or config.data.source}: "
            f"{training.training_set.num_examples:,} images {list(this_run.image_shape)}, {len(this_run.label_names)} "
            f"classes; evaluated on {training.evaluation_set.num_examples:,} of {training.evaluation_set.name}",
            f"steps     {steps if length.total_steps else 'none, the weights as they are'}",
            f"folder    {this_run.workdir}",
        ]
    )


_norm = jax.jit(optax.tree.norm)


def _length(config, num_examples, mesh):
    batch_size, num_parts = config.training.batch_size, config.training.accumulation_steps
    smallest = mesh.size * num_parts
    if batch_size % smallest:
        parts = f" times {num_parts} accumulation_steps" if num_parts > 1 else ""
        raise UserError(
            f"config.training.batch_size must be divisible by the {mesh.size} devices{parts}; got {batch_size}, "
            f"try {max(batch_size // smallest, 1) * smallest}"
        )
    is_mixed = config.augmentation.mixup_alpha or config.augmentation.cutmix_alpha
    if is_mixed and batch_size // mesh.size % 2:
        raise UserError(
            f"config.training.batch_size must be an even number on each of the {mesh.size} devices, where images are "
            f"mixed in pairs; got {batch_size}, try {(batch_size // mesh.size + 1) * mesh.size}"
        )
    if batch_size > num_examples:
        raise UserError(
            f"config.training.batch_size must be at most {num_examples}, the training set; got {batch_size}"
        )
    length = TrainingSchedule.of(config, num_examples)
    if config.training.total_epochs and length.total_steps < 1:
        raise UserError(f"config.training.total_epochs={config.training.total_epochs} is less than one step; raise it")
    if length.total_steps > _MOST_STEPS:
        raise UserError(
            f"config.training.total_epochs={config.training.total_epochs} are {length.total_steps:,} steps; at most "
            f"{_MOST_STEPS:,} can be counted"
        )
    return length


def _with_normalization(config, training_set):
    """The config with the mean and standard deviation that it leaves to be measured."""
    config, num_channels = config.copy_and_resolve_references(), training_set.image_shape[-1]
    for name in Normalization._fields:
        given = config.data[name]
        if given and len(given) != num_channels:
            raise UserError(
                f"config.data.{name} must have one number for each of the {num_channels} channels, or be () to be "
                f"measured; got {given}"
            )
    if not (config.data.mean and config.data.std):
        measured = training_set.normalization()
        config.data.mean, config.data.std = config.data.mean or measured.mean, config.data.std or measured.std
    return config


def _numbers(totals):
    """Means of what was summed up; None of what did not occur."""

    def mean(total, count):
        return float(total / count) if count else None

    return {
        "loss": mean(totals.loss, totals.examples),
        "accuracy": mean(totals.correct, totals.examples - totals.masked_examples),
        "masked_accuracy": mean(totals.masked_correct, totals.masked_examples),
        "masked_entropy": mean(totals.masked_entropy, totals.masked_examples),
        "gradient_norm": mean(totals.gradient_norm, totals.steps),
    }
