"""Compare losses with those of a CPU."""

from collections.abc import Mapping, Sequence
from typing import Any

# Relative, of the first step and of the others. They allow for rounding, but not for steps that are 1% too long; on a
# CPU, another number of devices changes the losses far less.
FIRST_TOLERANCE, TOLERANCE = 1e-5, 1e-4


def compare(found: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    """Return the losses, their relative differences from the reference, and whether all are within the tolerance."""
    differences = [abs(loss - other) / abs(other) for loss, other in zip(found, reference, strict=True)]
    tolerances = [FIRST_TOLERANCE] + [TOLERANCE] * (len(found) - 1)
    exceeding = [
        step
        for step, (difference, tolerance) in enumerate(zip(differences, tolerances, strict=True), 1)
        if not difference <= tolerance  # also NaN
    ]
    return {
        "losses": list(found),
        "reference": list(reference),
        "first_difference": differences[0],
        "largest_difference": max(differences, key=lambda difference: (difference != difference, difference)),
        "first_tolerance": FIRST_TOLERANCE,
        "tolerance": TOLERANCE,
        "first_wrong_step": exceeding[0] if exceeding else None,
        "agrees": not exceeding,
    }


def verdict(result: Mapping[str, Any]) -> str:
    """Return the outcome of a comparison in words."""
    step = result["first_wrong_step"]
    if step is None:
        return (
            f"{len(result['losses'])} losses agree with those of the CPU, to {result['largest_difference']:.1e} "
            f"(first step: {result['first_difference']:.1e}; allowed: {TOLERANCE:g}, {FIRST_TOLERANCE:g})"
        )
    allowed = FIRST_TOLERANCE if step == 1 else TOLERANCE
    found, expected = result["losses"][step - 1], result["reference"][step - 1]
    return f"the loss of step {step} is {found:.7g}, but {expected:.7g} on the CPU (allowed: {allowed:g}, relative)"
