"""The configuration of a run.

An experiment in `configs/` starts from `base()` and changes what differs. Unknown keys raise an error.

>>> config = base()
>>> config.anchoring.mask_prob = 0.2
>>> config.model.options.width = 64
>>> validate(config)

The keys, their types, defaults and ranges are declared in `anchor_jax/config/keys.py` and listed in docs/config.md.
"""

from anchor_jax.config.declaration import defaults
from anchor_jax.config.keys import (
    AnchoringConfig,
    AugmentationConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    LoggingConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from anchor_jax.config.validation import (
    RENAMED_KEYS,
    flatten,
    is_known,
    rename_hint,
    rename_old_keys,
    unknown_key,
    validate,
    with_plain_values,
)

__all__ = [
    "RENAMED_KEYS",
    "RESUMABLE_CHANGES",
    "AnchoringConfig",
    "AugmentationConfig",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "LoggingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "TrainingConfig",
    "base",
    "flatten",
    "is_known",
    "rename_hint",
    "rename_old_keys",
    "unknown_key",
    "validate",
    "with_plain_values",
]

# Prefixes of the keys that may change when a run resumes, because they do not affect the parameters.
RESUMABLE_CHANGES = (
    "evaluation.",
    "checkpoint.",
    "logging.",
    "data.classes",  # the run records the names
    "data.path",  # a moved dataset: its fingerprint must be the same
    "data.workers",
    "training.sharding",
    "training.max_consecutive_nonfinite",
)


def base() -> Config:
    """Return the default of every key, locked: an unknown key raises an `AttributeError`.

    Only `config.model.options` is unlocked; it takes any option of the model.
    """
    config = defaults(Config)
    config.lock()
    config.model.options.unlock()
    return config
