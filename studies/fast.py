"""Studies of a network that fits CIFAR-10 in a few epochs: does masking help, and is it anchoring or augmentation?

All runs are `configs/cifar10_fast.py` with changes, at equal compute. The control sees the residual `x - r` of a masked
batch without being anchored: if it gains as much as masking with the label, the gain is that of an augmentation. The
overlay shows `x + 0.5·r`: would any overlay do? The results of every run are in the repository, see `studies.records`.
"""

from collections.abc import Mapping
from typing import Any

from studies.study import (
    ANCHORED,
    CLEAN,
    LABEL,
    MASKED,
    MEAN,
    SEVERITIES,
    STANDARD,
    UNIFORM,
    Column,
    Ensemble,
    Evaluation,
    FigureSpec,
    Row,
    Size,
    Study,
)

EPOCHS = 12.0  # of configs/cifar10_fast.py

_PLAIN = STANDARD | {"model.options.stem_width": 24}  # an anchored network has as many filters for the reference again

ARMS: dict[str, dict[str, Any]] = {
    "standard": _PLAIN,
    "anchored": ANCHORED,
    "label": MASKED | LABEL,
    "control": _PLAIN | MASKED | {"anchoring.overlay_weight": -1.0},
    "uniform": MASKED | UNIFORM,
    "overlay": _PLAIN | MASKED | {"anchoring.overlay_weight": 0.5},
}
WHITENED = {"model.whiten_stem": True}
FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    "weather": ("snow", "frost", "fog", "brightness", "spatter"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression", "saturate"),
}
_PAPER = {"standard": "75.6", "anchored": "76.4", "label": "80.8", "uniform": "80.8"}  # ResNet-18, 200 epochs
_STRETCH = 1 / (1 - MASKED["anchoring.mask_prob"])  # makes up for the steps of `uniform` that teach no class
_SIZE = Size(
    "fast",
    {"data.test_split": "test[:2000]"},
    "the recipe of cifar10_fast, the first 2,000 test images",
    records="docs/results/studies/fast",
)
_ACCURACIES = (MEAN, CLEAN, *SEVERITIES)
_EVALUATIONS = (Evaluation(("clean", "ood"), (1, 10)), Evaluation(("corruptions",), (1,)))
_FIGURE = FigureSpec("accuracy, one reference", ("corrupted", "clean", "severity 5"))


def _row(arm: str, epochs: float = EPOCHS, seeds: int = 3, extra: Mapping[str, Any] | None = None, **options: Any):
    """Return a row of runs of an arm, trained for a number of epochs, with extra changes."""
    changes = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in (extra or {}).items())
    length = "" if epochs == EPOCHS else f"{epochs:g} epochs"
    parts = [arm, *filter(None, (changes, length))]
    options = {
        "record": "-".join(part.replace(" ", "") for part in parts),
        "is_baseline": arm == "standard" and not changes,
    } | options
    return Row(
        options.pop("name", ", ".join(parts)),
        "cifar10_fast",
        ARMS[arm] | dict(extra or {}),
        seeds=seeds,
        epochs=epochs / EPOCHS,
        **options,
    )


FAST = Study(
    rows=[
        *(_row(arm, paper=_PAPER.get(arm, "")) for arm in ARMS),
        *(_row(arm, EPOCHS * _STRETCH) for arm in ("standard", "uniform")),
    ],
    evaluations=_EVALUATIONS,
    columns=(
        *_ACCURACIES,
        Column("clean, K = 10", "clean", 10, "accuracy"),
        Column("ECE", "clean", 1, "ece"),
        Column("smoothed ECE", "clean", 1, "smooth_ece"),
        Column("ECE, corrupted", "corruptions", 1, "ece"),
        Column("near OOD AUROC", "ood", 1, "auroc", {"group": "near", "score": "energy"}),
        Column("far OOD AUROC", "ood", 1, "auroc", {"group": "far", "score": "energy"}),
    ),
    figure=_FIGURE,
    size=_SIZE,
)

# Which kinds of corruption gain? An overlay would mostly help against noise. The families of ImageNet-C.
FAST_FAMILIES = Study(
    rows=[row._replace(paper="") for row in FAST.rows],
    evaluations=(Evaluation(("corruptions",), (1,)),),
    columns=tuple(
        Column(family, "corruptions", 1, "accuracy", corruptions=corruptions)
        for family, corruptions in FAMILIES.items()
    ),
    figure=FigureSpec("accuracy, one reference", tuple(FAMILIES)),
    size=_SIZE,
    shows_gains=True,
)

