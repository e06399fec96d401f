"""Find the planner's chip of a JAX device, and describe this machine by its measured peaks as another chip."""

from pathlib import Path

from anchor_jax.planning.targets import CHIPS, Chip
from benchmarks.campaign.files import read

BANDWIDTH = "memory, read and write"  # case of the result file of `machine`

# `device_kind` -> name of the chip; the titles are the kinds of the other GPUs
_KINDS = {
    "NVIDIA H200": "h200",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
} | {chip.title: name for name, chip in CHIPS.items()}


def find_chip(device_kind: str) -> str | None:
    """Return the planner's name of a kind of device; None if the planner does not know it.

    >>> find_chip("NVIDIA H200"), find_chip("TPU v6 lite"), find_chip("cpu")
    ('h200', 'v6e', None)
    """
    return _KINDS.get(device_kind)


def target_of(chip: str) -> str:
    """Return the planner's target for one device of a chip.

    >>> target_of("h200"), target_of("v5e"), target_of("v5p")
    ('h200:1', 'v5e:1x1', 'v5p:1x1x1')
    """
    if CHIPS[chip].platform == "cuda":
        return f"{chip}:1"
    return f"{chip}:1x1" if chip.endswith("e") else f"{chip}:1x1x1"


def product_case(dtype: str, precision: str | None = None) -> str:
    """Return the name of a matrix product in the result file of `machine`."""
    return f"matrix product, {dtype}" + (f", {precision} precision" if precision else "")


def measured_chip(file: Path | None) -> Chip | None:
    """Return a chip with the measured peaks; estimates for it are rooflines, as for a GPU.

    Args:
      file: result file of `machine`, or None.

    Returns:
      The chip; None if there is no such file, or not all peaks were measured.
    """
    machine = read(file) if file else None
    best = {result["case"]: max(result["samples"]) for result in machine["results"]} if machine else {}
    if not {BANDWIDTH, product_case("bfloat16"), product_case("float32")} <= best.keys():
        print("the peaks of this machine were not measured: there is no roofline")
        return None
    peaks = {dtype: best[product_case(dtype)] for dtype in ("bfloat16", "float32")}
    return Chip("this machine", "cuda", 0, best[BANDWIDTH], peaks, 1.0, "measured")
