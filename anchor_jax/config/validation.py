"""Checks of a config against the declared keys, with one-line errors."""

import difflib
import functools
import operator
import re
import reprlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal, cast, get_args, get_origin

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from anchor_jax.config.declaration import Key, Section, declared_keys
from anchor_jax.config.keys import MAX_EPOCHS, Config
from anchor_jax.core.errors import UserError

# Keys of version 0.1 -> their names now. Recorded runs may hold either.
RENAMED_KEYS = {
    "anchoring.masked_statistics": "anchoring.update_bn_when_masked",
    "augmentation.pictures": "augmentation.mixing_images_dir",
    "data.max_damaged": "data.max_corrupt_fraction",
    "training.max_skipped": "training.max_consecutive_nonfinite",
}

_MIN_CROP = 0.05  # of `data.crop_fraction`, which bounds the size that images are resized to
_MAX_INTEGER, _MAX_FLOAT = 2**31 - 1, 3.4e38  # of int32 and float32

_KEYS = declared_keys(Config)


def flatten(config: Section, prefix: str = "") -> dict[str, Any]:
    """Return the values of a config by dotted key: `{"anchoring.mask_prob": 0.25, ...}`."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= flatten(cast(Section, value), f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def is_known(key: str) -> bool:
    """Return whether a dotted key exists, such as "anchoring.mask_prob"; any name in `model.options` does."""
    return key in _KEYS or re.fullmatch(r"model\.options\.\w+", key) is not None


def unknown_key(key: str) -> str:
    """Return the error message for a key that does not exist: its new name, or the nearest valid key."""
    if key in RENAMED_KEYS:
        return f"config key '{key}' was renamed to '{RENAMED_KEYS[key]}'"
    if inner := [name for name in _KEYS if name.startswith(f"{key}.")]:
        return f"config key '{key}' is a group of keys; give one of them, such as '{inner[0]}'"
    nearest = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0)[0]
    return f"unknown config key '{key}'; did you mean '{nearest}' (default {_KEYS[nearest].default!r})?"


def rename_hint(error: str) -> str:
    """Return the new name of the renamed key that an error of a locked `ConfigDict` is about; "" if there is none."""
    for old, new in RENAMED_KEYS.items():
        if f'Key "{old.split(".")[1]}" does not exist' in error:
            return f"config key '{old}' was renamed to '{new}'"
    return ""


def rename_old_keys(recorded: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded config, nested, with the keys of `RENAMED_KEYS` under their new names."""
    renamed = {section: dict(values) if isinstance(values, dict) else values for section, values in recorded.items()}
    for old, new in RENAMED_KEYS.items():
        section, old_name = old.split(".")
        if old_name in (values := renamed.get(section, {})):
            values[new.split(".")[1]] = values.pop(old_name)
    return renamed


def with_plain_values(config: Config) -> Config:
    """Return a copy of a valid config with values of Python: tuples for lists and arrays, numbers for NumPy's.

    The copy can be changed, also that of a `FrozenConfigDict`.
    """
    is_frozen = isinstance(config, FrozenConfigDict)
    plain = cast(Config, config.as_configdict()) if is_frozen else config.copy_and_resolve_references()
    with plain.unlocked():
        for name, value in flatten(plain).items():
            *sections, last = name.split(".")
            section = functools.reduce(operator.getitem, sections, plain)
            del section[last]  # or the new value would be converted to the type of the old one
            section[last] = _plain(value)
    plain.model.options.unlock()  # as in `base`: each model has its own
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return tuple(map(_plain, cast(Iterable[Any], value))) if isinstance(value, list | tuple) else value


def validate(config: Config) -> None:
    """Check that a config has all keys, no others, and only values that are allowed.

    Raises:
      UserError: names the key, the value and what is allowed.
    """
    given = {name: _plain(value) for name, value in flatten(config).items()}
    for name in given:
        if not is_known(name):
            raise UserError(unknown_key(name))
    for name in sorted(_KEYS.keys() - given.keys()):
        raise UserError(f"config.{name} is missing; start the config from anchor_jax.config.base()")
    for name, value in given.items():
        _check_type(name, value)
    for name, key in _KEYS.items():
        _check_value(name, key, given[name])
    if not given["training.total_epochs"] and not given["model.weights"]:
        raise UserError(
            "config.training.total_epochs must be above 0, or 0 with config.model.weights; got "
            f"{given['training.total_epochs']}"
        )
    for name, value in given.items():
        if any(isinstance(number, float) and not abs(number) <= _MAX_FLOAT for number in _numbers(value)):
            raise UserError(f"config.{name} must be finite and within the range of float32; got {value}")
    _check_combinations(given)


