"""The studies `fast` and `fast_lengths`: does masking help a well-fitted network, and is it anchoring or augmentation?

All runs are `configs/cifar10_fast.py` with changes, at equal compute. The control sees the residual `x - r` of a masked
batch without being anchored: if it gains as much as masking with the label, the gain is that of an augmentation. The
overlay shows `x + 0.5·r`: would any overlay do?
"""

from typing import Any

from studies.study import (
    ANCHORED,
    CLEAN,
    LABEL,
    MASKED,
    MEAN,
    SEVERITIES,
    STANDARD,
    Column,
    Evaluation,
    FigureSpec,
    Row,
    Size,
    Study,
)

ARMS: dict[str, dict[str, Any]] = {
    "standard": STANDARD,
    "anchored": ANCHORED,
    "uniform": MASKED | {"anchoring.masked_target": "uniform"},
    "label": MASKED | LABEL,
    "control": STANDARD | MASKED | {"anchoring.overlay_weight": -1.0},
    "overlay": STANDARD | MASKED | {"anchoring.overlay_weight": 0.5},
}
_STRETCH = 1 / (1 - MASKED["anchoring.mask_prob"])  # makes up for the steps of `uniform` that teach no class
_SIZE = Size("fast", {"data.test_split": "test[:2000]"}, "the recipe of cifar10_fast, the first 2,000 test images")
_ACCURACIES = (MEAN, CLEAN, *SEVERITIES)


def _row(arm: str, epochs: float = 1.0, seeds: int = 3) -> Row:
    name = arm if epochs == 1 else f"{arm}, {epochs:.3g} times as long"
    return Row(name, "cifar10_fast", ARMS[arm], seeds=seeds, epochs=epochs, is_baseline=arm == "standard")


FAST = Study(
    rows=[
        *(_row(arm) for arm in ("standard", "label", "control", "uniform", "anchored", "overlay")),
        *(_row(arm, _STRETCH) for arm in ("standard", "uniform")),
    ],
    evaluations=[Evaluation(("clean", "ood"), (1, 10)), Evaluation(("corruptions",), (1,))],
    columns=(
        *_ACCURACIES,
        Column("clean, K = 10", "clean", 10, "accuracy"),
        Column("ECE", "clean", 1, "ece"),
        Column("smoothed ECE", "clean", 1, "smooth_ece"),
        Column("ECE, corrupted", "corruptions", 1, "ece"),
        Column("near OOD AUROC, energy", "ood", 1, "auroc", {"group": "near", "score": "energy"}),
        Column("far OOD AUROC, energy", "ood", 1, "auroc", {"group": "far", "score": "energy"}),
    ),
    figure=FigureSpec("accuracy, one reference", ("corrupted", "clean", "severity 5")),
    size=_SIZE,
)

# Masked steps teach more slowly, and the paper trains for 200 epochs: do the curves cross?
FAST_LENGTHS = Study(
    rows=[_row(arm, epochs, seeds=1) for epochs in (0.5, 1.0, 2.0, 4.0) for arm in ("standard", "label", "control")],
    evaluations=[Evaluation(("clean",), (1, 10)), Evaluation(("corruptions",), (1,))],
    columns=_ACCURACIES,
    figure=FigureSpec("accuracy, one reference", ("corrupted", "clean", "severity 5")),
    size=_SIZE,
)
