"""Checkpoints of a run by orbax: asynchronous, atomic, the newest few and the best."""

import contextlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from anchor_jax import checks, processes
from anchor_jax.config import Config
from anchor_jax.errors import UserError
from anchor_jax.training.state import TrainState, variables

METRIC = "accuracy"  # of the evaluation in training, by which the best is known
VARIABLES, AVERAGE = "variables", "average"  # what is evaluated: the average, where the run keeps one


def manager(workdir: Path, config: Config, *, read_only: bool = False) -> ocp.CheckpointManager:
    """Keeps the newest `config.checkpoint.keep` checkpoints and the best one."""

    def score(metrics):
        return metrics[METRIC]

    policy = AnyPreservationPolicy([LatestN(config.checkpoint.keep), BestN(get_metric_fn=score, n=1)])
    options = ocp.CheckpointManagerOptions(
        best_fn=score,
        preservation_policy=policy,
        read_only=read_only,
        create=not read_only,
        cleanup_tmp_directories=not read_only,
    )
    return ocp.CheckpointManager((workdir / "checkpoints").absolute(), options=options)


def any_in(workdir: Path) -> bool:
    """Whether a run has a checkpoint, complete or not."""
    return any(folder.name.isdigit() for folder in (workdir / "checkpoints").glob("*"))


def save(checkpoints: ocp.CheckpointManager, state: TrainState, metrics: dict[str, float]) -> None:
    """Save the state under its step, in the background; what evaluation needs lies apart from the rest."""
    items = {name: ocp.args.StandardSave(item) for name, item in _items(state).items()}
    checkpoints.save(int(state.step), args=ocp.args.Composite(**items), metrics=metrics)


def restore(checkpoints: ocp.CheckpointManager, like: TrainState) -> TrainState | None:
    """The newest state, of the shapes, dtypes and devices in `like`; None if there is none.

    Raises:
      UserError: the newest checkpoint is damaged or does not fit.
    """
    step = processes.agreed(-1 if (newest := checkpoints.latest_step()) is None else newest)
    if step < 0:
        return None
    items = _restore(checkpoints, step, **_items(like))
    done = jax.make_array_from_callback((), like.step.sharding, lambda _: np.int32(step))
    return TrainState(done, **items[VARIABLES], opt_state=items["opt_state"], average=items.get(AVERAGE, {}))


def _items(state: TrainState) -> dict[str, Any]:
    items = {VARIABLES: variables(state), "opt_state": state.opt_state}
    return items | ({AVERAGE: state.average} if state.average else {})


def restore_variables(workdir: Path, config: Config, like: Any, which: int | str) -> tuple[int, Any]:
    """Step and variables of a checkpoint, of the shapes and devices in `like`; `which` is a step, "latest" or "best".

    Raises:
      UserTypeError: `which` is neither an integer nor a string.
      UserError: there is no such checkpoint, it is damaged, or it does not fit the model.
    """
    if not isinstance(which, str):
        which = checks.integer("step", which)
    if not (workdir / "checkpoints").is_dir():
        raise UserError(f"no checkpoint in '{workdir}' yet; train first")
    with _quiet(), manager(workdir, config, read_only=True) as checkpoints:
        steps = checkpoints.all_steps()
        named: dict[int | str, int | None] = {"latest": checkpoints.latest_step(), "best": checkpoints.best_step()}
        step = named.get(which, which)
        if not isinstance(step, int) or step not in steps:
            raise UserError(f"no checkpoint {which} in '{workdir}'; there are: {', '.join(map(str, steps)) or 'none'}")
        item = AVERAGE if config.training.ema_decay else VARIABLES
        return step, _restore(checkpoints, step, **{item: like})[item]


@contextlib.contextmanager
def _quiet():
    """Without orbax's warnings that what was asked to be read only is read only."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _restore(checkpoints, step, **like):
    items = ocp.args.Composite(**{name: ocp.args.StandardRestore(shapes) for name, shapes in like.items()})
    try:
        return checkpoints.restore(step, args=items)
    except Exception as error:  # orbax and tensorstore raise many kinds on damaged files
        reason = str(error).splitlines()[0][:200]
        others = [other for other in checkpoints.all_steps() if other != step]
        raise UserError(
            f"checkpoint '{checkpoints.directory / str(step)}' is damaged or does not fit the model ({reason}); "
            f"move it away to go on from another; there are: {', '.join(map(str, others)) or 'none'}"
        ) from error
