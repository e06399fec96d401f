"""Suites: what is asked of a trained run. Each looks at every example of its data once a number of references."""

from collections.abc import Callable
from typing import NamedTuple

from anchor_jax.evaluation.context import EvalContext, Finding
from anchor_jax.evaluation.suites import clean, corruptions, landscape, ood, probe, protocols, shift


class Suite(NamedTuple):
    """A question and how it is answered."""

    measure: Callable[[EvalContext, int], Finding]  # with a number of references
    check: Callable[[EvalContext], None] = lambda subject: None  # refuses, before anything is measured, what cannot be
    options: tuple[str, ...] = ()  # of `Options`, that change what is asked
    by_any_protocol: bool = False  # whether its references may be those that the caller's protocol picks


SUITES = {
    "clean": Suite(clean.measure, options=("temperature_scaling",), by_any_protocol=True),
    "corruptions": Suite(
        corruptions.measure, corruptions.check, ("corruptions", "seed", "temperature_scaling"), by_any_protocol=True
    ),
    "shift": Suite(shift.measure, shift.check, ("shift", "temperature_scaling"), by_any_protocol=True),
    "ood": Suite(ood.measure, ood.check, ("ood",), by_any_protocol=True),
    "protocols": Suite(protocols.measure, protocols.check, ("blt_references", "draws", "seed")),
    "probe": Suite(probe.measure, probe.check, ("probe",)),
    "landscape": Suite(landscape.measure, options=("seed",)),
}
