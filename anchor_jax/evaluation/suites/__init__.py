"""Suites: what is asked of a trained run. Each looks at every example of its data once a number of references."""

from collections.abc import Callable

from anchor_jax.evaluation.subject import Finding, Subject
from anchor_jax.evaluation.suites import clean, corruptions, landscape, ood, probe, protocols, shift

# name -> what it finds with one number of references
SUITES: dict[str, Callable[[Subject, int], Finding]] = {
    "clean": clean.measure,
    "corruptions": corruptions.measure,
    "shift": shift.measure,
    "ood": ood.measure,
    "protocols": protocols.measure,
    "probe": probe.measure,
    "landscape": landscape.measure,
}
