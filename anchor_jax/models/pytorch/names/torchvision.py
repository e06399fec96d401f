"""Names of tensors in torchvision's networks, which the released code uses for ImageNet."""

from anchor_jax.models.pytorch.names.table import NameTable, QKVSlice

RESNET = NameTable(
    block=lambda stage, block: f"layer{stage}.{block - 1}.",
    in_block={
        **{f"{part}{i}": f"{part}{i}" for part in ("conv", "bn") for i in (1, 2, 3)},
        "shortcut_conv": "downsample.0",
        "shortcut_bn": "downsample.1",
    },
    outside={"stem_conv": "conv1", "stem_bn": "bn1", "head": "fc"},
)

REGNET = NameTable(
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


def _vit(fc1: str, fc2: str) -> NameTable:
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
VIT = (_vit("0", "3"), _vit("linear_1", "linear_2"))

SWIN = NameTable(
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
