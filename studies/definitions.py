"""Definitions of the studies: which runs to train, how to evaluate them, and which numbers to report.

A study has rows. A row is a config in `configs/` with changes, and one run per seed. Equal rows of different studies
share their runs. Figures of the paper are in percent, from arXiv 2406.00529; those without a standard deviation were
read off its plots, to about 0.2 points.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from anchor_jax.evaluation.suites.ood import HEADLINE
from studies.fast import FAST_STUDIES
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

PER_EXAMPLE = {"anchoring.mask_per": "example"}
ALL_STATISTICS = {"anchoring.update_bn_when_masked": True}  # as in the released code
_MASKED_UNIFORM = MASKED | UNIFORM  # as in the paper's text
METHODS = {"standard": STANDARD, "anchored": ANCHORED, "anchored + masking": _MASKED_UNIFORM}


FULL = Size("full", {}, "as in the paper: ResNet-18 of width 64, 200 epochs of all 50,000 images")
REDUCED = Size(
    "reduced",
    {
        "data.image_size": 16,
        "data.test_split": "test[:2000]",
        "augmentation.crop_padding": 2,
        "model.options.width": 16,
        "model.options.stage_sizes": (1, 1, 1),
        "optimizer.milestones_epochs": (2.4, 4.8, 6.4),
        "training.total_epochs": 8.0,
        "checkpoint.every_epochs": 4.0,
        "checkpoint.keep": 1,
    },
    "images of 16×16, a ResNet of 3 blocks and width 16, 8 epochs of all 50,000 images, 2,000 test images",
)
SIZES = {size.name: size for size in (FULL, REDUCED)}

NEAR_OOD = {"cifar10": "cifar100", "cifar100": "cifar10"}  # training dataset -> similar dataset with other classes

_CLEAN_AND_CORRUPTED = (Evaluation(("clean",), (1, 10)), Evaluation(("corruptions",), (1,)))

# for the study of the reference set, by its size, 0 for all examples; fits into two hours
_REDUCED_SEEDS = {"anchored": {5_000: 1, 0: 3}, "anchored + masking": {5: 1, 50: 1, 500: 1, 5_000: 1, 0: 3}}


def _method_rows(
    name: str,
    config: str,
    figures: Sequence[str],
    extra_changes: Mapping[str, Any] | None = None,
    methods: Mapping[str, dict[str, Any]] = METHODS,
    **options: Any,
) -> list[Row]:
    """Return a row per method, with the paper's figure; the standard network is the baseline."""
    return [
        Row(
            f"{name}, {method}",
            config,
            {**changes, **(extra_changes or {})},
            figure,
            is_baseline=changes is STANDARD,
            **options,
        )
        for (method, changes), figure in zip(methods.items(), figures, strict=True)
    ]


def _seconds(protocol: str) -> tuple[str, dict[str, Any], str]:
    """Return metric, fields and unit of the time of a protocol."""
    return "seconds_per_1000", {"protocol": protocol}, "s per 1,000"


def _main() -> Study:
    """Are anchored networks, with and without masking, more robust and better calibrated than standard ones?"""
    methods = METHODS | {"anchored + masking, statistics of all batches": _MASKED_UNIFORM | ALL_STATISTICS}
    paper = {
        "cifar10": ("75.6", "76.4", "80.8", "80.8"),
        "cifar100": ("50.2", "50.70 ± 0.44", "53.49 ± 0.38", "53.49 ± 0.38"),
    }
    rows = []
    for data, figures in paper.items():
        rows += _method_rows(data, data, figures, methods=methods, reduced_seeds=3)
        rows.append(Row(f"{data}, anchored + masking, label", data, MASKED | LABEL, figures[-1], reduced_seeds=0))
    return Study(
        rows=rows,
        evaluations=[
            Evaluation(("clean",), (1, 10)),
            Evaluation(("ood",), (1, 10)),
            Evaluation(("corruptions",), (1,)),
        ],
        columns=(
            MEAN,
            CLEAN,
            *SEVERITIES,
            Column("clean, K = 10", "clean", 10, "accuracy"),
            Column("ECE, K = 10", "clean", 10, "ece"),
            Column("smoothed ECE, K = 10", "clean", 10, "smooth_ece"),
            Column("ECE, corrupted", "corruptions", 1, "ece"),
            Column("near OOD AUROC, energy, K = 10", "ood", 10, "auroc", {"group": "near", "score": HEADLINE}),
            Column("far OOD AUROC, energy, K = 10", "ood", 10, "auroc", {"group": "far", "score": HEADLINE}),
        ),
        figure=FigureSpec("accuracy by severity, one reference"),
    )


