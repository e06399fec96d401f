"""What a result depends on: options, data and network. Results that differ in one of them are never mixed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from anchor_jax.data import CorruptedSet, EvalDataset
from anchor_jax.data.content import combined_content
from anchor_jax.data.orientation import STORED
from anchor_jax.data.resampling import AUTO
from anchor_jax.evaluation.context import EvalContext
from anchor_jax.evaluation.options import SuiteOptions
from anchor_jax.evaluation.results import HASH_DIGITS, short_hash
from anchor_jax.runs import references as reference_file
from anchor_jax.runtime import multihost

Evaluated = EvalDataset | CorruptedSet

# key of the network's facts -> what messages call it
_NETWORK_WORDS = {"variables": "weights", "training_set": "training data"}


def data_facts(context: EvalContext, datasets: Sequence[Evaluated]) -> dict[str, Any]:
    """Return what identifies the evaluated data, as JSON values.

    Args:
      context: what is evaluated.
      datasets: of a suite.

    Returns:
      "name", "split", "num_examples" and "sha256" (None if the content is unknown). Of several datasets these describe
      all of them together, and "sets" each of them.
    """
    is_primary = multihost.is_primary()  # only that process stores the facts
    sets = [
        {
            "name": context.test_name if context.is_test(dataset) else dataset.name,
            "split": dataset.split,
            "num_examples": dataset.num_examples,
            "sha256": (dataset.content() if is_primary else "") or None,
        }
        for dataset in datasets
    ]
    if len(sets) == 1:
        return sets[0]
    return {
        "name": ", ".join(each["name"] for each in sets),
        "split": ", ".join(each["split"] or "-" for each in sets),
        "num_examples": sum(each["num_examples"] for each in sets),
        "sha256": combined_content(each["sha256"] or "" for each in sets) or None,
        "sets": sets,
    }


def network_facts(context: EvalContext, options: type[SuiteOptions]) -> dict[str, Any]:
    """Return what identifies the evaluated network, as JSON values.

    Args:
      context: what is evaluated.
      options: of the suite.
    """
    config, predictor = context.run.config, context.predictor
    facts: dict[str, Any] = {
        "variables": _digest(context.fingerprints),
        "moving_average": bool(config.training.ema_decay),
        "references": None
        if predictor.references is None
        else reference_file.digest(predictor.references)[:HASH_DIGITS],
        "model": config.model.name,
        "model_options": _json(dict(config.model.options)),
        "dtype": config.model.dtype,
        "mean": list(config.data.mean),
        "std": list(config.data.std),
        "crop_fraction": config.data.crop_fraction,
    }
    if config.data.interpolation != AUTO:  # which results of earlier versions do not name
        facts["interpolation"] = config.data.interpolation
    if config.data.resizing != AUTO:
        facts["resizing"] = config.data.resizing
    if config.data.orientation != STORED:  # as all results of earlier versions
        facts["orientation"] = config.data.orientation
    if _uses_training_set(context, options):
        anchoring = config.anchoring
        bank = [anchoring.bank_size, anchoring.bank_per_class, config.seed]
        facts["training_set"] = _digest([context.training_identity, bank])
    return facts | ({"members": dict(context.members)} if context.members else {})


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe how two results differ in options, data and network; return [] if they do not.

    Args:
      earlier: facts of a result.
      now: facts of another result.
    """
    found = ["with other options"] if earlier.get("options") != now.get("options") else []
    if content(earlier) != content(now):
        found.append(f"on other data ({describe_data(earlier)})" if earlier.get("data") else "on unknown data")
    old: Mapping[str, Any] = earlier.get("network") or {}
    new: Mapping[str, Any] = now.get("network") or {}
    changed = [key for key in dict.fromkeys((*old, *new)) if old.get(key) != new.get(key)]
    words = ", ".join(_NETWORK_WORDS.get(key, key.replace("_", " ")) for key in changed)
    if changed:
        found.append(f"with other {words}" if old and new else "with unknown weights")
    return found


def describe_data(facts: Mapping[str, Any]) -> str:
    """Return the data of a result in words.

    >>> data = {"name": "digits", "split": "test", "num_examples": 360, "sha256": "0123456789abcdef"}
    >>> describe_data({"data": data}), describe_data({})
    ('digits test, 360 examples, sha256 0123456789ab', 'unknown data')
    """
    data = facts.get("data")
    if not data:
        return "unknown data"
    name = " ".join(filter(None, (data["name"], data["split"])))
    content = f"sha256 {short_hash(facts)}" if data["sha256"] else "unknown content"
    return f"{name}, {data['num_examples']:,} examples, {content}"


def same_images(clean: Mapping[str, Any], corrupted: Mapping[str, Any]) -> bool:
    """Return whether corrupted images may have been made from a clean test set; the arguments are facts of results."""
    if clean.get("test_set") and corrupted.get("test_set"):
        return clean["test_set"] == corrupted["test_set"]
    numbers = clean.get("num_examples"), corrupted.get("num_examples")
    return None in numbers or not clean.get("data") or numbers[0] == numbers[1]


def content(facts: Mapping[str, Any]) -> Any:
    """Return what is the same for results on the same data, whatever their names; None if the data are unknown."""
    data = facts.get("data")
    return data and (data["sha256"] or data)


def _uses_training_set(context: EvalContext, options: type[SuiteOptions]) -> bool:
    fields = options.__dataclass_fields__
    is_transduced = context.options.protocol == "blt" or "blt_references" in fields
    is_scaled = context.options.temperature_scaling and "temperature_scaling" in fields
    calibration = getattr(context.options, "conformal_calibration", None)
    is_calibrated = calibration == "held_out" and "conformal_calibration" in fields
    return is_calibrated or (is_transduced and context.predictor.references is not None) or is_scaled


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value))  # tuples become lists, as they are when they are read


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]
