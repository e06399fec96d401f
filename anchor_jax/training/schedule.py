"""The length of a run, and the steps after which it logs, evaluates and saves."""

import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from anchor_jax.config import Config
from anchor_jax.core.errors import UserError

_MAX_STEPS = 2**31 - 1  # int32


class TrainingSchedule(NamedTuple):
    """The length of a run in steps; steps are counted from 1."""

    steps_per_epoch: int
    total_steps: int

    @classmethod
    def from_config(cls, config: Config, num_examples: int) -> "TrainingSchedule":
        """Return the schedule of a run on a training set of `num_examples`."""
        steps_per_epoch = num_examples // config.training.batch_size
        return cls(steps_per_epoch, round(config.training.total_epochs * steps_per_epoch))

    def is_due(self, step: int, every_epochs: float) -> bool:
        """Return whether an action that is done every `every_epochs` is due after a step; it always is after the last.

        >>> TrainingSchedule(steps_per_epoch=10, total_steps=25).is_due(20, every_epochs=2.0)
        True
        """
        return step == self.total_steps or step % max(round(every_epochs * self.steps_per_epoch), 1) == 0

    def log_steps(self, step: int, config: Config) -> Iterator[int]:
        """Yield the steps after `step` at which the host logs: every epoch end and every evaluation is one of them."""
        every_steps = config.logging.every_steps or self.steps_per_epoch
        for later in range(step + 1, self.total_steps + 1):
            is_logged = later % self.steps_per_epoch % every_steps == 0
            if is_logged or any(self.is_due(later, c.every_epochs) for c in (config.evaluation, config.checkpoint)):
                yield later


def make_schedule(config: Config, num_examples: int, num_devices: int) -> TrainingSchedule:
    """Return the schedule of a run, after checking that its batches fit the training set and the devices.

    A run of 0 epochs has no batches.

    Raises:
      UserError: the batch size does not fit, the number of steps is too small or too large, or the moving average
        never leaves the initial weights.
    """
    if config.training.total_epochs:
        _check_batch_size(config, num_examples, num_devices)
    schedule, total_epochs = TrainingSchedule.from_config(config, num_examples), config.training.total_epochs
    if total_epochs and schedule.total_steps < 1:
        raise UserError(f"config.training.total_epochs={total_epochs} is less than one step; increase it")
    if schedule.total_steps > _MAX_STEPS:
        raise UserError(
            f"config.training.total_epochs={total_epochs} is {schedule.total_steps:,} steps; at most {_MAX_STEPS:,} "
            "are allowed"
        )
    if schedule.total_steps:
        _check_effects(config, schedule)
    return schedule


def _check_effects(config: Config, schedule: TrainingSchedule) -> None:
    """Check that the moving average leaves the initial weights; warn of a warmup that never ends."""
    training, warmup_epochs = config.training, config.optimizer.warmup_epochs
    if np.float32(training.ema_decay) == 1:
        raise UserError(
            "config.training.ema_decay must be below 1: the moving average, which is what is evaluated, would stay at "
            f"the initial weights; got {training.ema_decay}"
        )
    if training.ema_decay and training.ema_every_steps > schedule.total_steps:
        raise UserError(
            f"config.training.ema_every_steps must be at most {schedule.total_steps}, the steps of the run, or the "
            f"moving average would stay at the initial weights; got {training.ema_every_steps}"
        )
    if round(warmup_epochs * schedule.steps_per_epoch) > schedule.total_steps:
        warnings.warn(
            f"config.optimizer.warmup_epochs={warmup_epochs} is longer than the run, {training.total_epochs} epochs: "
            f"the learning rate does not reach its peak, {config.optimizer.learning_rate}",
            stacklevel=2,
        )


def _check_batch_size(config: Config, num_examples: int, num_devices: int) -> None:
    batch_size, num_parts = config.training.batch_size, config.training.accumulation_steps
    divisor = num_devices * num_parts
    if batch_size % divisor:
        parts = f" times {num_parts} accumulation_steps" if num_parts > 1 else ""
        raise UserError(
            f"config.training.batch_size must be divisible by the {num_devices} devices{parts}; got {batch_size}, "
            f"try {max(batch_size // divisor, 1) * divisor}"
        )
    _check_bn_group_size(config.training.bn_group_size, batch_size // divisor, num_parts)
    mixes_pairs = config.augmentation.mixup_alpha or config.augmentation.cutmix_alpha
    if mixes_pairs and batch_size // num_devices % 2:
        raise UserError(
            "config.training.batch_size must be even on each of the "
            f"{num_devices} devices, since mixup and CutMix mix pairs of images; got {batch_size}, try "
            f"{(batch_size // num_devices + 1) * num_devices}"
        )
    if batch_size > num_examples:
        raise UserError(
            f"config.training.batch_size must be at most {num_examples}, the size of the training set; got {batch_size}"
        )


def _check_bn_group_size(group_size: int, num_at_once: int, num_parts: int) -> None:
    """Check that groups of BatchNorm lie on one device each, or cover the examples of several devices."""
    if not group_size or num_at_once % group_size == 0 or (num_parts == 1 and group_size % num_at_once == 0):
        return
    or_covers = "" if num_parts > 1 else ", or be a multiple of it"
    parts = f" in each of the {num_parts} accumulation_steps" if num_parts > 1 else ""
    raise UserError(
        f"config.training.bn_group_size must divide {num_at_once}, the number of images on a device{parts}{or_covers}; "
        f"got {group_size}, try {math.gcd(group_size, num_at_once)}"
    )
