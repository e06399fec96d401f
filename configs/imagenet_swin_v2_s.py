"""ImageNet with SwinV2-S: anchored training with masking.

    python train.py --config configs/imagenet_swin_v2_s.py --workdir runs/imagenet_swin_v2_s

Recipe: that of SwinV2-B; the released code uses one recipe for all three sizes.

Time: estimates by compilers, not measured (docs/planning.md): on h200:8, 50 chip-hours and 14 of 106 GiB. Result: not
measured.
"""

from anchor_jax.config import Config
from configs import imagenet_swin_v2_b


def get_config() -> Config:
    config = imagenet_swin_v2_b.get_config()
    config.model.name = "swin_v2_s"
    return config
