"""Names of tensors in published PyTorch networks: one table per family and source, one module per source.

A table maps modules of our models, or single variables where the names are irregular, to names of tensors. Names inside
a block are listed once, because all blocks have the same; a prefix identifies the block. A source that has changed its
names over the years has several tables, the newest first.
"""

from anchor_jax.models.layers import Classifier
from anchor_jax.models.pytorch.names import anchoring, huggingface, timm, torchvision
from anchor_jax.models.pytorch.names.table import NameTable as NameTable
from anchor_jax.models.pytorch.names.table import QKVSlice as QKVSlice
from anchor_jax.models.pytorch.names.table import TensorNames as TensorNames
from anchor_jax.models.regnet import RegNetY
from anchor_jax.models.resnet import ResNet
from anchor_jax.models.swin_v2 import SwinV2
from anchor_jax.models.vit import ViT
from anchor_jax.models.wide_resnet import WideResNet

# family -> source -> tables; the released code uses torchvision's networks for ImageNet
NAME_TABLES: dict[type[Classifier], dict[str, tuple[NameTable, ...]]] = {
    ResNet: {
        "torchvision": (torchvision.RESNET,),
        "timm": (timm.RESNET,),
        "huggingface": huggingface.RESNET,
        "anchoring": (anchoring.RESNET,),
    },
    WideResNet: {"anchoring": (anchoring.WIDE_RESNET,)},
    RegNetY: {
        "torchvision": (torchvision.REGNET,),
        "timm": (timm.REGNET,),
        "huggingface": huggingface.REGNET,
        "anchoring": (torchvision.REGNET,),
    },
    ViT: {
        "torchvision": torchvision.VIT,
        "timm": (timm.VIT,),
        "huggingface": huggingface.VIT,
        "anchoring": torchvision.VIT,
    },
    SwinV2: {
        "torchvision": (torchvision.SWIN,),
        "timm": timm.SWIN,
        "huggingface": huggingface.SWIN,
        "anchoring": (torchvision.SWIN,),
    },
}
SOURCES = ("torchvision", "timm", "huggingface", "anchoring")