def _masking() -> Study:
    """Which kind of masking makes a network robust? By default α = 0.25, with statistics of unmasked batches."""
    variants = {
        "standard": (STANDARD, 3),
        "no masking": (ANCHORED, 3),
        "uniform, per batch, statistics of all batches": (_MASKED_UNIFORM | ALL_STATISTICS, 3),
        "label, per batch, statistics of all batches (the released code)": (MASKED | LABEL | ALL_STATISTICS, 3),
        "uniform, per batch": (_MASKED_UNIFORM, 3),
        "label, per batch": (MASKED | LABEL, 3),
        "uniform, per example": (_MASKED_UNIFORM | PER_EXAMPLE, 1),
        "label, per example": (MASKED | LABEL | PER_EXAMPLE, 1),
    }
    for prob, seeds in ((0.05, 0), (0.1, 0), (0.5, 1)):
        changes = {"anchoring.mask_prob": prob}
        variants[f"uniform, per batch, α = {prob}"] = (changes | UNIFORM, seeds)
        variants[f"label, per batch, α = {prob}"] = (changes | LABEL, seeds)
    paper = {
        "standard": "75.6",
        "no masking": "76.4",
        "uniform, per batch": "80.8",
        "uniform, per batch, statistics of all batches": "80.8",
    }
    return Study(
        rows=[
            Row(name, "cifar10", changes, paper.get(name, ""), reduced_seeds=seeds, is_baseline=changes is STANDARD)
            for name, (changes, seeds) in variants.items()
        ],
        evaluations=_CLEAN_AND_CORRUPTED,
        columns=(MEAN, CLEAN, SEVERITIES[-1], Column("ECE", "clean", 1, "ece")),
        figure=FigureSpec("accuracy, one reference", ("corrupted", "clean")),
    )


def _reference_set() -> Study:
    """How large must the reference set be, may references be augmented, and does replacement matter?"""
    sizes = (5, 50, 500, 2_500, 5_000, 0)  # 0: all
    paper = {
        "anchored": ("76.3", "76.4", "76.4", "76.5", "76.5", "76.4"),
        "anchored + masking": ("73.9", "75.0", "77.2", "80.7", "81.2", "80.8"),
    }
    rows = [Row("standard", "cifar10", STANDARD, "75.6", reduced_seeds=3, is_baseline=True)]
    for method, figures in paper.items():
        for size, figure in zip(sizes, figures, strict=True):
            changes = {"anchoring.bank_size": size} if size else {}
            if size in range(1, 10):  # fewer than the default of the evaluation during training
                changes |= {"evaluation.num_references": size}
            name = f"{method}, R = {size or 'all'}"
            seeds = _REDUCED_SEEDS[method].get(size, 0)
            rows.append(Row(name, "cifar10", METHODS[method] | changes, figure, reduced_seeds=seeds))
    batch = {"anchoring.references": "batch"}
    batch_variants = {
        "augmented, out of the batch": batch,
        "a permutation of the batch": batch | {"anchoring.replace": False},
    }
    rows += [
        Row(
            f"{method}, {name}", "cifar10", METHODS[method] | changes, reduced_seeds=int(method == "anchored + masking")
        )
        for method in paper
        for name, changes in batch_variants.items()
    ]
    return Study(
        rows=rows,
        evaluations=[Evaluation(("clean",), (1,)), Evaluation(("corruptions",), (1,))],
        columns=(MEAN, CLEAN, SEVERITIES[-1]),
        figure=FigureSpec("accuracy, one reference", ("corrupted", "clean")),
    )


def _protocols() -> Study:
    """How do one random reference, K random ones and bilinear transduction (BLT) compare in accuracy and time?"""
    blt = {"blt_references": 50}  # as in the paper
    methods = {"anchored": "50.70 ± 0.43", "anchored + masking": "53.55 ± 0.42"}
    return Study(
        rows=[Row(f"cifar100, {name}", "cifar100", METHODS[name], figure) for name, figure in methods.items()],
        evaluations=[
            Evaluation(("corruptions",), (1, 10)),
            Evaluation(("corruptions",), (1,), protocol="blt", options=blt),
            Evaluation(("protocols",), (100,), options=blt),
        ],
        columns=(
            Column("corrupted, K = 10", "corruptions", 10, "accuracy", {"group": "mean19"}),
            MEAN,
            Column("corrupted, BLT", "corruptions", 1, "accuracy", {"group": "mean19"}, protocol="blt"),
            *(
                Column(f"clean, K = {num}", "protocols", 100, "accuracy", {"draw": 0, "draw_size": num})
                for num in (1, 2, 5, 10, 20, 50, 100)
            ),
            Column("clean, BLT", "protocols", 100, "accuracy", {"protocol": "blt"}),
            Column("1 reference", "protocols", 100, *_seconds("random1")),
            Column("100 references", "protocols", 100, *_seconds("randomK")),
            Column("BLT", "protocols", 100, *_seconds("blt")),
        ),
        figure=FigureSpec("accuracy", ("corrupted", "corrupted, K = 10", "corrupted, BLT")),
    )


