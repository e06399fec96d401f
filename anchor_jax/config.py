"""The configuration of a run: every key with its default, its meaning and what it may be.

An experiment in `configs/` starts from `base()` and changes what differs. Keys that are not here are refused.
"""

import difflib
import re
import reprlib
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from ml_collections import ConfigDict

from anchor_jax.core.errors import UserError

if TYPE_CHECKING:
    Config: TypeAlias = Any  # a type checker cannot know the keys of a ConfigDict
else:
    Config = ConfigDict


def base() -> Config:
    """The defaults of every key, locked against unknown ones."""
    config: Config = ConfigDict()
    config.seed = 0  # all randomness of a run follows from it

    config.data = ConfigDict()
    config.data.source = "digits"  # "digits", "tfds", "folder" or "npz"
    config.data.name = ""  # of the tensorflow-datasets set, such as "cifar10"
    config.data.path = ""  # of the folder or .npz file; of the prepared sets for "tfds" ("": its default)
    config.data.train_split = "train"
    config.data.test_split = "test"
    config.data.validation_fraction = 0.0  # of the training set, held out for the evaluations in training
    config.data.image_size = 0  # pixels, to which images of "tfds" and "folder" are resized; 0: as stored
    config.data.mean = ()  # one number a channel, of pixels in [0, 1]; (): measured on the training set
    config.data.std = ()  # likewise
    config.data.crop_fraction = 1.0  # of the shorter side, for the central crop of evaluation and of references
    config.data.label_noise = 0.0  # fraction of the training labels that are replaced by another class
    config.data.streaming = False  # True: decoded batch by batch, for sets too large for a device: "tfds", "folder"
    config.data.workers = 0  # processes that decode a stream; 0: threads of this one
    config.data.repeats = 1  # times that a batch of a stream has each of its images, each time augmented anew
    config.data.max_corrupt_fraction = 1e-3  # fraction of a stream's images that may be unreadable before the run ends

    config.augmentation = ConfigDict()
    config.augmentation.crop_padding = 0  # pixels of black on each side before a random crop; 0: no crop
    config.augmentation.resized_crop = ()  # (least, greatest) area of a random crop that is resized; (): none
    config.augmentation.flip = False  # mirror left and right, half of the time
    config.augmentation.policy = ""  # "trivial_augment", "rand_augment" or "pixmix"
    config.augmentation.num_operations = 2  # of "rand_augment"
    config.augmentation.magnitude = 9  # of "rand_augment", of 30
    config.augmentation.mixing_images_dir = (
        ""  # folder of those that "pixmix" mixes in; "": fractals, made at the start
    )
    config.augmentation.erasing_prob = 0.0  # of a rectangle that is erased after normalisation
    config.augmentation.mixup_alpha = 0.0  # of the Beta distribution of weights; 0: no mixup
    config.augmentation.cutmix_alpha = 0.0  # likewise; where both are given, one of the two is drawn for each batch

    config.model = ConfigDict()
    config.model.name = "resnet18"  # a name of anchor_jax.models
    config.model.dtype = "float32"  # of activations: "float32" or "bfloat16"
    config.model.options = ConfigDict()  # of the model, such as {"width": 64}
    config.model.remat = False  # True: activations of blocks are computed again for their gradient, not kept
    config.model.weights = ""  # to begin from: "SOURCE:FILE", of PyTorch, see models.from_torch; "": drawn

    config.anchoring = ConfigDict()
    config.anchoring.enabled = True  # False: standard training, the network sees x
    config.anchoring.references = "bank"  # drawn from the un-augmented training set, or the "batch"
    config.anchoring.group_size = 0  # images in a row among which references="batch" draws; 0: all of the batch
    config.anchoring.replace = True  # drawn with replacement; False: no reference twice in a step, or in a group
    config.anchoring.bank_size = 0  # examples in the bank; 0: all of the training set
    config.anchoring.bank_per_class = False  # True: the same number of each class
    config.anchoring.mask_prob = 0.25  # the paper's α; 0: no masking
    config.anchoring.mask_per = "batch"  # one draw for a "batch" or for each "example"
    config.anchoring.masked_target = "uniform"  # the paper's, or "label", the released code's
    config.anchoring.update_bn_when_masked = (
        False  # whether masked batches count in the running statistics of BatchNorm
    )

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # "sgd" or "adamw"
    config.optimizer.learning_rate = 0.1  # at its highest
    config.optimizer.momentum = 0.9  # of "sgd"
    config.optimizer.weight_decay = 5e-4  # of all parameters, as PyTorch does, but for those of the next three
    config.optimizer.norm_weight_decay = -1.0  # of the scales and biases of norms; below 0: as all others
    config.optimizer.bias_weight_decay = -1.0  # of all other biases; likewise
    config.optimizer.position_weight_decay = -1.0  # of class tokens, positions and their biases; likewise
    config.optimizer.schedule = "step"  # "step" or "cosine"
    config.optimizer.final_learning_rate = 0.0  # of "cosine", at the end
    config.optimizer.warmup_epochs = 0.0  # linear
    config.optimizer.warmup_from = 0.0  # fraction of the learning rate at which the warm-up begins
    config.optimizer.milestones_epochs = (60, 120, 160)  # of "step"
    config.optimizer.decay_factor = 0.2  # of "step", at each milestone
    config.optimizer.clip_norm = 0.0  # greatest norm of the gradient; 0: any
    config.optimizer.layer_decay = 1.0  # of the learning rate, from each block to the one before it
    config.optimizer.frozen = ()  # beginnings of parameters' names that stay as they are, such as ("stem", "stage1")

    config.training = ConfigDict()
    config.training.batch_size = 128  # over all devices
    config.training.total_epochs = 200.0  # 0: the weights as they are, which `model.weights` must name
    config.training.label_smoothing = 0.0
    config.training.accumulation_steps = 1  # parts in which a device computes the gradient of its batch, one by one
    config.training.ema_decay = 0.0  # of the average of parameters and statistics, evaluated in their place; 0: none
    config.training.ema_every_steps = 1
    config.training.max_consecutive_nonfinite = (
        0  # updates in a row that are left out, if loss or gradient are not finite; then it ends
    )
    config.training.sharding = "replicated"  # parameters and optimizer on every device, or "fsdp": divided among them

    config.evaluation = ConfigDict()
    config.evaluation.every_epochs = 10.0  # evaluations in training; the last step has one always
    config.evaluation.batch_size = 512  # network inputs at once, over all devices
    config.evaluation.num_references = 10  # K of the evaluations in training
    config.evaluation.saved_references = 100  # drawn once and kept with the run: the largest K there is
    config.evaluation.chunk_size = 0  # references at once, memory grows with it; 0: as many as fill a batch
    config.evaluation.num_bins = 15  # of the calibration error

    config.checkpoint = ConfigDict()
    config.checkpoint.every_epochs = 10.0  # the last step has one always
    config.checkpoint.keep = 3  # newest ones kept, beside the best

    config.logging = ConfigDict()
    config.logging.every_steps = 0  # 0: every epoch
    config.lock()
    config.model.options.unlock()  # they are the model's affair
    return config


