"""ImageNet with RegNetY-800MF: anchored training with masking.

    python train.py --config configs/imagenet_regnet_y_800mf.py --workdir runs/imagenet_regnet_y_800mf

The model is from the paper's project page, not from the paper; it is the smallest one there.

Recipe: torchvision's for its small RegNets (references/classification, 8 × 128 images), with crops and flips only. The
released code has no recipe for this model.

Time: estimates by compilers, not measured (docs/planning.md): on h200:8, 1.5 chip-hours and 3 of 106 GiB. Result: not
measured.
"""

from anchor_jax.config import Config
from configs import _imagenet


def get_config() -> Config:
    config = _imagenet.get_config()
    config.model.name = "regnet_y_800mf"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.8
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 5e-5
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 5.0
    config.optimizer.warmup_from = 0.1
    config.training.batch_size = 1024
    config.training.total_epochs = 100.0
    return config
