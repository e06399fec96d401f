"""A small run on handwritten digits that uses every part of a checkpoint; `small_run.py:mlp` is even smaller."""

from anchor_jax.config import Config, base


def get_config(model: str = "resnet18") -> Config:
    """Return the config for a ResNet of one block, which has batch statistics, or for an "mlp"."""
    config = base()
    config.data.source = "digits"
    config.augmentation.crop_padding = 1
    config.model.name = model
    config.model.options.update({"hidden": (16,)} if model == "mlp" else {"stage_sizes": (1,), "width": 8})
    config.anchoring.mask_prob = 0.5
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "cosine"
    config.training.batch_size = 64
    config.training.ema_decay = 0.9
    config.evaluation.every_epochs = 0.5
    config.evaluation.saved_references = 20
    config.checkpoint.every_epochs = 0.25
    config.checkpoint.keep = 2
    config.logging.every_steps = 2
    return config
