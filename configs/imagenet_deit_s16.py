"""ImageNet with DeiT-S/16: anchored training with masking.

    python train.py --config configs/imagenet_deit_s16.py --workdir runs/imagenet_deit_s16

The model is from the paper's project page, not from the paper.

Recipe: Touvron et al. 2021 (arXiv 2012.12877, table 9, and facebookresearch/deit), without distillation and without the
moving average of the parameters, which they found to gain nothing; the released code has no recipe for this model.
Their RandAugment is timm's, with magnitude 9 out of 10 and a deviation of 0.5; here it is torchvision's, with a
constant magnitude of 27 out of 30. With three repeats, an epoch shows a third of the images.

Time: estimates by compilers, not measured (docs/planning.md): on h200:8, 7.4 chip-hours and 6.1 of 106 GiB. Result: not
measured.
"""

from anchor_jax.config import Config
from configs import _imagenet


def get_config() -> Config:
    config = _imagenet.get_config()
    config.data.repeats = 3
    config.data.interpolation = "bicubic"
    config.augmentation.policy = "rand_augment"
    config.augmentation.num_operations = 2
    config.augmentation.magnitude = 27
    config.augmentation.erasing_prob = 0.25
    config.augmentation.mixup_alpha = 0.8
    config.augmentation.cutmix_alpha = 1.0
    config.model.name = "deit_s16"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3  # 5e-4 per 512 images
    config.optimizer.weight_decay = 0.05
    config.optimizer.norm_weight_decay = 0.0
    config.optimizer.bias_weight_decay = 0.0
    config.optimizer.position_weight_decay = 0.0
    config.optimizer.schedule = "cosine"
    config.optimizer.final_learning_rate = 1e-5
    config.optimizer.warmup_epochs = 5.0
    config.optimizer.warmup_from = 1e-3
    config.training.batch_size = 1024
    config.training.total_epochs = 300.0
    config.training.label_smoothing = 0.1
    return config
