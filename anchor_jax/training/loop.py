"""The training loop: run steps, log, evaluate and save checkpoints, until the last step or a stop signal."""

import contextlib
import os
import signal
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import orbax.checkpoint as ocp

from anchor_jax.config import Config
from anchor_jax.core.errors import Preempted
from anchor_jax.metrics import reliability
from anchor_jax.runs import checkpoint
from anchor_jax.runs import record as run_record
from anchor_jax.runs.divergence import check_finite, check_nonfinite_updates
from anchor_jax.runs.state import Carry, TrainState
from anchor_jax.runtime import preemption
from anchor_jax.runtime.settings import with_own_settings
from anchor_jax.training.logging import TrainLogger, create_logger
from anchor_jax.training.pace import StepChunker
from anchor_jax.training.preparation import prepare
from anchor_jax.training.summary import run_summary
from anchor_jax.training.trackers import TENSORBOARD, Pictures
from anchor_jax.training.trackers import check as check_trackers
from anchor_jax.training.trainer import Trainer

__all__ = ["prepare", "train"]

_PICTURED = 10  # references and images that trackers show


@with_own_settings
def train(
    config: Config,
    workdir: str | os.PathLike[str],
    *,
    profile: bool = False,
    accept_changes: tuple[str, ...] = (),
    trackers: Sequence[str] = (TENSORBOARD,),
    pictures: Pictures | None = None,
) -> TrainState:
    """Train a network, from the start or from the latest checkpoint in `workdir`; return the final state.

    On SIGTERM or SIGINT, the current step is finished and saved. A second signal, at least a second later, ends the
    process immediately (also that of a notebook); see `preemption.catch_stop_signals`.

    Args:
      config: of the run, see `anchor_jax.config`.
      workdir: the run's folder; it is created if it does not exist.
      profile: trace some steps into `<workdir>/profile/`, after everything is compiled.
      accept_changes: keys of the config that may differ from those the run started with; "data" accepts other images.
      trackers: "tensorboard", "wandb" and "mlflow", or some of them: where metrics go besides `metrics.jsonl`.
      pictures: draws the pictures that trackers show; `anchor_jax.reporting.TrainingPictures()`, or none.

    Raises:
      UserError: the config, the data or the folder is invalid; the client of a tracker is not installed; the loss
        became NaN or infinite.
      Preempted: a stop signal arrived.
    """
    trackers = check_trackers(trackers)
    trainer = prepare(config, workdir, accept_changes)
    workdir = trainer.run.workdir
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(trainer.source))
        stack.enter_context(run_record.lock_workdir(trainer.run))
        checkpoints = stack.enter_context(checkpoint.open_manager(workdir, trainer.run.config))
        restored = checkpoint.restore(checkpoints, trainer.carry_shapes())
        run_record.record_config_changes(trainer.run, checkpoints.latest_step())
        carry, last_logged = restored or checkpoint.Snapshot(trainer.init_carry(), -1)
        options = trainer.schedule.total_steps, trackers, pictures
        logger = stack.enter_context(create_logger(trainer.run, last_logged, *options))
        logger.print(run_summary(trainer, carry[0]))
        if not restored:
            logger.picture(0, "examples", lambda drawn: drawn.examples(*_examples(trainer)))
        stop_signal = stack.enter_context(preemption.catch_stop_signals())

        if not trainer.schedule.total_steps and not restored:  # no training: evaluate and save the initial weights
            scores = _evaluate(trainer, carry[0], checkpoints, logger)
            _save(checkpoints, carry, logger, scores)
        state = _train_loop(trainer, carry, checkpoints, logger, StepChunker(stop_signal), profile=profile)
        if number := stop_signal():
            raise Preempted(number, f"{signal.Signals(number).name}: the run is complete")
    return state


def _train_loop(
    trainer: Trainer,
    carry: Carry,
    checkpoints: ocp.CheckpointManager,
    logger: TrainLogger,
    chunker: StepChunker,
    *,
    profile: bool,
) -> TrainState:
    """Train, log, evaluate and save up to the last step; return the final state."""
    config, schedule, workdir = trainer.run.config, trainer.schedule, trainer.run.workdir
    state, totals = carry
    for index, step in enumerate(schedule.log_steps(int(state.step), config)):
        # steps up to the first log step include compilation: profile those that follow, if there are any
        is_profiled = profile and (index == 1 or (index == 0 and step == schedule.total_steps))
        profile_dir = workdir / "profile" if is_profiled else None

        (state, totals), metrics = trainer.train_steps((state, totals), step, chunker, profile_dir)
        max_nonfinite = config.training.max_consecutive_nonfinite
        check_nonfinite_updates(state, max_nonfinite, checkpoints.latest_step(), workdir)
        if int(state.step) < step:
            _save_and_stop(trainer, (state, totals), checkpoints, logger, chunker.stop_signal)
        if profile_dir:
            logger.print(f"profile   {profile_dir}")
        check_finite(step, metrics, checkpoints.latest_step(), workdir)
        logger.log(step, "train", metrics)
        totals = trainer.zero_totals()

        is_checkpoint = schedule.is_due(step, config.checkpoint.every_epochs)
        if is_checkpoint or schedule.is_due(step, config.evaluation.every_epochs):
            scores = _evaluate(trainer, state, checkpoints, logger)
            if is_checkpoint:
                _save(checkpoints, (state, totals), logger, scores)
    return state


def _evaluate(
    trainer: Trainer, state: TrainState, checkpoints: ocp.CheckpointManager, logger: TrainLogger
) -> dict[str, float]:
    """Evaluate a state, log its scores and return them."""
    judged: list[tuple[np.ndarray, np.ndarray]] = []
    step, scores = int(state.step), trainer.evaluator.run(state, lambda *found: judged.append(found))
    check_finite(step, scores, checkpoints.latest_step(), trainer.run.workdir)
    name, num_bins = trainer.evaluator.dataset.name, trainer.run.config.evaluation.num_bins
    logger.log(step, name, scores)
    picture = f"{name}/reliability"
    logger.picture(step, picture, lambda drawn: drawn.reliability(reliability(*judged[0], num_bins), name))
    return scores


def _examples(trainer: Trainer) -> tuple[np.ndarray | None, np.ndarray]:
    """Return some references, None for a standard network, and as many images that are evaluated."""
    references = trainer.run.references
    return None if references is None else references[:_PICTURED], trainer.evaluator.dataset.first(_PICTURED)[0]


def _save(
    checkpoints: ocp.CheckpointManager, carry: Carry, logger: TrainLogger, scores: dict[str, float] | None
) -> None:
    """Save a checkpoint in the background, after what was logged so far is on disk."""
    logger.flush()
    checkpoint.save(checkpoints, checkpoint.Snapshot(carry, logger.last_logged), scores)


def _save_and_stop(
    trainer: Trainer, carry: Carry, checkpoints: ocp.CheckpointManager, logger: TrainLogger, number: int
) -> NoReturn:
    """Save a checkpoint between two log steps and end the run, after stop signal `number`.

    Raises:
      Preempted: always.
    """
    step, total_steps = int(carry[0].step), trainer.schedule.total_steps
    if step and step != checkpoints.latest_step():
        _save(checkpoints, carry, logger, scores=None)
    outcome = "no step is done yet; run the same command to start again"
    if step:
        outcome = f"{step:,} of {total_steps:,} steps are done and saved; run the same command to resume"
    raise Preempted(number, f"{signal.Signals(number).name}: {outcome}")
