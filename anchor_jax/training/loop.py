"""Training from a configuration and a folder: begin or resume, then step, report, evaluate and save."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from anchor_jax import backends, metrics, parallel
from anchor_jax import config as configuration
from anchor_jax.config import Config
from anchor_jax.data import Dataset, load_test, load_train, measure_normalization, select_rows
from anchor_jax.errors import UserError
from anchor_jax.models.adapting import Adapted
from anchor_jax.predictor import Predictor
from anchor_jax.training import checkpoint, optimizer, run, state, warm_start
from anchor_jax.training.prediction import model_of, normalization_of, predictor_of
from anchor_jax.training.reporting import check_finite, reporter_of
from anchor_jax.training.run import Run
from anchor_jax.training.state import TrainState
from anchor_jax.training.step import Totals, TrainData, epoch_order, make_train_step, seed_keys

TRACED_STEPS = 10


class Length(NamedTuple):
    """How long a run is."""

    steps_per_epoch: int
    total_steps: int

    def is_due(self, step: int, every_epochs: float) -> bool:
        """Whether something done every so many epochs is to be done after a step; after the last it always is."""
        return step == self.total_steps or step % max(round(every_epochs * self.steps_per_epoch), 1) == 0

    def stops(self, done: int, config: Config) -> Iterator[int]:
        """The steps after which the host looks in: the ends of epochs among them."""
        every_steps = config.logging.every_steps or self.steps_per_epoch
        for step in range(done + 1, self.total_steps + 1):
            logs = step % self.steps_per_epoch % every_steps == 0
            if logs or any(self.is_due(step, due.every_epochs) for due in (config.evaluation, config.checkpoint)):
                yield step


def train(config: Config, workdir: Path, *, profile: bool = False) -> TrainState:
    """Train a network in a folder, from the beginning or from its newest checkpoint; the state at the end.

    With `profile` some steps are traced into `<workdir>/profile/`, once all is compiled.

    Raises:
      UserError: a mistake in the configuration, the data or the folder; the loss became NaN or infinite.
    """
    training = prepare(config, workdir)
    config, length = training.run.config, training.length
    with checkpoint.manager(workdir, config) as checkpoints:
        current = checkpoint.restore(checkpoints, training.state_shapes()) or training.first_state()
        done = int(current.step)
        with reporter_of(workdir, done, length.total_steps) as reporter:
            reporter.say(introduction(training, current))
            if length.total_steps == 0 and checkpoints.latest_step() is None:
                _evaluate(training, current, 0, reporter, checkpoints)
            for look, stop in enumerate(length.stops(done, config)):
                # up to the first look of the host much is compiled
                traced = profile and (look == 1 or (look == 0 and stop == length.total_steps))
                current, numbers = training.advance(current, stop, workdir / "profile" if traced else None)
                if traced:
                    reporter.say(f"profile   {workdir / 'profile'}")
                check_finite(stop, numbers, checkpoints.latest_step(), workdir)
                reporter.report(stop, "train", numbers)
                if any(length.is_due(stop, due.every_epochs) for due in (config.evaluation, config.checkpoint)):
                    _evaluate(training, current, stop, reporter, checkpoints)
    return current


def _evaluate(training, current, step, reporter, checkpoints):
    """Evaluate a state, and save it where that is due."""
    scores = training.evaluate(current)
    check_finite(step, scores, checkpoints.latest_step(), training.run.workdir)
    reporter.report(step, training.evaluated_on, scores)
    if training.length.is_due(step, training.run.config.checkpoint.every_epochs):
        reporter.flush()
        checkpoint.save(checkpoints, current, scores)


def prepare(config: Config, workdir: Path) -> "Training":
    """All that a run needs before its first step; see `train`."""
    configuration.validate(config)
    mesh = parallel.mesh()
    training_set, held_out = load_train(config.data, config.seed)
    length = _length(config, len(training_set.images), mesh)
    config = _with_normalization(config, training_set.images)
    bank = select_rows(
        training_set.labels,
        config.anchoring.bank_size,
        per_class=config.anchoring.bank_per_class,
        seed=config.seed,
    )
    this_run = run.begin(workdir, config, training_set, bank)
    evaluation_set = held_out or load_test(config.data, this_run.label_names, this_run.image_shape)

    model = model_of(this_run, axis_name=parallel.AXIS)
    schedule = optimizer.create_schedule(config.optimizer, *length)
    transformation = optimizer.create(config.optimizer, schedule)
    step = make_train_step(model, transformation, config, normalization_of(this_run))
    shapes = jax.eval_shape(partial(state.first_variables, model, jax.random.key(0), this_run.input_shape))
    begins_from_weights = config.model.weights and not checkpoint.any_in(workdir)
    weights = warm_start.read(this_run, model, shapes) if begins_from_weights else None
    run.write(this_run)
    return Training(
        run=this_run,
        length=length,
        mesh=mesh,
        model=model,
        schedule=schedule,
        transformation=transformation,
        data=TrainData(*parallel.replicated((training_set.images, training_set.labels, bank), mesh)),
        evaluation_set=evaluation_set,
        evaluated_on="validation" if held_out else "test",
        run_steps=parallel.repeated(step, mesh),
        predictor=predictor_of(this_run, None, mesh),
        weights=weights,
    )


@dataclasses.dataclass(frozen=True)
class Training:
    """What stays the same from the first step of a run to its last."""

    run: Run
    length: Length
    mesh: Mesh
    model: nn.Module
    schedule: optax.Schedule
    transformation: optax.GradientTransformation
    data: TrainData
    evaluation_set: Dataset
    evaluated_on: str
    run_steps: Callable[..., tuple[TrainState, Totals]]
    predictor: Predictor
    weights: Adapted | None  # to begin from, if the run does not begin from drawn ones

    def first_state(self) -> TrainState:
        """The state before the first step, on all devices."""
        options = backends.compiler_options(parallel.platform_of(self.mesh), runs_once=True)
        first = jax.jit(self._create_state, compiler_options=options)()
        if self.weights:  # no optimizer looks at the parameters before the first step
            first = first._replace(**self.weights.over(state.variables(first)))
        return parallel.replicated(first, self.mesh)

    def state_shapes(self) -> TrainState:
        """Shapes, dtypes and devices of the state."""
        return parallel.replicated_shapes(jax.eval_shape(self._create_state), self.mesh)

    def _create_state(self):
        key = seed_keys(self.run.config.seed).init
        return state.create(self.model, self.transformation, key, self.run.input_shape)

    def advance(self, current: TrainState, stop: int, profile: Path | None = None) -> tuple[TrainState, dict[str, Any]]:
        """Train up to step `stop`, within one epoch; `current` is donated. Also what was seen on the way.

        The first few steps are traced into the folder `profile`, if there is one.
        """
        started, done = time.perf_counter(), int(current.step)
        key = seed_keys(self.run.config.seed).order
        order = _order_of(key, done // self.length.steps_per_epoch, len(self.data.images))
        order, totals = parallel.replicated((order, Totals.zeros()), self.mesh)
        carry, traced = (current, totals), 0
        if profile:
            traced = min(TRACED_STEPS, stop - done)
            with parallel.traced(profile):
                carry = jax.block_until_ready(self.run_steps(carry, traced, self.data, order))
        current, totals = self.run_steps(carry, stop - done - traced, self.data, order)
        numbers = _numbers(jax.device_get(totals))
        numbers["params_norm"] = float(_norm(current.params))
        numbers["learning_rate"] = float(jnp.asarray(self.schedule(stop - 1)))
        images = (stop - done) * self.run.config.training.batch_size
        numbers["images_per_second"] = images / (time.perf_counter() - started)
        return current, numbers

    def evaluate(self, current: TrainState) -> dict[str, float]:
        """Scores of a state on the evaluation set, see `metrics.summary`; NaN where a prediction is no number."""
        config = self.run.config.evaluation
        predictor = dataclasses.replace(self.predictor, variables=state.variables(current))
        probs = predictor(self.evaluation_set.images, config.num_references).probs
        if not np.isfinite(probs).all():
            return {checkpoint.METRIC: math.nan}
        return {
            name: float(score)
            for name, score in metrics.summary(probs, self.evaluation_set.labels, config.num_bins).items()
        }


def introduction(training: Training, current: TrainState) -> str:
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
            f"{len(training.data.images):,} images {list(this_run.image_shape)}, {len(this_run.label_names)} classes; "
            f"evaluated on {len(training.evaluation_set.images):,} of {training.evaluated_on}",
            f"steps     {steps if length.total_steps else 'none, the weights as they are'}",
            f"folder    {this_run.workdir}",
        ]
    )


_order_of = jax.jit(epoch_order, static_argnums=2)
_norm = jax.jit(optax.tree.norm)


def _length(config, num_examples, mesh):
    batch_size = config.training.batch_size
    if batch_size % mesh.size:
        raise UserError(
            f"config.training.batch_size must be divisible by the {mesh.size} devices; got {batch_size}, "
            f"try {max(batch_size // mesh.size, 1) * mesh.size}"
        )
    if batch_size > num_examples:
        raise UserError(
            f"config.training.batch_size must be at most {num_examples}, the training set; got {batch_size}"
        )
    steps_per_epoch = num_examples // batch_size
    total_steps = round(config.training.total_epochs * steps_per_epoch)
    if config.training.total_epochs and total_steps < 1:
        raise UserError(f"config.training.total_epochs={config.training.total_epochs} is less than one step; raise it")
    return Length(steps_per_epoch, total_steps)


def _with_normalization(config, images):
    """The config with the mean and standard deviation that it leaves to be measured."""
    measured = measure_normalization(images)._asdict()
    config = config.copy_and_resolve_references()
    for name, values in measured.items():
        given = config.data[name]
        if given and len(given) != len(values):
            raise UserError(
                f"config.data.{name} must have one number for each of the {len(values)} channels, or be () to be "
                f"measured; got {given}"
            )
        config.data[name] = given or values
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
    }
