"""A plan as plain values, for a JSON file."""

from typing import Any

import jax

from anchor_jax.config import flatten
from anchor_jax.planning.advice import Trial
from anchor_jax.planning.estimate import Estimate
from anchor_jax.planning.plan import Plan

METHODS = {
    "tpu": "the cycles that the TPU compiler estimates for each operation, at the chip's clock; not measured",
    "cuda": "a roofline over the compiled kernels: bytes at the memory's bandwidth or products at the chip's "
    "peak, whichever takes longer; not measured",
}


def plan_content(plan: Plan, trials: list[Trial]) -> dict[str, Any]:
    """Return a plan, and what was tried to make it fit, as plain values."""
    training = plan.config.training
    return {
        **_outcome(plan),
        "chip": {
            "title": plan.target.chip.title,
            "memory_bytes": plan.target.chip.memory,
            "bandwidth": plan.target.chip.bandwidth,
            "peak_flops": plan.target.chip.peak(plan.config.model.dtype),
            "link": plan.target.chip.link,
            "clock": plan.target.chip.clock or None,
            "source": plan.target.chip.source,
        },
        "method": METHODS[plan.target.chip.platform],
        "model": plan.config.model.name,
        "dtype": plan.config.model.dtype,
        "batch_size": training.batch_size,
        "total_epochs": training.total_epochs,
        "steps_per_epoch": plan.schedule.steps_per_epoch,
        "total_steps": plan.schedule.total_steps,
        "jax": jax.__version__,
        "trials": [{"changes": dict(trial.changes), **_outcome(trial.plan)} for trial in trials],
        "config": dict(sorted(flatten(plan.config).items())),
    }


def _outcome(plan: Plan) -> dict[str, Any]:
    memory = plan.memory
    return {
        "target": plan.target.name,
        "num_devices": plan.target.num_devices,
        "fits": memory.fits,
        "memory_bytes": {**memory._asdict(), "total": memory.total},
        "flop_per_step_and_device": plan.flops,
        "seconds_per_step": plan.step_seconds,
        "images_per_second": plan.images_per_second,
        "fraction_of_peak": plan.fraction_of_peak,
        "run_hours": plan.run_hours,
        "chip_hours": plan.chip_hours,
        "compile_seconds": round(plan.compile_seconds, 1),
        "step": _step(plan.estimate) if plan.estimate else None,
    }


def _step(estimate: Estimate) -> dict[str, Any]:
    return {
        "computation_seconds": estimate.seconds,
        "communication_seconds": estimate.communication,
        "cycles": estimate.cycles,
        "operations": estimate.kernels,
        "seconds_from_bytes": estimate.unestimated,
        "bytes_moved": estimate.moved,
        "layout_copy_seconds": estimate.copies,
        "seconds_per_call": estimate.call_seconds,
        "collectives": [one._asdict() for one in estimate.collectives],
        "costliest": [one._asdict() for one in estimate.costliest],
        "loops": [one._asdict() for one in estimate.loops],
    }