# What may change when a run goes on: it does not touch the parameters.
RESUMABLE_CHANGES = (
    "evaluation.",
    "checkpoint.",
    "logging.",
    "data.path",  # of the same data
    "data.workers",
    "training.sharding",
    "training.max_consecutive_nonfinite",
)

_CHOICES = {
    "anchoring.references": ("bank", "batch"),
    "anchoring.mask_per": ("batch", "example"),
    "anchoring.masked_target": ("uniform", "label"),
    "optimizer.name": ("sgd", "adamw"),
    "optimizer.schedule": ("step", "cosine"),
    "augmentation.policy": ("", "trivial_augment", "rand_augment", "pixmix"),
    "training.sharding": ("replicated", "fsdp"),
}

_MAX_EPOCHS = 1_000_000  # so that steps can be counted
_MAX_INTEGER, _MAX_FLOAT = 2**31 - 1, 3.4e38  # of int32 and float32

_TEXTS = ("optimizer.frozen",)  # tuples of strings; all others are of numbers

# key -> least and greatest value; None: no bound
_RANGES = {
    "seed": (0, 2**32 - 1),
    "data.validation_fraction": (0, 0.9),
    "data.image_size": (0, None),
    "data.crop_fraction": (0.05, 1),
    "data.label_noise": (0, 1),
    "data.workers": (0, 1_000),
    "data.repeats": (1, None),
    "data.max_corrupt_fraction": (0, 1),
    "augmentation.crop_padding": (0, None),
    "augmentation.num_operations": (1, 100),
    "augmentation.magnitude": (0, 30),
    "augmentation.erasing_prob": (0, 1),
    "augmentation.mixup_alpha": (0, None),
    "augmentation.cutmix_alpha": (0, None),
    "anchoring.group_size": (0, None),
    "anchoring.bank_size": (0, None),
    "anchoring.mask_prob": (0, 1),
    "optimizer.learning_rate": (0, None),
    "optimizer.momentum": (0, 1),
    "optimizer.weight_decay": (0, None),
    "optimizer.warmup_epochs": (0, _MAX_EPOCHS),
    "optimizer.final_learning_rate": (0, None),
    "optimizer.warmup_from": (0, 1),
    "optimizer.decay_factor": (0, 1),
    "optimizer.clip_norm": (0, None),
    "optimizer.layer_decay": (0, 1),
    "training.batch_size": (1, None),
    "training.total_epochs": (0, _MAX_EPOCHS),
    "training.label_smoothing": (0, 1),
    "training.accumulation_steps": (1, None),
    "training.ema_decay": (0, 1),
    "training.ema_every_steps": (1, None),
    "training.max_consecutive_nonfinite": (0, None),
    "evaluation.batch_size": (1, None),
    "evaluation.num_references": (1, None),
    "evaluation.saved_references": (1, None),
    "evaluation.chunk_size": (0, None),
    "evaluation.num_bins": (1, 10_000),
    "checkpoint.keep": (1, None),
    "logging.every_steps": (0, None),
}