def _augmentation() -> Study:
    """Does masking help in addition to strong augmentation? (CIFAR-100-C at severity 5)"""
    augmentations = {
        "crop + flip": ("cifar100", ("34.0", "34.4", "38.1")),
        "TrivialAugment": ("cifar100_trivial_augment", ("47.4", "47.9", "51.2")),
        "RandAugment": ("cifar100_rand_augment", ("49.7", "50.1", "53.7")),
        "PixMix": ("cifar100_pixmix", ("58.5", "58.4", "59.6")),
    }
    return Study(
        rows=[
            row
            for name, (config, figures) in augmentations.items()
            for row in _method_rows(name, config, figures, seeds=1)
        ],
        evaluations=_CLEAN_AND_CORRUPTED,
        columns=(SEVERITIES[-1], MEAN, CLEAN),
        figure=FigureSpec("accuracy, one reference", ("severity 5", "clean")),
    )


def _label_noise() -> Study:
    """How much accuracy does each method lose if some training labels are wrong? (CIFAR-100-C)"""
    paper = {0.0: ("50.2", "50.7", "53.5"), 0.05: ("46.4", "46.5", "50.1"), 0.1: ("43.0", "44.0", "47.1")}
    paper[0.2] = ("38.1", "38.5", "41.8")
    return Study(
        rows=[
            row
            for noise, figures in paper.items()
            for row in _method_rows(
                f"{noise:.0%} wrong", "cifar100", figures, {"data.label_noise": noise} if noise else {}, seeds=1
            )
        ],
        evaluations=_CLEAN_AND_CORRUPTED,
        columns=(MEAN, SEVERITIES[-1], CLEAN),
        figure=FigureSpec("accuracy, one reference", ("corrupted", "clean")),
    )


def _alternatives() -> Study:
    """How do alternatives compare at equal cost, in number of trainings and passes per image?"""
    with_dropout = STANDARD | {"model.options.dropout_rate": 0.1}
    held_out = STANDARD | {"data.validation_fraction": 0.1}
    masked = METHODS["anchored + masking"]
    ensemble, augmentation, dropout = Ensemble("ensemble", 5), Ensemble("augmentation", 10), Ensemble("dropout", 10)
    row = partial(Row, config="cifar10", seeds=1)
    return Study(
        rows=[
            row("standard: 1 training, 1 pass", changes=STANDARD, is_baseline=True),
            row("temperature scaling: 1 training, 1 pass", changes=held_out, is_scaled=True),
            row("anchored + masking, K = 1: 1 training, 1 pass", changes=masked, num_references=1),
            row("anchored + masking, K = 10: 1 training, 10 passes", changes=masked, num_references=10),
            row("test-time augmentation: 1 training, 10 passes", changes=STANDARD, ensemble=augmentation),
            row("MC dropout: 1 training, 10 passes", changes=with_dropout, ensemble=dropout),
            row(
                "deep ensemble of 5: 1 training (a fifth each), 5 passes",
                changes=STANDARD,
                ensemble=ensemble,
                epochs=0.2,
            ),
            row("deep ensemble of 5: 5 trainings, 5 passes", changes=STANDARD, ensemble=ensemble),
        ],
        evaluations=[
            Evaluation(("clean", "corruptions"), (1, 10), temperature_scaling=True),
            Evaluation(("ood",), (1, 10)),
            Evaluation(("protocols",), (1, 10)),
        ],
        columns=(
            MEAN,
            CLEAN,
            Column("ECE", "clean", 1, "ece"),
            Column("ECE, corrupted", "corruptions", 1, "ece"),
            Column("near OOD AUROC, energy", "ood", 1, "auroc", {"group": "near", "score": HEADLINE}),
            Column("far OOD AUROC, energy", "ood", 1, "auroc", {"group": "far", "score": HEADLINE}),
            Column("time", "protocols", 1, *_seconds("randomK")),
        ),
        figure=FigureSpec("", ("corrupted", "ECE, corrupted", "near OOD AUROC, energy")),
    )


STUDIES: Mapping[str, Study] = {
    "main": _main(),
    "masking": _masking(),
    "reference_set": _reference_set(),
    "protocols": _protocols(),
    "augmentation": _augmentation(),
    "label_noise": _label_noise(),
    "alternatives": _alternatives(),
    **FAST_STUDIES,
}
