"""The studies: what is trained, what is asked of it, and which numbers stand in the table.

A study is a list of rows; each row is a config of `configs/` with changes, and one run a seed. Rows of several studies
that are the same are the same runs. Every figure of the paper is in per cent, from arXiv 2406.00529; those without a
deviation were read off its plots, to about 0.2 points.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from anchor_jax.evaluation import results as results_lib

STANDARD: dict[str, Any] = {"anchoring.enabled": False}
ANCHORED: dict[str, Any] = {"anchoring.mask_prob": 0.0}
MASKED: dict[str, Any] = {"anchoring.mask_prob": 0.25}
LABEL = {"anchoring.masked_target": "label"}
PER_EXAMPLE = {"anchoring.mask_per": "example"}
ALL_STATISTICS = {"anchoring.update_bn_when_masked": True}  # as in the released code
METHODS = {"standard": STANDARD, "anchored": ANCHORED, "anchored + masking": MASKED}


class Pool(NamedTuple):
    """Several predictions of an image, without references; see `studies.ensembles`."""

    kind: str
    members: int  # of an ensemble: its networks, with the seeds 0, 1, ...


class Row(NamedTuple):
    """One method on one data set."""

    name: str
    config: str  # a file of configs/
    changes: Mapping[str, Any]  # key of the config -> value
    paper: str = ""  # its figure for the first column
    seeds: int = 3
    reduced_seeds: int = 1  # at the reduced size
    epochs: float = 1.0  # fraction of those of the size
    num_references: int = 0  # in the place of those of the columns
    is_scaled: bool = False  # whether calibration is that after temperature scaling
    pool: Pool | None = None
    is_baseline: bool = False  # of the rows below it


class Ask(NamedTuple):
    """One call of eval.py."""

    suites: tuple[str, ...]
    num_references: tuple[int, ...]
    protocol: str = "random"
    temperature_scaling: bool = False  # of the suites that have it, in the rows that are scaled

    @property
    def names(self) -> tuple[str, ...]:
        """Of the suites, as their answers are kept."""
        return tuple(results_lib.storage_name(suite, self.protocol) for suite in self.suites)


class Column(NamedTuple):
    """One number of a row."""

    title: str
    suite: str
    num_references: int
    metric: str
    unit: str = "%"


class Figure(NamedTuple):
    """One picture: a column a panel, with the rows one below the other; without columns, accuracy against severity."""

    title: str
    columns: Sequence[str] = ()  # titles


class Study(NamedTuple):
    """The runs that answer a question, and how the answer is shown."""

    rows: Sequence[Row]
    asks: Sequence[Ask]
    columns: Sequence[Column]
    figure: Figure


class Size(NamedTuple):
    """How large all runs are."""

    name: str
    changes: Mapping[str, Any]
    told: str  # in words


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

ANOMALIES = {"cifar10": "cifar100", "cifar100": "cifar10"}  # near, yet strange to a network trained on the other

_MEAN = Column("corrupted", "corruptions", 1, "mean19/accuracy")
_SEVERITIES = tuple(Column(f"severity {s}", "corruptions", 1, f"severity{s}/accuracy") for s in range(1, 6))
_CLEAN = Column("clean", "clean", 1, "accuracy")
_CLEAN_AND_CORRUPTED = (Ask(("clean",), (1, 10)), Ask(("corruptions",), (1,)))

# of the reference set, by the examples in it, 0 for all: what two hours allow
_REDUCED_SEEDS = {"anchored": {5_000: 1, 0: 3}, "anchored + masking": {5: 1, 50: 1, 500: 1, 5_000: 1, 0: 3}}


def _of_methods(
    name: str,
    config: str,
    figures: Sequence[str],
    also: Mapping[str, Any] | None = None,
    methods: Mapping[str, dict[str, Any]] = METHODS,
    **options: Any,
) -> list[Row]:
    """A row for each method, with what else is changed and the paper's figure; the standard one is the baseline."""
    return [
        Row(
            f"{name}, {method}", config, {**changes, **(also or {})}, figure, is_baseline=changes is STANDARD, **options
        )
        for (method, changes), figure in zip(methods.items(), figures, strict=True)
    ]


