"""Fine-tune a standard network with published weights, by default a ViT-B/16 of ImageNet, into an anchored one.

    python train.py --config configs/finetune.py --workdir runs/finetune --config.model.weights=torchvision:vit_b_16.pth

Pass the weights as SOURCE:FILE; without them, the run would train badly from random ones. The anchored network starts
as the same function as the standard one, for every reference (docs/models.md), on images that are prepared as those
that the weights were trained on; training prints how. For another model, set --config.model.name; for another dataset,
which gets a new head, --config.data.name, or source and path, and --config.data.test_split (docs/finetuning.md).

Recipe: our own, not tuned. AdamW with a small learning rate that decays layer by layer, as in the fine-tuning of BEiT
(Bao et al. 2022, arXiv 2106.08254), so that the first layers change least.

Time: estimates by compilers, not measured (docs/planning.md): on h200:8, 1.4 chip-hours and 13 of 106 GiB. Result: not
measured.
"""

from anchor_jax.config import Config
from configs import _imagenet


def get_config() -> Config:
    config = _imagenet.get_config()
    config.data.like_weights = True  # which sets what is left open here
    config.data.image_size = 0
    config.data.mean = config.data.std = ()
    config.data.crop_fraction = 0.0
    config.data.interpolation = "auto"
    config.augmentation.policy = "rand_augment"
    config.augmentation.mixup_alpha = 0.2
    config.augmentation.cutmix_alpha = 1.0
    config.model.name = "vit_b16"
    config.model.dtype = "auto"
    config.model.stochastic_depth = 0.1
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.layer_decay = 0.75
    config.optimizer.weight_decay = 0.05
    config.optimizer.norm_weight_decay = 0.0
    config.optimizer.bias_weight_decay = 0.0
    config.optimizer.position_weight_decay = 0.0
    config.optimizer.schedule = "cosine"
    config.optimizer.final_learning_rate = 1e-6
    config.optimizer.warmup_epochs = 2.0
    config.optimizer.clip_norm = 1.0
    config.training.batch_size = 1024
    config.training.total_epochs = 20.0
    config.training.label_smoothing = 0.1
    return config
