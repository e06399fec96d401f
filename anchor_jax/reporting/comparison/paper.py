"""The published results of a method, and whether it was trained as they were.

The numbers are in `paper_results`, the configurations in `paper_protocols`.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from anchor_jax.config import base, flatten
from anchor_jax.reporting.comparison.methods import Method, method_kind
from anchor_jax.reporting.comparison.paper_protocols import PROTOCOLS, Allowed
from anchor_jax.reporting.comparison.paper_results import MASKED, PUBLISHED, Quantity

IMAGENET = "imagenet2012"
_NUM_IMAGENET_CLASSES = 1_000
_IDENTITY = ("data.source", "data.name", "model.name", "data.orientation")  # published: "stored", for a few images
_TARGET_REMARKS = {
    "uniform": "the target of masked examples is uniform, as in the paper's text; the published numbers more likely "
    "come from the label, the target in the released code",
    "label": "the target of masked examples is the label, as in the released code, from which the published numbers "
    "more likely come; the paper's text says uniform",
}


class PublishedResult(NamedTuple):
    """A published number, as a fraction, with its standard deviation and where it is published."""

    value: float
    std: float | None
    source: str


def published_results(method: Method) -> dict[Quantity, PublishedResult]:
    """Return the published results of a method that has no `protocol_mismatch`."""
    key = dataset_of(method), method.config["model.name"]
    kind, bank_size = method_kind(method.config), method.config.get("anchoring.bank_size", 0)
    return {
        quantity: _result(percent, source)
        for source, by_key in PUBLISHED.items()
        for quantity, by_kind in by_key.get(key, {}).items()
        if (percent := by_kind.get(kind, {}).get(bank_size))
    }


def protocol_mismatch(method: Method) -> str | None:
    """Return the first difference to the published configuration in words, None if there is none."""
    config, protocol = method.config, PROTOCOLS.get(dataset_of(method))
    if protocol is None:
        return _difference(config, {"data.source": ("tfds",), "data.name": tuple(PROTOCOLS)}, "in the paper")
    if reason := _difference(config, {"model.name": tuple(protocol.recipes)}, "published for"):
        return reason
    stated, defaults = {**protocol.keys, **protocol.recipes[config["model.name"]]}, flatten(base())
    others = {key: (defaults.get(key),) for key in config if key not in stated and key not in _IDENTITY}
    if reason := _difference(config, stated | others, protocol.where):
        return reason
    steps_per_epoch = protocol.training_examples // config["training.batch_size"]
    total_steps = round(config["training.total_epochs"] * steps_per_epoch)
    for run in method.runs:
        if run.step != total_steps:
            return f"'{run.name}' was evaluated at step {run.step:,} of {total_steps:,}"
    return None


def remark(method: Method) -> str:
    """Return what readers must know about a method that has no `protocol_mismatch`, "" if there is nothing."""
    if not published_results(method):
        return "no result of this method is published"
    return _TARGET_REMARKS[method.config["anchoring.masked_target"]] if method_kind(method.config) == MASKED else ""


def dataset_of(method: Method) -> str:
    """Return the name of the training set in TFDS, also of ImageNet in folders; "" if it is unknown."""
    source, names = method.config["data.source"], method.runs[0].run.label_names
    if source == "folder" and len(names) == _NUM_IMAGENET_CLASSES and all(re.fullmatch(r"n\d{8}", n) for n in names):
        return IMAGENET
    return method.config["data.name"] if source == "tfds" else ""


def _result(percent: tuple[float, ...], source: str) -> PublishedResult:
    value, *std = (round(part / 100, 4) for part in percent)
    return PublishedResult(value, std[0] if std else None, source)


def _difference(config: Mapping[str, Any], allowed: Allowed, where: str) -> str | None:
    for key, values in allowed.items():
        if key not in config and key.startswith("anchoring."):
            continue  # without an effect in this method
        if config.get(key) not in values:
            expected = " or ".join(dict.fromkeys(map(_text, values)))
            return f"config.{key} is {_text(config.get(key))}, {where} {expected}"
    return None


def _text(value: Any) -> str:
    return "not set" if value is None else repr(value)
