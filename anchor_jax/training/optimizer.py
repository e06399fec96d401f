"""Optimizer and learning-rate schedule of a configuration, from optax."""

from collections import Counter

import optax

from anchor_jax.config import Config


def create(config: Config, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer of `config.optimizer` with a schedule; it decays every parameter, as PyTorch does.

    "sgd" is `torch.optim.SGD` (`CIFAR/train.py` of the released code): the decay joins the gradient before
    the momentum. "adamw" decays apart from the gradient.
    """
    if config.name == "adamw":
        return optax.adamw(schedule, weight_decay=config.weight_decay)
    return optax.chain(optax.add_decayed_weights(config.weight_decay), optax.sgd(schedule, config.momentum))


def create_schedule(config: Config, steps_per_epoch: int, total_steps: int) -> optax.Schedule:
    """Step -> learning rate: linear warm-up from 0, then steps down at the milestones or half a cosine to 0."""
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(config.learning_rate, max(total_steps - warmup_steps, 1))
    else:
        milestones = Counter(round(epoch * steps_per_epoch) - warmup_steps for epoch in config.milestones_epochs)
        after = optax.piecewise_constant_schedule(
            config.learning_rate, {step: config.decay_factor**count for step, count in milestones.items()}
        )
    if not warmup_steps:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, config.learning_rate, warmup_steps), after], [warmup_steps])