def _main() -> Study:
    """Is an anchored network, or one with masking, more robust and better calibrated than a standard one?"""
    methods = METHODS | {"anchored + masking, statistics of all batches": MASKED | ALL_STATISTICS}
    paper = {
        "cifar10": ("75.6", "76.4", "80.8", "80.8"),
        "cifar100": ("50.2", "50.70 ± 0.44", "53.49 ± 0.38", "53.49 ± 0.38"),
    }
    return Study(
        rows=[
            row
            for data, figures in paper.items()
            for row in _of_methods(data, data, figures, methods=methods, reduced_seeds=3)
        ],
        asks=[Ask(("clean",), (1, 10)), Ask(("ood",), (1, 10)), Ask(("corruptions",), (1,))],
        columns=(
            _MEAN,
            _CLEAN,
            *_SEVERITIES,
            Column("clean, K = 10", "clean", 10, "accuracy"),
            Column("ECE, K = 10", "clean", 10, "ece"),
            Column("smoothed ECE, K = 10", "clean", 10, "smooth_ece"),
            Column("ECE, corrupted", "corruptions", 1, "ece"),
            Column("near OOD AUROC, K = 10", "ood", 10, "near/entropy/auroc"),
            Column("far OOD AUROC, K = 10", "ood", 10, "far/entropy/auroc"),
        ),
        figure=Figure("accuracy as images get worse, one reference"),
    )


def _masking() -> Study:
    """Which masking makes a network robust? (α = 0.25, statistics of unmasked batches, unless said.)"""
    variants = {
        "standard": (STANDARD, 3),
        "no masking": (ANCHORED, 3),
        "uniform, per batch, statistics of all batches": (MASKED | ALL_STATISTICS, 3),
        "label, per batch, statistics of all batches (the released code)": (MASKED | LABEL | ALL_STATISTICS, 3),
        "uniform, per batch": (MASKED, 3),
        "label, per batch": (MASKED | LABEL, 3),
        "uniform, per example": (MASKED | PER_EXAMPLE, 1),
        "label, per example": (MASKED | LABEL | PER_EXAMPLE, 1),
    }
    for prob, seeds in ((0.05, 0), (0.1, 0), (0.5, 1)):
        of = {"anchoring.mask_prob": prob}
        variants[f"uniform, per batch, α = {prob}"] = (of, seeds)
        variants[f"label, per batch, α = {prob}"] = (of | LABEL, seeds)
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
        asks=_CLEAN_AND_CORRUPTED,
        columns=(_MEAN, _CLEAN, _SEVERITIES[-1], Column("ECE", "clean", 1, "ece")),
        figure=Figure("accuracy, one reference", ("corrupted", "clean")),
    )


def _reference_set() -> Study:
    """How many references does training need, may they be augmented, and are they drawn with replacement?"""
    sizes = (5, 50, 500, 2_500, 5_000, 0)  # 0: all
    paper = {
        "anchored": ("76.3", "76.4", "76.4", "76.5", "76.5", "76.4"),
        "anchored + masking": ("73.9", "75.0", "77.2", "80.7", "81.2", "80.8"),
    }
    rows = [Row("standard", "cifar10", STANDARD, "75.6", reduced_seeds=3, is_baseline=True)]
    for method, figures in paper.items():
        for size, figure in zip(sizes, figures, strict=True):
            of = {"anchoring.bank_size": size} if size else {}
            if size in range(1, 10):  # no more are there to predict with, in the evaluation during training
                of |= {"evaluation.num_references": size}
            name = f"{method}, R = {size or 'all'}"
            seeds = _REDUCED_SEEDS[method].get(size, 0)
            rows.append(Row(name, "cifar10", METHODS[method] | of, figure, reduced_seeds=seeds))
    batch = {"anchoring.references": "batch"}
    others = {"augmented, out of the batch": batch, "a permutation of the batch": batch | {"anchoring.replace": False}}
    rows += [
        Row(f"{method}, {name}", "cifar10", METHODS[method] | of, reduced_seeds=int(method == "anchored + masking"))
        for method in paper
        for name, of in others.items()
    ]
    return Study(
        rows=rows,
        asks=[Ask(("clean",), (1,)), Ask(("corruptions",), (1,))],
        columns=(_MEAN, _CLEAN, _SEVERITIES[-1]),
        figure=Figure("accuracy, one reference", ("corrupted", "clean")),
    )


