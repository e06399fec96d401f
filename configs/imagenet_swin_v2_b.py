"""ImageNet with SwinV2-B, the largest model of the paper: anchored training with masking.

    python train.py --config configs/imagenet_swin_v2_b.py --workdir runs/imagenet_swin_v2_b

Recipe: the released code's (LLNL/anchoring c472301, ImageNet/run_train.sh, 16 × 32 images), without warm-up.

- Masks are drawn per block of 32 images, as on its GPUs. Images are resized by bicubic interpolation, in training and
  evaluation. Its TrivialAugment interpolates so, too; here it takes nearest neighbors, torchvision's default.
- It turns its flags for the moving average, 0.99998 and 32 steps, into a decay of 1 - 2e-5 · 512 · 32 / 400 every 32
  steps, which is the value here.
- It applies weight decay to all weights. Here, as in the authors' code of SwinV2, the network of relative positions and
  the scales of the cosine attention have none.
- With four repeats, an epoch shows a quarter of the images.

Time: estimates by compilers, not measured (docs/planning.md): on h200:8, 71 chip-hours and 18 of 106 GiB. Result: not
measured.
"""

from anchor_jax.config import Config
from configs import _imagenet


def get_config() -> Config:
    config = _imagenet.get_config()
    config.data.image_size = 256
    config.data.crop_fraction = 1.0
    config.data.interpolation = "bicubic"
    config.data.repeats = 4
    config.augmentation.policy = "trivial_augment"
    config.augmentation.erasing_prob = 0.25
    config.augmentation.mixup_alpha = 0.8
    config.augmentation.cutmix_alpha = 1.0
    config.model.name = "swin_v2_b"
    config.anchoring.mask_per = "group"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.05
    config.optimizer.norm_weight_decay = 0.0
    config.optimizer.bias_weight_decay = 0.0
    config.optimizer.position_weight_decay = 0.0
    config.optimizer.schedule = "cosine"
    config.optimizer.final_learning_rate = 1e-6
    config.optimizer.clip_norm = 5.0
    config.training.batch_size = 512
    config.training.total_epochs = 400.0
    config.training.label_smoothing = 0.1
    config.training.ema_decay = 0.9991808
    config.training.ema_every_steps = 32
    return config