_ABOVE_ZERO = ("evaluation.every_epochs", "checkpoint.every_epochs")


def validate(config: Config) -> None:
    """Refuse keys that `base()` does not have and values out of range.

    Raises:
      UserError: names the key, what was given and what is allowed.
    """
    given, known = flatten(config), _defaults()
    for key in given:
        if not is_known(key):
            raise UserError(unknown_key(key))
    for key in known:
        if key not in given:
            raise UserError(f"config.{key} is missing; start the config from anchor_jax.config.base()")
    for key, value in given.items():
        _check_type(key, value)
    for key, choices in _CHOICES.items():
        if given[key] not in choices:
            raise UserError(f"config.{key} must be one of {', '.join(choices)}; got {given[key]!r}")
    for key, (least, greatest) in _RANGES.items():
        value = given[key]
        if not (value >= least and (greatest is None or value <= greatest)):
            allowed = f"at least {least}" if greatest is None else f"in [{least}, {greatest}]"
            raise UserError(f"config.{key} must be {allowed}; got {value}")
    for key in _ABOVE_ZERO:
        if not given[key] > 0:
            raise UserError(f"config.{key} must be above 0; got {given[key]}")
    if not given["training.total_epochs"] and not given["model.weights"]:
        raise UserError(
            "config.training.total_epochs must be above 0, or 0 with config.model.weights; got "
            f"{given['training.total_epochs']}"
        )
    for key, value in given.items():
        if any(isinstance(number, float) and not abs(number) <= _MAX_FLOAT for number in _numbers(value)):
            raise UserError(f"config.{key} must be finite, and no larger than float32 holds; got {value}")
    group_size, batch_size = given["anchoring.group_size"], given["training.batch_size"]
    if group_size and batch_size % group_size:
        raise UserError(
            f"config.anchoring.group_size must be 0 or divide training.batch_size={batch_size}; got {group_size}"
        )
    if given["data.repeats"] > 1 and not given["data.streaming"]:
        raise UserError(
            f"config.data.repeats={given['data.repeats']} is for streams; give 1, or config.data.streaming=True"
        )
    area = given["augmentation.resized_crop"]
    if area and not (len(area) == 2 and 0 < area[0] <= area[1] <= 1):
        raise UserError(
            "config.augmentation.resized_crop must be (), or (least, greatest) area, above 0 and up to 1, such as "
            f"(0.08, 1.0); got {area}"
        )
    if any(not s > 0 for s in given["data.std"]):
        raise UserError(f"config.data.std must be above 0; got {given['data.std']}")
    milestones = given["optimizer.milestones_epochs"]
    if any(not 0 <= epoch <= _MAX_EPOCHS for epoch in milestones):
        raise UserError(f"config.optimizer.milestones_epochs must be in [0, {_MAX_EPOCHS}]; got {milestones}")