def _protocols() -> Study:
    """One random reference, K of them, or the one that bilinear transduction picks: accuracy and time?"""
    methods = {"anchored": "50.70 ± 0.43", "anchored + masking": "53.55 ± 0.42"}
    return Study(
        rows=[Row(f"cifar100, {name}", "cifar100", METHODS[name], figure) for name, figure in methods.items()],
        asks=[
            Ask(("corruptions",), (1, 10)),
            Ask(("corruptions",), (1,), protocol="blt"),
            Ask(("protocols",), (100,)),
        ],
        columns=(
            Column("corrupted, K = 10", "corruptions", 10, "mean19/accuracy"),
            _MEAN,
            Column("corrupted, BLT", "corruptions-blt", 1, "mean19/accuracy"),
            *(
                Column(f"clean, K = {num}", "protocols", 100, f"draws/0/{num}/accuracy")
                for num in (1, 2, 5, 10, 20, 50, 100)
            ),
            Column("clean, BLT", "protocols", 100, "blt/accuracy"),
            Column("1 reference", "protocols", 100, "random1/seconds_per_1000", "s per 1,000"),
            Column("100 references", "protocols", 100, "randomK/seconds_per_1000", "s per 1,000"),
            Column("BLT", "protocols", 100, "blt/seconds_per_1000", "s per 1,000"),
        ),
        figure=Figure("accuracy", ("corrupted", "corrupted, K = 10", "corrupted, BLT")),
    )


def _augmentation() -> Study:
    """Does masking add to stronger augmentation? (CIFAR-100-C at severity 5)"""
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
            for row in _of_methods(name, config, figures, seeds=1)
        ],
        asks=_CLEAN_AND_CORRUPTED,
        columns=(_SEVERITIES[-1], _MEAN, _CLEAN),
        figure=Figure("accuracy, one reference", ("severity 5", "clean")),
    )


def _label_noise() -> Study:
    """What does each method lose where some of the training labels are wrong? (CIFAR-100-C)"""
    paper = {0.0: ("50.2", "50.7", "53.5"), 0.05: ("46.4", "46.5", "50.1"), 0.1: ("43.0", "44.0", "47.1")}
    paper[0.2] = ("38.1", "38.5", "41.8")
    return Study(
        rows=[
            row
            for noise, figures in paper.items()
            for row in _of_methods(
                f"{noise:.0%} wrong", "cifar100", figures, {"data.label_noise": noise} if noise else {}, seeds=1
            )
        ],
        asks=_CLEAN_AND_CORRUPTED,
        columns=(_MEAN, _SEVERITIES[-1], _CLEAN),
        figure=Figure("accuracy, one reference", ("corrupted", "clean")),
    )


def _alternatives() -> Study:
    """Accuracy, calibration and honesty at equal cost: trainings, then passes an image."""
    thinned = STANDARD | {"model.options.dropout_rate": 0.1}
    held_out = STANDARD | {"data.validation_fraction": 0.1}
    masked = METHODS["anchored + masking"]
    ensemble, augmented, dropout = Pool("ensemble", 5), Pool("augmentation", 10), Pool("dropout", 10)
    row = partial(Row, config="cifar10", seeds=1)
    return Study(
        rows=[
            row("standard: 1 training, 1 pass", changes=STANDARD, is_baseline=True),
            row("temperature scaling: 1 training, 1 pass", changes=held_out, is_scaled=True),
            row("anchored + masking, K = 1: 1 training, 1 pass", changes=masked, num_references=1),
            row("anchored + masking, K = 10: 1 training, 10 passes", changes=masked, num_references=10),
            row("test-time augmentation: 1 training, 10 passes", changes=STANDARD, pool=augmented),
            row("MC dropout: 1 training, 10 passes", changes=thinned, pool=dropout),
            row("deep ensemble of 5: 1 training (a fifth each), 5 passes", changes=STANDARD, pool=ensemble, epochs=0.2),
            row("deep ensemble of 5: 5 trainings, 5 passes", changes=STANDARD, pool=ensemble),
        ],
        asks=[
            Ask(("clean", "corruptions"), (1, 10), temperature_scaling=True),
            Ask(("ood",), (1, 10)),
            Ask(("protocols",), (1, 10)),
        ],
        columns=(
            _MEAN,
            _CLEAN,
            Column("ECE", "clean", 1, "ece"),
            Column("ECE, corrupted", "corruptions", 1, "ece"),
            Column("near OOD AUROC", "ood", 1, "near/entropy/auroc"),
            Column("far OOD AUROC", "ood", 1, "far/entropy/auroc"),
            Column("time", "protocols", 1, "randomK/seconds_per_1000", "s per 1,000"),
        ),
        figure=Figure("", ("corrupted", "ECE, corrupted", "near OOD AUROC")),
    )


STUDIES: Mapping[str, Study] = {
    "main": _main(),
    "masking": _masking(),
    "reference_set": _reference_set(),
    "protocols": _protocols(),
    "augmentation": _augmentation(),
    "label_noise": _label_noise(),
    "alternatives": _alternatives(),
}