# Masked steps teach more slowly, and the paper trains for 200 epochs: do the curves cross?
FAST_LENGTHS = Study(
    rows=[_row(arm, epochs, seeds=1) for epochs in (6.0, 12.0, 24.0, 48.0) for arm in ("standard", "label", "control")],
    evaluations=_EVALUATIONS,
    columns=_ACCURACIES,
    figure=_FIGURE,
    size=_SIZE,
)

# Does the network use the reference that it is shown? Each column is another kind of input.
FAST_REFERENCES = Study(
    rows=[  # a standard network has no references
        *(_row(arm) for arm in ("anchored", "label", "uniform")),
        *(_row(arm, seeds=1, extra=WHITENED) for arm in ("anchored", "label", "uniform")),
    ],
    evaluations=[Evaluation(("reference_use",), (1,)), Evaluation(("corruptions",), (1,), protocol="blt")],
    columns=(
        *(
            Column(title, "reference_use", 1, "accuracy", {"protocol": protocol})
            for protocol, title in {
                "own": "[r, x - r]",
                "another": "[r', x - r]",
                "masked": "[0, x - r]",
                "zero": "[0, x]",
                "mean": "[m, x - m]",
            }.items()
        ),
        Column("corrupted, BLT", "corruptions", 1, "accuracy", {"group": "mean19"}, protocol="blt"),
    ),
    figure=FigureSpec("accuracy, one reference", ("[r, x - r]", "[r', x - r]", "[0, x - r]")),
    size=_SIZE,
)

# The size of the reference set and the fraction of masked batches, with the label as the target.
FAST_MASKING = Study(
    rows=[
        _row("standard"),
        _row("label"),
        *(_row("label", extra={"anchoring.mask_prob": prob}) for prob in (0.1, 0.5)),
        _row("label", extra={"anchoring.bank_size": 50}),
        _row("anchored", extra={"anchoring.bank_size": 50}),
    ],
    evaluations=_EVALUATIONS,
    columns=_ACCURACIES,
    figure=_FIGURE,
    size=_SIZE,
)

# What a user would pick instead, at equal cost in trainings and passes per image.
FAST_ALTERNATIVES = Study(
    rows=[
        _row("standard", name="standard: 1 training, 1 pass"),
        _row(
            "standard",
            extra={"data.validation_fraction": 0.1},
            name="temperature scaling: 1 training, 1 pass",
            is_scaled=True,
        ),
        _row("label", name="label, K = 1: 1 training, 1 pass", num_references=1),
        _row("label", name="label, K = 10: 1 training, 10 passes", num_references=10),
        _row(
            "standard",
            name="test-time augmentation: 1 training, 10 passes",
            record="augmentation",
            ensemble=Ensemble("augmentation", 10),
            is_baseline=False,
        ),
        _row(
            "standard",
            extra={"model.options.dropout_rate": 0.1},
            name="MC dropout: 1 training, 10 passes",
            record="dropout",
            ensemble=Ensemble("dropout", 10),
        ),
        _row(
            "standard",
            name="deep ensemble of 3: 3 trainings, 3 passes",
            record="ensemble",
            seeds=1,
            ensemble=Ensemble("ensemble", 3),
            is_baseline=False,
        ),
    ],
    evaluations=[
        Evaluation(("clean", "corruptions"), (1, 10), temperature_scaling=True),
        Evaluation(("ood",), (1, 10)),
    ],
    columns=(
        MEAN,
        CLEAN,
        Column("ECE", "clean", 1, "ece"),
        Column("ECE, corrupted", "corruptions", 1, "ece"),
        Column("near OOD AUROC", "ood", 1, "auroc", {"group": "near", "score": "energy"}),
        Column("far OOD AUROC", "ood", 1, "auroc", {"group": "far", "score": "energy"}),
    ),
    figure=FigureSpec("", ("corrupted", "ECE, corrupted", "near OOD AUROC")),
    size=_SIZE,
)

# Should the first layer start from whitened patches, and do the arms differ alike if it does?
FAST_STEM = Study(
    rows=[row for arm in ARMS for row in (_row(arm, seeds=1), _row(arm, seeds=1, extra=WHITENED))],
    evaluations=_EVALUATIONS,
    columns=(*_ACCURACIES, *FAST_FAMILIES.columns),
    figure=FAST_FAMILIES.figure,
    size=_SIZE,
)

FAST_STUDIES: Mapping[str, Study] = {
    "fast": FAST,
    "fast_families": FAST_FAMILIES,
    "fast_lengths": FAST_LENGTHS,
    "fast_references": FAST_REFERENCES,
    "fast_masking": FAST_MASKING,
    "fast_alternatives": FAST_ALTERNATIVES,
    "fast_stem": FAST_STEM,
}