def _check_type(key: str, value: Any) -> None:
    """Refuse a value of another type than the default of its key; a whole number serves as a float."""
    if key in _defaults():
        expected, fits = _type_of(key, value)
    else:
        expected, fits = "a number, a string, True, False or a tuple of such", _is_plain(value)
    if not fits:
        raise UserError(f"config.{key} must be {expected}; got {reprlib.repr(value)} ({type(value).__name__})")
    if key != "seed" and any(abs(number) > _MAX_INTEGER for number in _numbers(value) if isinstance(number, int)):
        raise UserError(f"config.{key} must be no larger than {_MAX_INTEGER}; got {reprlib.repr(value)}")


def _type_of(key: str, value: Any) -> tuple[str, bool]:
    """What a value must be, and whether it is that."""
    match _defaults()[key]:
        case bool():
            return "True or False", isinstance(value, bool)
        case int():
            return "a whole number", isinstance(value, int) and not isinstance(value, bool)
        case float():
            return "a number", _is_number(value)
        case str():
            return "a string", isinstance(value, str)
        case _ if key in _TEXTS:
            return "a tuple of strings", isinstance(value, tuple) and all(isinstance(part, str) for part in value)
        case _:
            return "a tuple of numbers", isinstance(value, tuple) and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_plain(value: Any) -> bool:
    """Whether a value comes back from JSON as it was, but for lists in the place of tuples."""
    return isinstance(value, str | int | float) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _numbers(value: Any) -> Iterator[int | float]:
    """The numbers in a value, which may be one, or a tuple of them."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, tuple):
            yield from _numbers(part)
        elif _is_number(part):
            yield part


# key of version 0.1 -> its name now; recorded runs are read under both
RENAMED_KEYS = {
    "anchoring.masked_statistics": "anchoring.update_bn_when_masked",
    "augmentation.pictures": "augmentation.mixing_images_dir",
    "data.max_damaged": "data.max_corrupt_fraction",
    "training.max_skipped": "training.max_consecutive_nonfinite",
}


def rename_old_keys(recorded: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded config, nested, with the keys of `RENAMED_KEYS` under their new names."""
    renamed = {section: dict(values) if isinstance(values, dict) else values for section, values in recorded.items()}
    for old, new in RENAMED_KEYS.items():
        section, old_name = old.split(".")
        if old_name in (values := renamed.get(section, {})):
            values[new.split(".")[1]] = values.pop(old_name)
    return renamed


def is_known(key: str) -> bool:
    """Whether `base()` has a key, such as "anchoring.mask_prob"; the options of a model are its own affair."""
    return key in _defaults() or re.fullmatch(r"model\.options\.\w+", key) is not None


def unknown_key(key: str) -> str:
    """What to say of a key that `base()` does not have: the nearest valid one."""
    known = _defaults()
    if key in RENAMED_KEYS:
        return f"config key '{key}' was renamed; use '{RENAMED_KEYS[key]}'"
    if inner := [name for name in known if name.startswith(f"{key}.")]:
        return f"config key '{key}' is a group of keys; give one of them, such as '{inner[0]}'"
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
    return f"unknown config key '{key}'; did you mean '{nearest}' (default {known[nearest]!r})?"


@cache
def _defaults() -> dict[str, Any]:
    return flatten(base())


def flatten(config: Config, prefix: str = "") -> dict[str, Any]:
    """`{"anchoring.mask_prob": 0.25, ...}`."""
    flat = {}
    for key, value in config.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, ConfigDict) else {f"{prefix}{key}": value})
    return flat
