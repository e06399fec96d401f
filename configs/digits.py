"""Digits: 1,797 real handwritten digits of 8×8 pixels, from scikit-learn; anchored training with masking.

    python train.py --config configs/digits.py --workdir runs/digits
"""

from ml_collections import ConfigDict

from anchor_jax.config import base


def get_config() -> ConfigDict:
    config = base()
    config.data.source = "digits"
    config.augmentation.crop_padding = 1
    config.model.name = "resnet18"
    config.model.options = ConfigDict({"width": 8})
    config.training.batch_size = 64
    config.training.total_epochs = 40.0
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 2.0
    config.evaluation.every_epochs = 5.0
    config.checkpoint.every_epochs = 10.0
    return config
