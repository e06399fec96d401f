"""ImageNet with ViT-B/16: anchored training with masking.

    python train.py --config configs/imagenet_vit_b16.py --workdir runs/imagenet_vit_b16

Recipe: torchvision's for vit_b_16 (references/classification, 8 × 512 images). The released code trains this model too,
but states hyperparameters for SwinV2-B only. Torchvision turns its flags for the moving average, 0.99998 and 32 steps,
into a decay of 1 - 2e-5 · 4096 · 32 / 300 every 32 steps, which is the value here, and starts to average after the
warm-up. With three repeats, an epoch shows a third of the images.

Time: estimates by compilers, not measured (docs/planning.md): on h200:8, 19 chip-hours and 48 of 106 GiB. Result: not
measured.
"""

from anchor_jax.config import Config
from configs import _imagenet


def get_config() -> Config:
    config = _imagenet.get_config()
    config.data.repeats = 3
    config.augmentation.policy = "rand_augment"
    config.augmentation.num_operations = 2
    config.augmentation.magnitude = 9
    config.augmentation.mixup_alpha = 0.2
    config.augmentation.cutmix_alpha = 1.0
    config.model.name = "vit_b16"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 30.0
    config.optimizer.warmup_from = 0.033
    config.optimizer.clip_norm = 1.0
    config.training.batch_size = 4096
    config.training.total_epochs = 300.0
    config.training.label_smoothing = 0.11
    config.training.ema_decay = 0.99126
    config.training.ema_every_steps = 32
    return config