def _check_combinations(given: dict[str, Any]) -> None:
    group_size, batch_size = given["anchoring.group_size"], given["training.batch_size"]
    if group_size and batch_size % group_size:
        raise UserError(
            f"config.anchoring.group_size must be 0 or divide training.batch_size={batch_size}; got {group_size}"
        )
    bn_group_size = given["training.bn_group_size"]
    if bn_group_size and batch_size % bn_group_size:
        raise UserError(
            f"config.training.bn_group_size must be 0 or divide training.batch_size={batch_size}; got {bn_group_size}"
        )
    if given["model.whiten_stem"] and (given["model.name"] != "fastnet" or given["model.weights"]):
        raise UserError(
            "config.model.whiten_stem needs config.model.name='fastnet' and no config.model.weights; got "
            f"{given['model.name']!r} and {given['model.weights']!r}"
        )
    _check_mask_per_group(given)
    if given["data.repeats"] > 1 and not given["data.streaming"]:
        raise UserError(
            f"config.data.repeats must be 1 unless config.data.streaming is True; got {given['data.repeats']}"
        )
    mode, channels = given["data.mode"], given["data.channels"]
    if channels and mode != "auto" and channels != len(mode):
        raise UserError(f"config.data.channels must be 0 or {len(mode)} with config.data.mode={mode!r}; got {channels}")
    if 0 < given["data.crop_fraction"] < _MIN_CROP:
        raise UserError(
            f"config.data.crop_fraction must be 0, or in [{_MIN_CROP}, 1]; got {given['data.crop_fraction']}"
        )
    area = given["augmentation.resized_crop"]
    if area and not (len(area) == 2 and 0 < area[0] <= area[1] <= 1):
        raise UserError(
            "config.augmentation.resized_crop must be (), or (min, max) area with 0 < min <= max <= 1, such as "
            f"(0.08, 1.0); got {area}"
        )
    if any(not s > 0 for s in given["data.std"]):
        raise UserError(f"config.data.std must be above 0; got {given['data.std']}")
    milestones = given["optimizer.milestones_epochs"]
    if any(not 0 <= epoch <= MAX_EPOCHS for epoch in milestones):
        raise UserError(f"config.optimizer.milestones_epochs must be in [0, {MAX_EPOCHS}]; got {milestones}")


def _check_mask_per_group(given: dict[str, Any]) -> None:
    if given["anchoring.mask_per"] != "group":
        return
    references, group_size = given["anchoring.references"], given["anchoring.group_size"]
    if references != "batch" or not group_size:
        raise UserError(
            "config.anchoring.mask_per='group' needs anchoring.references='batch' and an anchoring.group_size, such as "
            f"32; got references={references!r} and group_size={group_size}"
        )
    if given["anchoring.mask_draw"] == "periodic":
        raise UserError(
            "config.anchoring.mask_draw='periodic' masks whole batches; with mask_per='group' set mask_draw='random'"
        )


def _check_value(name: str, key: Key, value: Any) -> None:
    """Check the choices and the range of a key; NaN is in no range."""
    choices = get_args(key.type) if get_origin(key.type) is Literal else ()
    if choices and value not in choices:
        raise UserError(f"config.{name} must be one of {', '.join(choices)}; got {value!r}")
    if key.above is not None and not value > key.above:
        raise UserError(f"config.{name} must be above {key.above}; got {value}")
    if key.at_most is not None and key.at_least is not None and not key.at_least <= value <= key.at_most:
        raise UserError(f"config.{name} must be in [{key.at_least}, {key.at_most}]; got {value}")
    if key.at_least is not None and not value >= key.at_least:
        raise UserError(f"config.{name} must be at least {key.at_least}; got {value}")


def _check_type(name: str, value: Any) -> None:
    if name in _KEYS:
        expected, fits = _expected_type(_KEYS[name].type, value)
    else:
        expected, fits = "a number, a string, True, False or a tuple of these", _is_plain(value)
    if not fits:
        raise UserError(f"config.{name} must be {expected}; got {reprlib.repr(value)} ({type(value).__name__})")
    if name != "seed" and any(abs(number) > _MAX_INTEGER for number in _numbers(value) if isinstance(number, int)):
        raise UserError(f"config.{name} must be no larger than {_MAX_INTEGER}; got {reprlib.repr(value)}")


def _expected_type(annotation: Any, value: Any) -> tuple[str, bool]:
    """Return the words for an annotated type, and whether a value has it; an int is accepted as a float."""
    if annotation is bool:
        return "True or False", isinstance(value, bool)
    if annotation is int:
        return "an integer", isinstance(value, int) and not isinstance(value, bool)
    if annotation is float:
        return "a number", _is_number(value)
    if annotation == tuple[float, ...]:
        return "a tuple of numbers", isinstance(value, tuple) and all(map(_is_number, value))
    if annotation == tuple[str, ...]:
        return "a tuple of strings", isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    return "a string", isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_plain(value: Any) -> bool:
    """Return whether JSON can hold a value, except that it makes tuples into lists."""
    return isinstance(value, str | int | float) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _numbers(value: Any) -> Iterator[int | float]:
    """Yield the numbers in a value: a number itself, or those in a tuple."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, tuple):
            yield from _numbers(part)
        elif _is_number(part):
            yield part
