"""The schedule of a run: its log steps, and batch sizes and lengths that do not fit."""

import pytest

from anchor_jax import UserError
from anchor_jax.training.schedule import TrainingSchedule, make_schedule


def test_log_steps_are_regular_epoch_ends_and_evaluations(tiny):
    tiny.logging.every_steps, tiny.evaluation.every_epochs, tiny.checkpoint.every_epochs = 4, 1.0, 2.0
    assert list(TrainingSchedule(10, 25).log_steps(0, tiny)) == [4, 8, 10, 14, 18, 20, 24, 25]
    assert list(TrainingSchedule(10, 25).log_steps(14, tiny)) == [18, 20, 24, 25]
    tiny.logging.every_steps = 0
    assert list(TrainingSchedule(10, 25).log_steps(0, tiny)) == [10, 20, 25]
    tiny.checkpoint.every_epochs = 0.5
    assert list(TrainingSchedule(10, 25).log_steps(0, tiny)) == [5, 10, 15, 20, 25]


@pytest.mark.parametrize(
    ("step", "every_epochs", "is_due"),
    [(10, 1.0, True), (15, 1.0, False), (15, 0.5, True), (20, 3.0, False), (25, 3.0, True), (1, 0.01, True)],
)
def test_is_due_at_multiples_and_after_the_last_step(step, every_epochs, is_due):
    assert TrainingSchedule(10, 25).is_due(step, every_epochs) == is_due


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.accumulation_steps": 3}, "by the 8 devices times 3 accumulation_steps; got 16, try 24"),
        (
            {"augmentation.cutmix_alpha": 1.0, "training.batch_size": 24},
            r"must be even on each of the 8 devices.*; got 24, try 32",
        ),
        ({"training.total_epochs": 1e6, "training.batch_size": 8}, r"is 12,000,000,000 steps; at most 2,147,483,647"),
    ],
)
def test_make_schedule_refuses_what_does_not_fit(tiny, changes, message):
    tiny.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        make_schedule(tiny, num_examples=96_000, num_devices=8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.ema_decay": 1.0}, "ema_decay must be below 1: .*; got 1.0"),
        ({"training.ema_decay": 1 - 1e-9}, r"ema_decay must be below 1: .*; got 0.999999999"),
        ({"training.ema_decay": 0.9, "training.ema_every_steps": 13}, "ema_every_steps must be at most 12, .*; got 13"),
    ],
)
def test_average_of_initial_weights_alone_is_refused(tiny, changes, message):
    tiny.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        make_schedule(tiny, num_examples=96, num_devices=8)


def test_warmup_beyond_the_run_is_warned_of(tiny):
    tiny.optimizer.warmup_epochs, tiny.training.ema_decay, tiny.training.ema_every_steps = 2.0, 0.9, 12
    assert make_schedule(tiny, num_examples=96, num_devices=8).total_steps == 12
    tiny.optimizer.warmup_epochs = 2.1
    with pytest.warns(UserWarning, match=r"warmup_epochs=2.1 is longer than the run, 2.0 epochs: .* peak, 0.05"):
        make_schedule(tiny, num_examples=96, num_devices=8)
