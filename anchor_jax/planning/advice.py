"""What to change in a config whose step does not fit: changes are tried with the compiler, the cheapest first."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from anchor_jax.config import Config
from anchor_jax.core.errors import UserError
from anchor_jax.planning.memory import Memory
from anchor_jax.planning.plan import Plan, Progress
from anchor_jax.planning.targets import Target

Changes = Mapping[str, Any]

MAX_TRIALS = 10  # a compilation takes up to minutes
_PARTS_TO_TRY = 2  # the smallest number of parts that may suffice, and the next one


class Trial(NamedTuple):
    """A changed config.

    Attributes:
      changes: new values by key.
      plan: of the changed config.
    """

    changes: Changes
    plan: Plan


def find_fitting(plan: Plan, make_plan: Callable[[Config], Plan], progress: Progress = lambda _: None) -> list[Trial]:
    """Try changes until one fits; return all that were tried, the fitting one last if there is one.

    First changes that keep the batch size: parts of the batch (`training.accumulation_steps`), recomputation
    (`model.remat`), and sharding of the state ("fsdp"); then smaller batches. Changes whose memory cannot suffice, by
    what is known of the first plan, are skipped.

    Args:
      plan: of a config that does not fit.
      make_plan: compiles the step of another config.
      progress: called with what is about to be done.
    """
    trials: list[Trial] = []
    for changes in candidates(plan.config, plan.target, plan.memory):
        if len(trials) == MAX_TRIALS:
            break
        progress(f"trying {described(changes)} ...")
        try:
            trial = Trial(changes, make_plan(changed(plan.config, changes)))
        except UserError as error:  # such as a model without `remat`
            progress(f"not possible: {error}")
            continue
        trials.append(trial)
        if trial.plan.memory.fits:
            break
    return trials


def candidates(config: Config, target: Target, memory: Memory) -> Iterator[Changes]:
    """Yield changes that may make a config fit, in the order in which they are worth trying.

    Args:
      config: of the plan.
      target: the chips.
      memory: of the plan. Temporaries are assumed to grow with the number of examples that are computed at once, and
        recomputation to keep a third of them.
    """
    training, num = config.training, target.num_devices
    state = memory.parameters + memory.optimizer + memory.average
    shard = {"training.sharding": "fsdp"} if training.sharding == "replicated" and num > 1 else {}
    recompute = {"model.remat": True} if not config.model.remat else {}
    smallest: Changes = recompute | shard
    per_device, current = training.batch_size // num, training.accumulation_steps

    def suffices(changes: Changes, parts: int, batch_size: int = training.batch_size) -> bool:
        of_state = state / num if "training.sharding" in changes else state
        kept = memory.temporaries / parts / (3 if "model.remat" in changes else 1)
        of_batch = memory.batch * batch_size / training.batch_size
        return of_state + memory.data + of_batch + memory.padding + kept <= memory.available

    single = [one for one in (recompute, shard) if one]
    for changes in [{}, *single, *([smallest] if len(single) == 2 else [])]:
        factors = [parts // current for parts in range(current, per_device + 1, current) if per_device % parts == 0]
        sufficient = [factor for factor in factors if (factor > 1 or changes) and suffices(changes, factor)]
        for factor in sufficient[:_PARTS_TO_TRY]:
            parts = {"training.accumulation_steps": factor * current} if factor > 1 else {}
            yield {**parts, **changes}
    batch_size = training.batch_size
    while batch_size % 2 == 0 and (batch_size := batch_size // 2) >= num:
        steps = math.gcd(current, batch_size // num)
        if suffices(smallest, training.batch_size * steps // (batch_size * current), batch_size):
            parts = {"training.accumulation_steps": steps} if steps != current else {}
            yield {**smallest, "training.batch_size": batch_size, **parts}


def changed(config: Config, changes: Changes) -> Config:
    """Return a copy of a config with new values."""
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(dict(changes))
    return config


def described(changes: Changes) -> str:
    """Return changes as flags of the command line."""
    return " ".join(f"--config.{key}={value}" for key, value in changes.items())
