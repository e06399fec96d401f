"""Stop runs whose loss, gradient or parameters are not finite."""

import math
from collections.abc import Mapping
from pathlib import Path

from anchor_jax.core.errors import UserError
from anchor_jax.runs.state import TrainState


def check_finite(step: int, numbers: Mapping[str, float | None], last_good: int | None, workdir: Path) -> None:
    """Stop a run whose loss or parameters are no numbers.

    Raises:
      UserError: names the step, the last checkpoint and the likely cause.
    """
    for name, value in numbers.items():
        if value is not None and not math.isfinite(value):
            raise divergence_error(f"{name} is {value} at step {step} of '{workdir}'", last_good)


def check_nonfinite_updates(state: TrainState, allowed: int, last_good: int | None, workdir: Path) -> None:
    """Stop a run of which more updates in a row were left out than are allowed.

    Raises:
      UserError: names the step, the last checkpoint and the likely cause.
    """
    longest, until = int(state.skipped.longest), int(state.skipped.until)
    if longest > allowed:
        steps = f"step {until}" if longest == 1 else f"steps {until - longest + 1} to {until}"
        raise divergence_error(f"the loss or its gradient is not finite at {steps} of '{workdir}'", last_good)


def divergence_error(what: str, last_good: int | None) -> UserError:
    """The error of a run that cannot go on, and whose last good checkpoint is that of a step."""
    kept = f"the checkpoint of step {last_good} is good" if last_good is not None else "no checkpoint was written"
    return UserError(
        f"{what}; {kept}; likely cause: too high a learning rate; lower config.optimizer.learning_rate or raise "
        "config.optimizer.warmup_epochs, in a new run"
    )
