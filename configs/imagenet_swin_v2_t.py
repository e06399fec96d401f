"""ImageNet with SwinV2-T: anchored training with masking.

    python train.py --config configs/imagenet_swin_v2_t.py --workdir runs/imagenet_swin_v2_t

Recipe: that of SwinV2-B; the released code uses one recipe for all three sizes.

Time: estimates by compilers, not measured (docs/planning.md): on h200:8, 30 chip-hours and 8.4 of 106 GiB. Result: not
measured.
"""

from anchor_jax.config import Config
from configs import imagenet_swin_v2_b


def get_config() -> Config:
    config = imagenet_swin_v2_b.get_config()
    config.model.name = "swin_v2_t"
    return config
