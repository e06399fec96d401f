"""Names of tensors in published PyTorch networks: one table per family and source.

A table maps modules of our models, or single variables where the names are irregular, to names of tensors. Names inside
a block are listed once, because all blocks have the same; a prefix identifies the block. A source that has changed its
names over the years has several tables, the newest first.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from anchor_jax.models.layers import Classifier
from anchor_jax.models.regnet import RegNetY
from anchor_jax.models.resnet import ResNet
from anchor_jax.models.swin_v2 import SwinV2
from anchor_jax.models.vit import ViT
from anchor_jax.models.wide_resnet import WideResNet

# leaf of a Flax module -> its name in PyTorch
LEAF_NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


class QKVSlice(NamedTuple):
    """One third of a PyTorch tensor that concatenates the parameters of queries, keys and values."""

    tensor: str
    part: int  # 0: queries, 1: keys, 2: values


TensorNames = tuple[str, ...] | QKVSlice  # several tensors are concatenated along their first axis


class NameTable(NamedTuple):
    """Names of the tensors of one family in the networks of one source.

    Attributes:
      block: (stage, block), both counted from 1 -> prefix of the names in that block.
      in_block: module or variable in a block -> names without the prefix.
      outside: module or variable outside of blocks -> names.
      has_position_buffers: whether the state dict contains the tables of relative positions.
    """

    block: Callable[[int, int], str]
    in_block: dict[str, str | tuple[str, ...] | QKVSlice]
    outside: dict[str, str | tuple[str, ...] | QKVSlice]
    has_position_buffers: bool = False

    def tensor_names(self, path: tuple[str, ...]) -> TensorNames | None:
        """Return the names of the tensors that hold a variable, such as ("head", "kernel"); None if there are none."""
        prefix, table = "", self.outside
        if block := re.fullmatch(r"(?:stage(\d+)_)?block(\d+)", path[0]):
            prefix, table, path = self.block(int(block[1] or 1), int(block[2])), self.in_block, path[1:]
        variable, module = "/".join(path), "/".join(path[:-1])
        if variable in table:
            names, suffix = table[variable], ""
        else:
            names, suffix = table.get(module, ()), f".{LEAF_NAMES.get(path[-1])}"
        if isinstance(names, QKVSlice):
            return names._replace(tensor=prefix + names.tensor)
        return tuple(prefix + name + suffix for name in ((names,) if isinstance(names, str) else names)) or None


_TORCHVISION_RESNET = NameTable(
    block=lambda stage, block: f"layer{stage}.{block - 1}.",
    in_block={
        **{f"{part}{i}": f"{part}{i}" for part in ("conv", "bn") for i in (1, 2, 3)},
        "shortcut_conv": "downsample.0",
        "shortcut_bn": "downsample.1",
    },
    outside={"stem_conv": "conv1", "stem_bn": "bn1", "head": "fc"},
)

# CIFAR/utils/models/resnet.py of the released code
_RELEASED_RESNET = NameTable(
    block=_TORCHVISION_RESNET.block,
    in_block={**_TORCHVISION_RESNET.in_block, "shortcut_conv": "shortcut.0", "shortcut_bn": "shortcut.1"},
    outside={**_TORCHVISION_RESNET.outside, "head": "linear"},
)

_HUGGINGFACE_RESNET = NameTable(
    block=lambda stage, block: f"resnet.encoder.stages.{stage - 1}.layers.{block - 1}.",
    in_block={
        **{f"conv{i + 1}": f"layer.{i}.convolution" for i in range(3)},
        **{f"bn{i + 1}": f"layer.{i}.normalization" for i in range(3)},
        "shortcut_conv": "shortcut.convolution",
        "shortcut_bn": "shortcut.normalization",
    },
    outside={
        "stem_conv": "resnet.embedder.embedder.convolution",
        "stem_bn": "resnet.embedder.embedder.normalization",
        "head": "classifier.1",
    },
)

# CIFAR/utils/models/wideresnet.py of the released code
_RELEASED_WIDE_RESNET = NameTable(
    block=lambda stage, block: f"block{stage}.layer.{block - 1}.",
    in_block={"bn1": "bn1", "conv1": "conv1", "bn2": "bn2", "conv2": "conv2", "shortcut_conv": "convShortcut"},
    outside={"stem_conv": "conv1", "bn": "bn1", "head": "fc"},
)

_TORCHVISION_REGNET = NameTable(
    block=lambda stage, block: f"trunk_output.block{stage}.block{stage}-{block - 1}.",
    in_block={
        "conv1": "f.a.0",
        "bn1": "f.a.1",
        "conv2": "f.b.0",
        "bn2": "f.b.1",
        "squeeze": "f.se.fc1",
        "excite": "f.se.fc2",
        "conv3": "f.c.0",
        "bn3": "f.c.1",
        "shortcut_conv": "proj.0",
        "shortcut_bn": "proj.1",
    },
    outside={"stem_conv": "stem.0", "stem_bn": "stem.1", "head": "fc"},
)

_TIMM_REGNET = NameTable(
    block=lambda stage, block: f"s{stage}.b{block}.",
    in_block={
        **{f"conv{i}": f"conv{i}.conv" for i in (1, 2, 3)},
        **{f"bn{i}": f"conv{i}.bn" for i in (1, 2, 3)},
        "squeeze": "se.fc1",
        "excite": "se.fc2",
        "shortcut_conv": "downsample.conv",
        "shortcut_bn": "downsample.bn",
    },
    outside={"stem_conv": "stem.conv", "stem_bn": "stem.bn", "head": "head.fc"},
)

_HUGGINGFACE_REGNET = NameTable(
    block=lambda stage, block: f"regnet.encoder.stages.{stage - 1}.layers.{block - 1}.",
    in_block={
        **{f"conv{i}": f"layer.{index}.convolution" for i, index in ((1, 0), (2, 1), (3, 3))},
        **{f"bn{i}": f"layer.{index}.normalization" for i, index in ((1, 0), (2, 1), (3, 3))},
        "squeeze": "layer.2.attention.0",
        "excite": "layer.2.attention.2",
        "shortcut_conv": "shortcut.convolution",
        "shortcut_bn": "shortcut.normalization",
    },
    outside={
        "stem_conv": "regnet.embedder.embedder.convolution",
        "stem_bn": "regnet.embedder.embedder.normalization",
        "head": "classifier.1",
    },
)


def _torchvision_vit(fc1: str, fc2: str) -> NameTable:
    return NameTable(
        block=lambda _, block: f"encoder.layers.encoder_layer_{block - 1}.",
        in_block={
            "norm1": "ln_1",
            "attention/qkv/kernel": "self_attention.in_proj_weight",
            "attention/qkv/bias": "self_attention.in_proj_bias",
            "attention/projection": "self_attention.out_proj",
            "norm2": "ln_2",
            "mlp/fc1": f"mlp.{fc1}",
            "mlp/fc2": f"mlp.{fc2}",
        },
        outside={
            "patch_embedding": "conv_proj",
            "class_token": "class_token",
            "position_embedding": "encoder.pos_embedding",
            "norm": "encoder.ln",
            "head": "heads.head",
        },
    )


# the names of its code, then those of its published files
_TORCHVISION_VIT = (_torchvision_vit("0", "3"), _torchvision_vit("linear_1", "linear_2"))

_TIMM_VIT = NameTable(
    block=lambda _, block: f"blocks.{block - 1}.",
    in_block={
        "norm1": "norm1",
        "attention/qkv": "attn.qkv",
        "attention/projection": "attn.proj",
        "norm2": "norm2",
        "mlp/fc1": "mlp.fc1",
        "mlp/fc2": "mlp.fc2",
    },
    outside={
        "patch_embedding": "patch_embed.proj",
        "class_token": "cls_token",
        "position_embedding": "pos_embed",
        "norm": "norm",
        "head": "head",
    },
)


def _huggingface_vit(
    model: str, *, layer: str, qkv: tuple[str, str, str], projection: str, mlp: tuple[str, str]
) -> NameTable:
    return NameTable(
        block=lambda _, block: f"{model}.{layer}.{block - 1}.",
        in_block={
            "norm1": "layernorm_before",
            "attention/qkv": qkv,
            "attention/projection": projection,
            "norm2": "layernorm_after",
            "mlp/fc1": mlp[0],
            "mlp/fc2": mlp[1],
        },
        outside={
            "patch_embedding": f"{model}.embeddings.patch_embeddings.projection",
            "class_token": f"{model}.embeddings.cls_token",
            "position_embedding": f"{model}.embeddings.position_embeddings",
            "norm": f"{model}.layernorm",
            "head": "classifier",
            **({"distillation_token": "deit.embeddings.distillation_token"} if model == "deit" else {}),
        },
    )


_huggingface_vit_5 = partial(  # transformers since version 5
    _huggingface_vit,
    layer="layers",
    qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    projection="attention.o_proj",
    mlp=("mlp.fc1", "mlp.fc2"),
)
_huggingface_vit_4 = partial(  # before version 5, and in most published files
    _huggingface_vit,
    layer="encoder.layer",
    qkv=("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    projection="attention.output.dense",
    mlp=("intermediate.dense", "output.dense"),
)
# transformers' DeiT always has a distillation token; DeiT without one is published as a ViT
_HUGGINGFACE_VIT = (
    _huggingface_vit_5("vit"),
    _huggingface_vit_5("deit"),
    _huggingface_vit_4("vit"),
    _huggingface_vit_4("deit"),
)

_TORCHVISION_SWIN = NameTable(
    block=lambda stage, block: f"features.{2 * stage - 1}.{block - 1}.",
    in_block={
        "attention/qkv": "attn.qkv",
        "attention/q_bias": QKVSlice("attn.qkv.bias", 0),
        "attention/v_bias": QKVSlice("attn.qkv.bias", 2),
        "attention/logit_scale": "attn.logit_scale",
        "attention/position_fc1": "attn.cpb_mlp.0",
        "attention/position_fc2": "attn.cpb_mlp.2",
        "attention/projection": "attn.proj",
        "norm1": "norm1",
        "mlp/fc1": "mlp.0",
        "mlp/fc2": "mlp.3",
        "norm2": "norm2",
    },
    outside={
        "patch_embedding": "features.0.0",
        "patch_norm": "features.0.2",
        **{f"merging{i}/{part}": f"features.{2 * i}.{part}" for i in (1, 2, 3) for part in ("reduction", "norm")},
        "norm": "norm",
        "head": "head",
    },
    has_position_buffers=True,
)


def _timm_swin(first_merging: int, head: str) -> NameTable:
    return NameTable(
        block=lambda stage, block: f"layers.{stage - 1}.blocks.{block - 1}.",
        in_block={
            **_TORCHVISION_SWIN.in_block,
            "attention/q_bias": "attn.q_bias",
            "attention/v_bias": "attn.v_bias",
            "mlp/fc1": "mlp.fc1",
            "mlp/fc2": "mlp.fc2",
        },
        outside={
            "patch_embedding": "patch_embed.proj",
            "patch_norm": "patch_embed.norm",
            **{
                f"merging{i + 1}/{part}": f"layers.{i + first_merging}.downsample.{part}"
                for i in range(3)
                for part in ("reduction", "norm")
            },
            "norm": "norm",
            "head": head,
        },
    )


# timm's names, then those of the authors' files, which timm also reads
_TIMM_SWIN = (_timm_swin(1, "head.fc"), _timm_swin(0, "head"))

_HUGGINGFACE_SWIN = NameTable(
    block=lambda stage, block: f"swinv2.encoder.layers.{stage - 1}.blocks.{block - 1}.",
    in_block={
        "attention/qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention/q_bias": "attention.self.query.bias",
        "attention/v_bias": "attention.self.value.bias",
        "attention/logit_scale": "attention.self.logit_scale",
        "attention/position_fc1": "attention.self.continuous_position_bias_mlp.0",
        "attention/position_fc2": "attention.self.continuous_position_bias_mlp.2",
        "attention/projection": "attention.output.dense",
        "norm1": "layernorm_before",
        "mlp/fc1": "intermediate.dense",
        "mlp/fc2": "output.dense",
        "norm2": "layernorm_after",
    },
    outside={
        "patch_embedding": "swinv2.embeddings.patch_embeddings.projection",
        "patch_norm": "swinv2.embeddings.norm",
        **{
            f"merging{i + 1}/{part}": f"swinv2.encoder.layers.{i}.downsample.{part}"
            for i in range(3)
            for part in ("reduction", "norm")
        },
        "norm": "swinv2.layernorm",
        "head": "classifier",
    },
)

# family -> source -> tables; the released code uses torchvision's networks for ImageNet
NAME_TABLES: dict[type[Classifier], dict[str, tuple[NameTable, ...]]] = {
    ResNet: {
        "torchvision": (_TORCHVISION_RESNET,),
        "timm": (_TORCHVISION_RESNET,),
        "huggingface": (_HUGGINGFACE_RESNET,),
        "anchoring": (_RELEASED_RESNET,),
    },
    WideResNet: {"anchoring": (_RELEASED_WIDE_RESNET,)},
    RegNetY: {
        "torchvision": (_TORCHVISION_REGNET,),
        "timm": (_TIMM_REGNET,),
        "huggingface": (_HUGGINGFACE_REGNET,),
        "anchoring": (_TORCHVISION_REGNET,),
    },
    ViT: {
        "torchvision": _TORCHVISION_VIT,
        "timm": (_TIMM_VIT,),
        "huggingface": _HUGGINGFACE_VIT,
        "anchoring": _TORCHVISION_VIT,
    },
    SwinV2: {
        "torchvision": (_TORCHVISION_SWIN,),
        "timm": _TIMM_SWIN,
        "huggingface": (_HUGGINGFACE_SWIN,),
        "anchoring": (_TORCHVISION_SWIN,),
    },
}
SOURCES = ("torchvision", "timm", "huggingface", "anchoring")
