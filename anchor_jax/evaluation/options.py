"""Options of the suites: dataclasses, whose fields are also the flags of `eval.py`."""

import dataclasses
from typing import Any

from anchor_jax.core import checks

PROTOCOLS = ("random", "blt")
GENERATED = "generated"  # corruptions of the test set, made on the device


def option(default: Any, help: str, *, minimum: int | None = None, choices: tuple[str, ...] | None = None) -> Any:
    """Return a dataclass field with a help text.

    Args:
      default: its type is that of the field: a tuple of strings, an integer, a fraction, a boolean or a string.
      help: one sentence; the help of the flag and part of the documentation of the dataclass.
      minimum: smallest allowed integer.
      choices: allowed strings.
    """
    return dataclasses.field(default=default, metadata={"help": help, "minimum": minimum, "choices": choices})


@dataclasses.dataclass(frozen=True)
class SuiteOptions:
    """Base of the options of a suite. Results that were measured with different options are never mixed."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, minimum, choices = getattr(self, field.name), *map(field.metadata.get, ("minimum", "choices"))
            if isinstance(field.default, tuple):
                object.__setattr__(self, field.name, checks.several(field.name, value))
            if isinstance(field.default, bool):
                object.__setattr__(self, field.name, checks.flag(field.name, value))
            if isinstance(field.default, float):
                object.__setattr__(self, field.name, checks.static_number(field.name, value))
            if minimum is not None:
                object.__setattr__(self, field.name, checks.count(field.name, value, minimum))
            if choices:
                checks.known(field.name, value, choices)

    def facts(self) -> dict[str, Any]:
        """Return the options as JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclasses.dataclass(frozen=True)
class SeedOption(SuiteOptions):
    """The seed of suites that draw at random."""

    seed: int = option(
        0,
        "Seed of all that is drawn, such as corruptions and subsets.",
    )

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "seed", checks.count("seed", self.seed, 0))


@dataclasses.dataclass(frozen=True)
class TemperatureOption(SuiteOptions):
    """Temperature scaling, in suites that report calibration."""

    temperature_scaling: bool = option(
        False, "Also report metrics after temperature scaling on held-out training data."
    )


@dataclasses.dataclass(frozen=True)
class CorruptedSetsOption(SuiteOptions):
    """The corrupted test sets."""

    corruptions: tuple[str, ...] = option(
        (GENERATED,),
        "Corrupted test sets: 'generated' (the 19 corruptions of ImageNet-C), 'generated-c-bar' (the 10 of C-bar), "
        "tfds:NAME, npy:FOLDER (as CIFAR-10-C), folder:FOLDER (as ImageNet-C).",
    )


@dataclasses.dataclass(frozen=True)
class ShiftedSetsOption(SuiteOptions):
    """The shifted datasets."""

    shift: tuple[str, ...] = option((), "Datasets of 'shift', with the run's classes, such as tfds:imagenet_r.")


@dataclasses.dataclass(frozen=True)
class TransductionOption(SuiteOptions):
    """The candidates of bilinear transduction; by default as many as in the paper."""

    blt_references: int = option(
        50,
        "References of the bank among which BLT chooses; 0: all.",
        minimum=0,
    )


@dataclasses.dataclass(frozen=True)
class CommonOptions(TransductionOption, SeedOption, TemperatureOption):
    """The options that several suites share."""

    data: tuple[str, ...] = option(
        (),
        "Labeled sets that the suite 'clean' measures in place of the test set, such as folder:PATH; each has its own "
        "results.",
    )
    limit: int = option(
        0,
        "At most N images of each dataset, drawn by class; 0: all.",
        minimum=0,
    )

    protocol: str = option(
        "random",
        "How references are chosen: the random ones saved with the run, or one per image by bilinear transduction "
        "(BLT).",
        choices=PROTOCOLS,
    )


def describe(options: type[SuiteOptions]) -> str:
    """Return the documentation of the fields of an options class, for its docstring."""
    fields = (f"  {field.name}: {field.metadata['help']}" for field in dataclasses.fields(options))
    return "\n".join(["Attributes:", *fields])
