"""Suites: what is asked of a trained run. Each looks at every example of its data once a number of references."""

from collections.abc import Callable
from typing import NamedTuple

from anchor_jax.evaluation.subject import Finding, Subject
from anchor_jax.evaluation.suites import clean, corruptions, landscape, ood, probe, protocols, shift


class Suite(NamedTuple):
    """A question and how it is answered."""

    measure: Callable[[Subject, int], Finding]  # with a number of references
    check: Callable[[Subject], None] = lambda subject: None  # refuses, before anything is measured, what cannot be


SUITES = {
    "clean": Suite(clean.measure, clean.check),
    "corruptions": Suite(corruptions.measure, corruptions.check),
    "shift": Suite(shift.measure, shift.check),
    "ood": Suite(ood.measure, ood.check),
    "protocols": Suite(protocols.measure),
    "probe": Suite(probe.measure, probe.check),
    "landscape": Suite(landscape.measure),
}
