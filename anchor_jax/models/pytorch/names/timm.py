"""Names of tensors in timm's networks."""

from anchor_jax.models.pytorch.names import torchvision
from anchor_jax.models.pytorch.names.table import NameTable

RESNET = torchvision.RESNET

REGNET = NameTable(
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

VIT = NameTable(
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


def _swin(first_merging: int, head: str) -> NameTable:
    return NameTable(
        block=lambda stage, block: f"layers.{stage - 1}.blocks.{block - 1}.",
        in_block={
            **torchvision.SWIN.in_block,
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
SWIN = (_swin(1, "head.fc"), _swin(0, "head"))
