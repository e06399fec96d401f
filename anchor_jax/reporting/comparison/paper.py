"""The paper's figures, and whether a method was trained as the paper trains.

Source: *On the Use of Anchoring for Training Vision Models*, Narayanaswamy et al., NeurIPS 2024 (arXiv 2406.00529),
its experiments with a ResNet-18 on CIFAR-10 and CIFAR-100. Figures without a deviation were read off its plots, to
about 0.2 points.
"""

from typing import Any, NamedTuple

from anchor_jax.config import base, flatten
from anchor_jax.reporting.comparison.runs import Method, kind_of

SOURCE = "arXiv 2406.00529"
NUM_CORRUPTIONS = 19
_TRAINING_EXAMPLES = 50_000

# key -> what the paper allows; of keys that are not here, the default alone
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
    "model.name": ("resnet18",),
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
    "anchoring.update_bn_when_masked": (True, False),  # of which the paper says nothing
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


class Figure(NamedTuple):
    """A number of the paper, as a fraction."""

    value: float
    std: float | None = None


class Quantity(NamedTuple):
    """What a figure is of.

    Attributes:
      title: in words.
      metric: of the suite of corruptions.
      references: 1, or None for any number of random ones.
      gain: over the standard network, instead of the number itself.
    """

    title: str
    metric: str
    references: int | None
    gain: bool = False


AVERAGE = Quantity("mean of 19 corruptions and 5 severities, 1 reference", "mean19/accuracy", 1)
AVERAGE_OF_K = Quantity("mean of 19 corruptions and 5 severities, K references", "mean19/accuracy", None)
SEVERITY_5 = Quantity("mean of 19 corruptions at severity 5, 1 reference", "severity5/accuracy", 1)
GAIN_AT_5 = Quantity("gain at severity 5 over the standard network, 1 reference", "severity5/accuracy", 1, gain=True)

# data set -> kind of method -> examples in the bank, 0 for all -> figure, in per cent and maybe with a deviation
_FIGURES: dict[Quantity, dict[str, dict[str, dict[int, tuple[float, ...]]]]] = {
    AVERAGE: {
        "cifar10": {
            "standard": {0: (75.6,)},
            "anchored": {0: (76.4,), 5: (76.3,), 50: (76.4,), 500: (76.4,), 2_500: (76.5,), 5_000: (76.5,)},
            "anchored + masking": {0: (80.8,), 5: (73.9,), 50: (75.0,), 500: (77.2,), 2_500: (80.7,), 5_000: (81.2,)},
        },
        "cifar100": {
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
    },
    AVERAGE_OF_K: {"cifar100": {"anchored": {0: (50.70, 0.43)}, "anchored + masking": {0: (53.55, 0.42)}}},
    SEVERITY_5: {
        "cifar100": {"standard": {0: (34.0,)}, "anchored": {0: (34.4,)}, "anchored + masking": {0: (38.1,)}},
    },
    GAIN_AT_5: {"cifar10": {"anchored + masking": {0: (8.5,)}}, "cifar100": {"anchored + masking": {0: (5.5,)}}},
}


def figures(method: Method) -> dict[Quantity, Figure]:
    """The paper's figures of a method that is the paper's, see `departure`."""
    kind, bank = kind_of(method.config), method.config.get("anchoring.bank_size", 0)
    found = {
        quantity: by_data.get(method.config["data.name"], {}).get(kind, {}).get(bank)
        for quantity, by_data in _FIGURES.items()
    }
    return {
        quantity: Figure(*(round(part / 100, 4) for part in figure)) for quantity, figure in found.items() if figure
    }


def protocol_mismatch(method: Method) -> str | None:
    """The first thing in which a method is not the paper's, in words; None if it is the paper's."""
    config, defaults = method.config, flatten(base())
    for key in dict.fromkeys([*PROTOCOL, *config]):
        if key not in config and key.startswith("anchoring."):
            continue  # without effect in this method
        given, allowed = config.get(key), PROTOCOL.get(key, (defaults.get(key),))
        if given not in allowed:
            return f"config.{key} is {_told(given)}, in the paper {' or '.join(map(_told, allowed))}"
    total_steps = round(config["training.total_epochs"] * (_TRAINING_EXAMPLES // config["training.batch_size"]))
    for one in method.runs:
        if one.step != total_steps:
            return f"'{one.name}' was evaluated at step {one.step:,} of {total_steps:,}"
    return None


def _told(value: Any) -> str:
    return "not set" if value is None else repr(value)
