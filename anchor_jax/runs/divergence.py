"""Errors for runs whose loss, gradient or parameters become NaN or infinite."""

import math
from collections.abc import Mapping
from pathlib import Path

from anchor_jax.core.errors import UserError
from anchor_jax.runs.state import TrainState


def check_finite(step: int, numbers: Mapping[str, float | None], last_good: int | None, workdir: Path) -> None:
    """Check that logged numbers are finite.

    Args:
      step: the step they belong to.
      numbers: by name; None means no value.
      last_good: step of the latest checkpoint, for the error; None if there is none.
      workdir: the run's folder, for the error.

    Raises:
      UserError: names the step, the latest checkpoint and the likely cause.
    """
    for name, value in numbers.items():
        if value is not None and not math.isfinite(value):
            raise divergence_error(f"{name} is {value} at step {step} of '{workdir}'", last_good)


def check_nonfinite_updates(state: TrainState, allowed: int, last_good: int | None, workdir: Path) -> None:
    """Check that no more consecutive updates were skipped than allowed.

    Args:
      state: the current state.
      allowed: `config.training.max_consecutive_nonfinite`.
      last_good: step of the latest checkpoint, for the error; None if there is none.
      workdir: the run's folder, for the error.

    Raises:
      UserError: names the steps, the latest checkpoint and the likely cause.
    """
    longest, until = int(state.skipped.longest), int(state.skipped.until)
    if longest > allowed:
        steps = f"step {until}" if longest == 1 else f"steps {until - longest + 1} to {until}"
        raise divergence_error(f"the loss or its gradient is not finite at {steps} of '{workdir}'", last_good)


def divergence_error(what: str, last_good: int | None) -> UserError:
    """Return the error of a diverged run: what is not finite, the latest good checkpoint, and what to change."""
    kept = f"the checkpoint of step {last_good} is good" if last_good is not None else "no checkpoint was written"
    return UserError(
        f"{what}; {kept}; the learning rate is probably too high: start a new run with a lower "
        "config.optimizer.learning_rate or a higher config.optimizer.warmup_epochs"
    )
