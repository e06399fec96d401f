"""Published results, in percent, and what each of them measures.

Sources: *On the Use of Anchoring for Training Vision Models*, Narayanaswamy et al., NeurIPS 2024 (arXiv 2406.00529),
and its project page. RegNetY-800MF and DeiT-S are on the project page alone. Results without a deviation were read off
plots: the means over CIFAR-10-C and CIFAR-100-C to about 0.2 points, all others, as the project page shows them, to
about 0.1 points. The two differ by half a point in the mean over CIFAR-10-C (75.6 and 80.8 in the paper's figure 1,
76.1 and 81.3 on the project page).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

SOURCE = "arXiv 2406.00529"
PAPER, PROJECT_PAGE = "paper", "project page"
STANDARD, ANCHORED, MASKED = "standard", "anchored", "anchored + masking"  # kinds of methods

# dataset -> its names in results, of the dataset of TFDS and of the usual folders, in lower case
DATASET_NAMES = {
    "ImageNet-R": ("imagenet_r",),
    "ImageNet-Sketch": ("imagenet_sketch", "sketch"),
    "NINCO": ("ninco", "ninco_ood_classes"),
}
GROUPS = {"mean19": "the 19 corruptions of the paper", "cbar": "the 10 corruptions of C̄"}


class Quantity(NamedTuple):
    """What a published result measures.

    Attributes:
      title: in words.
      suite: that measures it, such as "corruptions".
      metric: such as "accuracy".
      group: of corruptions, one of `GROUPS`.
      severity: of the corruptions; None for the mean over all five.
      dataset: one of `DATASET_NAMES`, where the suite has several.
      score: the anomaly score.
      references: 1, or None for multiple random references.
      gain: over the standard network, instead of the value itself.
      note: what the source leaves open, as a sentence.
    """

    title: str
    suite: str
    metric: str = "accuracy"
    group: str | None = None
    severity: int | None = None
    dataset: str | None = None
    score: str | None = None
    references: int | None = 1
    gain: bool = False
    note: str = ""


def _at_severity(severity: int) -> Quantity:
    title = f"mean of 19 corruptions at severity {severity}, 1 reference"
    return Quantity(title, "corruptions", group="mean19", severity=severity)


CLEAN = Quantity("clean accuracy, 1 reference", "clean")
AVERAGE = Quantity("mean of 19 corruptions and 5 severities, 1 reference", "corruptions", group="mean19")
AVERAGE_OF_K = AVERAGE._replace(title="mean of 19 corruptions and 5 severities, K references", references=None)
GAIN_AT_5 = _at_severity(5)._replace(title="gain at severity 5 over the standard network, 1 reference", gain=True)
CURVE = (CLEAN, *map(_at_severity, range(1, 6)))

_SEVERITY_NOTE = (
    "Accuracies on ImageNet-C and ImageNet-C̄ are published without their severity. That they are means at severity 5, "
    "over 19 and 10 corruptions, is our reading: those of the standard networks are low for a mean over all severities."
)
_SET_NOTE = "The smoothed ECE is published without its dataset; ours is that of the clean test set."
# the columns of `_IMAGENET`
_IMAGENET_QUANTITIES = (
    Quantity(
        "ImageNet-C: mean of 19 corruptions at severity 5, 1 reference",
        "corruptions",
        group="mean19",
        severity=5,
        note=_SEVERITY_NOTE,
    ),
    Quantity(
        "ImageNet-C̄: mean of 10 corruptions at severity 5, 1 reference",
        "corruptions",
        group="cbar",
        severity=5,
        note=_SEVERITY_NOTE,
    ),
    Quantity("ImageNet-R, 1 reference", "shift", dataset="ImageNet-R"),
    Quantity("ImageNet-Sketch, 1 reference", "shift", dataset="ImageNet-Sketch"),
    Quantity("smoothed ECE, 1 reference", "clean", "smooth_ece", note=_SET_NOTE),
    Quantity("AUROC of NINCO by energy, 1 reference", "ood", "auroc", dataset="NINCO", score="energy"),
)
# model -> the standard network and the one with masking
_IMAGENET = {
    "regnet_y_800mf": ((21.0, 26.7, 33.0, 22.3, 15.4, 80.2), (22.9, 32.8, 33.5, 22.3, 14.4, 82.2)),
    "deit_s16": ((38.4, 48.7, 41.9, 29.1, 11.0, 70.1), (40.7, 51.7, 42.1, 29.2, 11.3, 72.6)),
    "swin_v2_t": ((35.6, 46.5, 40.8, 27.1, 12.1, 77.5), (38.6, 51.7, 41.2, 27.7, 11.7, 78.5)),
    "swin_v2_s": ((42.8, 53.7, 45.1, 32.2, 12.6, 74.7), (44.3, 58.3, 46.6, 33.3, 11.9, 78.5)),
    "vit_b16": ((41.1, 50.1, 44.1, 29.4, 10.9, 66.0), (44.5, 54.8, 46.4, 33.0, 10.5, 70.3)),
    "swin_v2_b": ((41.9, 53.7, 45.7, 31.9, 13.2, 72.1), (45.2, 58.7, 48.2, 33.3, 12.4, 74.5)),
}
ONLY_ON_PROJECT_PAGE = ("regnet_y_800mf", "deit_s16")

Percent = tuple[float, ...]  # a number, possibly with its deviation
ByBank = Mapping[int, Percent]  # examples in the bank, 0 for all -> result
Results = Mapping[Quantity, Mapping[str, ByBank]]  # quantity -> kind of method -> result
Key = tuple[str, str]  # name of the dataset and of the model


def _pairs(quantities: Sequence[Quantity], standard: Sequence[float], masked: Sequence[float]) -> Results:
    return {
        quantity: {STANDARD: {0: (plain,)}, MASKED: {0: (proposed,)}}
        for quantity, plain, proposed in zip(quantities, standard, masked, strict=True)
    }


def _imagenet(models: Sequence[str]) -> dict[Key, Results]:
    return {("imagenet2012", model): _pairs(_IMAGENET_QUANTITIES, *_IMAGENET[model]) for model in models}


# source -> dataset and model -> results
PUBLISHED: Mapping[str, Mapping[Key, Results]] = {
    PAPER: {
        ("cifar10", "resnet18"): {
            AVERAGE: {
                STANDARD: {0: (75.6,)},
                ANCHORED: {0: (76.4,), 5: (76.3,), 50: (76.4,), 500: (76.4,), 2_500: (76.5,), 5_000: (76.5,)},
                MASKED: {0: (80.8,), 5: (73.9,), 50: (75.0,), 500: (77.2,), 2_500: (80.7,), 5_000: (81.2,)},
            },
        },
        ("cifar100", "resnet18"): {
            AVERAGE: {
                STANDARD: {0: (50.2,)},
                ANCHORED: {0: (50.70, 0.44), 5: (50.1,), 50: (50.5,), 500: (50.6,), 2_500: (50.9,), 5_000: (50.8,)},
                MASKED: {0: (53.49, 0.38), 5: (48.4,), 50: (48.4,), 500: (50.8,), 2_500: (52.3,), 5_000: (52.8,)},
            },
            AVERAGE_OF_K: {ANCHORED: {0: (50.70, 0.43)}, MASKED: {0: (53.55, 0.42)}},
            _at_severity(5): {STANDARD: {0: (34.0,)}, ANCHORED: {0: (34.4,)}, MASKED: {0: (38.1,)}},
            GAIN_AT_5: {MASKED: {0: (4.1,)}},
        },
        **_imagenet([model for model in _IMAGENET if model not in ONLY_ON_PROJECT_PAGE]),
    },
    PROJECT_PAGE: {
        ("cifar10", "resnet18"): {
            **_pairs(CURVE, (95.2, 89.5, 83.5, 77.9, 70.7, 58.7), (95.7, 90.9, 87.2, 83.1, 77.8, 67.2)),
            GAIN_AT_5: {MASKED: {0: (8.5,)}},
        },
        ("cifar100", "wrn40_2"): {
            **_pairs(CURVE, (75.5, 62.2, 52.8, 46.8, 40.2, 30.0), (77.0, 65.9, 57.8, 52.3, 45.6, 35.5)),
            GAIN_AT_5: {MASKED: {0: (5.5,)}},
        },
        **_imagenet(ONLY_ON_PROJECT_PAGE),
    },
}

# dataset -> suite -> flags of eval.py that measure all of its published quantities in one run
EVALUATION_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "imagenet2012": {
        "corruptions": "--corruptions tfds:imagenet2012_corrupted,generated-c-bar",
        "shift": "--shift tfds:imagenet_r,tfds:imagenet_sketch",
        "ood": "--ood images:PATH/NINCO",
    }
}
