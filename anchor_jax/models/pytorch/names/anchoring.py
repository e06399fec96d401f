"""Names of tensors in the networks that the released code defines for CIFAR."""

from anchor_jax.models.pytorch.names import torchvision
from anchor_jax.models.pytorch.names.table import NameTable

# CIFAR/utils/models/resnet.py of the released code
RESNET = NameTable(
    block=torchvision.RESNET.block,
    in_block={**torchvision.RESNET.in_block, "shortcut_conv": "shortcut.0", "shortcut_bn": "shortcut.1"},
    outside={**torchvision.RESNET.outside, "head": "linear"},
)

# CIFAR/utils/models/wideresnet.py of the released code
WIDE_RESNET = NameTable(
    block=lambda stage, block: f"block{stage}.layer.{block - 1}.",
    in_block={"bn1": "bn1", "conv1": "conv1", "bn2": "bn2", "conv2": "conv2", "shortcut_conv": "convShortcut"},
    outside={"stem_conv": "conv1", "bn": "bn1", "head": "fc"},
)
