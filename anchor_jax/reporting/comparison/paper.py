"""Published results of the paper, and whether a method was trained with the paper's protocol.

Source: *On the Use of Anchoring for Training Vision Models*, Narayanaswamy et al., NeurIPS 2024 (arXiv 2406.00529): a
ResNet-18 on CIFAR-10 and CIFAR-100, and a WRN-40-2 on CIFAR-100. Results without a deviation were read off plots, to
about 0.2 points; those for single severities come from the project page, to about 0.1 points. The two differ by half a
point in the mean over CIFAR-10-C (75.6 and 80.8 in the paper's figure 1, 76.1 and 81.3 on the project page).
"""

from typing import Any, NamedTuple

from anchor_jax.config import base, flatten
from anchor_jax.reporting.comparison.methods import Method, method_kind

SOURCE = "arXiv 2406.00529"
NUM_CORRUPTIONS = 19
_TRAINING_EXAMPLES = 50_000

# key -> the values that the paper's protocol allows; other keys must have their default
PROTOCOL: dict[str, tuple[Any, ...]] = {
    "data.source": ("tfds",),
    "data.name": ("cifar10", "cifar100"),
    "data.train_split": ("train",),
    "data.test_split": ("test",),
    "data.validation_fraction": (0.0,),
    "data.image_size": (0,),
    "data.mean": ((0.4914, 0.4822, 0.4465),),
    "data.std": ((0.2023, 0.1994, 0.2010),),
    "augmentation.crop_padding": (4,),
    "augmentation.flip": (True,),
    "model.name": ("resnet18", "wrn40_2"),
    "model.dtype": ("float32",),
    "model.options.width": (64, None),
    "model.options.stem": ("cifar", None),
    "anchoring.enabled": (True, False),
    "anchoring.references": ("bank",),
    "anchoring.bank_size": (0, 5, 50, 500, 2_500, 5_000),
    "anchoring.bank_per_class": (False,),
    "anchoring.mask_prob": (0.0, 0.25),
    "anchoring.mask_per": ("batch",),
    "anchoring.masked_target": ("uniform",),
    "anchoring.update_bn_when_masked": (True, False),  # not specified in the paper
    "optimizer.name": ("sgd",),
    "optimizer.learning_rate": (0.1,),
    "optimizer.momentum": (0.9,),
    "optimizer.weight_decay": (5e-4,),
    "optimizer.schedule": ("step",),
    "optimizer.warmup_epochs": (0.0,),
    "optimizer.milestones_epochs": ((60, 120, 160),),
    "optimizer.decay_factor": (0.2,),
    "training.batch_size": (128,),
    "training.total_epochs": (200.0,),
    "training.label_smoothing": (0.0,),
}


# model -> the same, of its options
_OF_MODEL: dict[str, dict[str, tuple[Any, ...]]] = {
    "wrn40_2": {"model.options.dropout_rate": (0.3, 0.0, None)},  # 0.3 in the released code; not specified in the paper
}


class PublishedResult(NamedTuple):
    """A number of the paper, as a fraction."""

    value: float
    std: float | None = None


