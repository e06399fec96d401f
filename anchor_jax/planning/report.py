"""The tables of a plan."""

from collections.abc import Sequence

from anchor_jax.planning.advice import Trial, described
from anchor_jax.planning.content import METHODS
from anchor_jax.planning.memory import Memory
from anchor_jax.planning.paths import module_path
from anchor_jax.planning.plan import Plan
from anchor_jax.planning.targets import GPU_MEMORY_FRACTION
from anchor_jax.reporting.terminal import print_lines, print_table

_KINDS = {
    "parameters": "parameters",
    "optimizer": "optimizer",
    "average": "moving average",
    "data": "data on the device",
    "batch": "batches",
    "padding": "padding of layouts",
    "temporaries": "activations, temporaries",
}
_NOTABLE = 0.01  # of a step
_NEARLY_ALL = 0.95  # of a GPU's memory; the driver and libraries need the rest


def print_plans(plans: Sequence[Plan], trials: dict[str, list[Trial]]) -> None:
    """Print the plans of a config on several targets.

    Args:
      plans: one per target.
      trials: what was tried where the config does not fit, by name of the target; nothing of a target without advice.
    """
    print_table(["per device", *(plan.target.name for plan in plans)], _rows(plans))
    for plan in plans:
        print_lines(f"{plan.target.name}: estimated from {METHODS[plan.target.chip.platform]}", "")
        _print_details(plan)
        for line in advice_lines(plan, trials.get(plan.target.name)):
            print_lines(line)


def _rows(plans: Sequence[Plan]) -> list[list[str]]:
    columns = [_column(plan) for plan in plans]
    return [[title, *(column[title] for column in columns)] for title in columns[0]]


def _column(plan: Plan) -> dict[str, str]:
    memory, estimated, training = plan.memory, plan.estimate, plan.config.training
    column = {"fits": "yes" if memory.fits else "NO"}
    column |= {f"  {title}": _size(getattr(memory, kind)) for kind, title in _KINDS.items()}
    column["memory"] = f"{_size(memory.total)} of {_size(memory.available)}"
    column["images per step"] = f"{training.batch_size // plan.target.num_devices:,} of {training.batch_size:,}"
    column["TFLOP per step"] = _number(plan.flops, 1e-12)
    column["ms per step"] = _number(plan.step_seconds, 1e3)
    column["  of communication"] = _number(estimated and estimated.communication, 1e3)
    column["images/s, all devices"] = f"{plan.images_per_second:,.0f}" if plan.images_per_second else "-"
    column["fraction of the peak"] = _percent(plan.fraction_of_peak)
    column["layout copies"] = _percent(estimated and estimated.copies / max(estimated.seconds, 1e-12))
    column["operations per step"] = f"{estimated.kernels:,}" if estimated else "-"
    column["GB moved per step"] = _number(estimated and estimated.moved, 1e-9)
    epoch = plan.step_seconds and plan.step_seconds * plan.schedule.steps_per_epoch
    column["seconds per epoch"] = _number(epoch)
    column["run"] = f"{training.total_epochs:g} epochs"
    column["  hours"] = _number(plan.run_hours)
    column["  chip-hours"] = _number(plan.chip_hours)
    return column


def _print_details(plan: Plan) -> None:
    estimated = plan.estimate
    if estimated is None:
        return
    costliest = [(_number(one.seconds, 1e3), f"{one.times:,}", one.path) for one in estimated.costliest]
    _print_list("the costliest operations of a step", ("ms", "count", ""), costliest)
    communication = [
        (_number(one.seconds, 1e3), f"{one.times:,}", f"{one.kind}, {_size(one.num_bytes)}")
        for one in estimated.collectives
    ]
    _print_list("communication in a step", ("ms", "count", ""), communication)
    loops = [
        ("unknown" if loop.trips is None else f"{loop.trips:,}", f"{loop.times:,}", module_path(loop.op_name) or "loop")
        for loop in estimated.loops
    ]
    _print_list("loops inside a step", ("trips", "count", ""), loops)
    if any(loop.trips is None for loop in estimated.loops):
        print_lines("Loops of unknown length are counted as one iteration: the step takes longer.")
    if estimated.unestimated > _NOTABLE * estimated.seconds:
        print_lines(
            f"Without an estimate by the compiler: {_number(estimated.unestimated, 1e3)} ms, from bytes and bandwidth."
        )
    if plan.target.chip.gpu:
        print_lines(f"Optimistic: the launches of {estimated.kernels:,} kernels are not included.")
    if estimated.call_seconds > 0:
        print_lines(f"Once per call, of about a second of steps: {_number(estimated.call_seconds, 1e3)} ms.")


def _print_list(title: str, headings: tuple[str, str, str], rows: Sequence[tuple[str, str, str]]) -> None:
    """Print two columns of numbers and a name of any length; nothing without rows."""
    if rows:
        lines = [f"  {first:>9} {second:>7}  {name}".rstrip() for first, second, name in (headings, *rows)]
        print_lines(f"{title}:", *lines, "")


def advice_lines(plan: Plan, trials: Sequence[Trial] | None) -> list[str]:
    """Return what to change where a config does not fit: a line per trial (None: without advice), and what follows."""
    if plan.memory.fits:
        return []
    memory, fitting = plan.memory, {}
    lines = [f"{plan.target.name}: does not fit: it needs {_size(memory.total)} of {_size(memory.available)}"]
    for trial in trials or ():
        fitting = trial.changes if trial.plan.memory.fits else fitting
        outcome = "fits" if trial.plan.memory.fits else "does not fit"
        rate = trial.plan.images_per_second
        speed = f", {rate:,.0f} images/s" if rate else ""
        needed = f"{_size(trial.plan.memory.total)} of {_size(trial.plan.memory.available)}"
        lines.append(f"  {described(trial.changes)}: {outcome}, {needed}{speed}")
    if "training.batch_size" in fitting:
        lines.append(f"  a smaller batch needs another learning rate than {plan.config.optimizer.learning_rate:g}")
    if fitting.get("training.accumulation_steps", 1) > 1:
        lines.append(
            "  BatchNorm without training.bn_group_size, stochastic depth and dropout work on parts of a batch"
        )
    if fraction := _memory_fraction(memory) if plan.target.chip.gpu else None:
        lines.append(f"  XLA_PYTHON_CLIENT_MEM_FRACTION={fraction:.2f} in the environment: fits as it is")
    if trials is not None and not fitting and not fraction:
        lines.append("  no change that was tried fits; use a smaller batch or model, or more chips")
    return lines


def number(value: float, digits: int = 3) -> str:
    """Return a number with some significant digits, never with an exponent for a large one.

    >>> number(1_234.5), number(12.345), number(130.0, digits=2)
    ('1,234', '12.3', '130')
    """
    return f"{value:,.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def _memory_fraction(memory: Memory) -> float | None:
    """Return the fraction of a GPU's memory that JAX must be allowed to use; None if all of it is too little."""
    needed = memory.total / (memory.available / GPU_MEMORY_FRACTION)
    return min(needed + 0.02, _NEARLY_ALL) if needed <= _NEARLY_ALL else None


def _size(num_bytes: float) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= factor:
            return f"{_number(num_bytes / factor)} {unit}"
    return f"{num_bytes:,.0f} B"


def _number(value: float | None, factor: float = 1.0) -> str:
    return "-" if value is None else number(value * factor)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"