class Quantity(NamedTuple):
    """What a published result measures.

    Attributes:
      title: in words.
      group: of the accuracy in the suite corruptions, such as "mean19".
      severity: same as above.
      references: 1, or None for multiple random references.
      gain: over the standard network, instead of the accuracy itself.
    """

    title: str
    group: str | None
    severity: int | None
    references: int | None
    gain: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the `Score`, except its metric."""
        return {"group": self.group, "severity": self.severity}


def _at_severity(severity: int) -> Quantity:
    return Quantity(f"mean of 19 corruptions at severity {severity}, 1 reference", None, severity, 1)


AVERAGE = Quantity("mean of 19 corruptions and 5 severities, 1 reference", "mean19", None, 1)
AVERAGE_OF_K = Quantity("mean of 19 corruptions and 5 severities, K references", "mean19", None, None)
GAIN_AT_5 = Quantity("gain at severity 5 over the standard network, 1 reference", None, 5, 1, gain=True)

_Percent = tuple[float, ...]  # a number, possibly with its deviation
_ByBank = dict[int, _Percent]  # examples in the bank, 0 for all -> result


def _by_severity(standard: tuple[float, ...], masked: tuple[float, ...]) -> dict[Quantity, dict[str, _ByBank]]:
    return {
        _at_severity(severity): {"standard": {0: (plain,)}, "anchored + masking": {0: (proposed,)}}
        for severity, (plain, proposed) in enumerate(zip(standard, masked, strict=True), start=1)
    }


# dataset and model -> quantity -> kind of method -> result, in percent
_RESULTS: dict[tuple[str, str], dict[Quantity, dict[str, _ByBank]]] = {
    ("cifar10", "resnet18"): {
        AVERAGE: {
            "standard": {0: (75.6,)},
            "anchored": {0: (76.4,), 5: (76.3,), 50: (76.4,), 500: (76.4,), 2_500: (76.5,), 5_000: (76.5,)},
            "anchored + masking": {0: (80.8,), 5: (73.9,), 50: (75.0,), 500: (77.2,), 2_500: (80.7,), 5_000: (81.2,)},
        },
        **_by_severity((89.5, 83.5, 77.9, 70.7, 58.7), (90.9, 87.2, 83.1, 77.8, 67.2)),
        GAIN_AT_5: {"anchored + masking": {0: (8.5,)}},
    },
    ("cifar100", "resnet18"): {
        AVERAGE: {
            "standard": {0: (50.2,)},
            "anchored": {0: (50.70, 0.44), 5: (50.1,), 50: (50.5,), 500: (50.6,), 2_500: (50.9,), 5_000: (50.8,)},
            "anchored + masking": {
                0: (53.49, 0.38),
                5: (48.4,),
                50: (48.4,),
                500: (50.8,),
                2_500: (52.3,),
                5_000: (52.8,),
            },
        },
        AVERAGE_OF_K: {"anchored": {0: (50.70, 0.43)}, "anchored + masking": {0: (53.55, 0.42)}},
        _at_severity(5): {"standard": {0: (34.0,)}, "anchored": {0: (34.4,)}, "anchored + masking": {0: (38.1,)}},
        GAIN_AT_5: {"anchored + masking": {0: (4.1,)}},
    },
    ("cifar100", "wrn40_2"): {
        **_by_severity((62.2, 52.8, 46.8, 40.2, 30.0), (65.9, 57.8, 52.3, 45.6, 35.5)),
        GAIN_AT_5: {"anchored + masking": {0: (5.5,)}},
    },
}


def published_results(method: Method) -> dict[Quantity, PublishedResult]:
    """Return the published results of a method that has no `protocol_mismatch`."""
    config, kind = method.config, method_kind(method.config)
    bank_size = config.get("anchoring.bank_size", 0)
    results = {
        quantity: by_kind.get(kind, {}).get(bank_size)
        for quantity, by_kind in _RESULTS.get((config["data.name"], config["model.name"]), {}).items()
    }
    return {
        quantity: PublishedResult(*(round(part / 100, 4) for part in percent))
        for quantity, percent in results.items()
        if percent
    }


def protocol_mismatch(method: Method) -> str | None:
    """Return the first difference to the paper's protocol in words, None if there is none."""
    config, defaults = method.config, flatten(base())
    protocol = PROTOCOL | _OF_MODEL.get(config["model.name"], {})
    for key in dict.fromkeys([*protocol, *config]):
        if key not in config and key.startswith("anchoring."):
            continue  # without an effect in this method
        given, allowed = config.get(key), protocol.get(key, (defaults.get(key),))
        if given not in allowed:
            return f"config.{key} is {_text(given)}, in the paper {' or '.join(map(_text, allowed))}"
    total_steps = round(config["training.total_epochs"] * (_TRAINING_EXAMPLES // config["training.batch_size"]))
    for run in method.runs:
        if run.step != total_steps:
            return f"'{run.name}' was evaluated at step {run.step:,} of {total_steps:,}"
    return None


def _text(value: Any) -> str:
    return "not set" if value is None else repr(value)
