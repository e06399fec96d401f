"""Names of tensors in the networks of transformers.

A network "...ForImageClassification" keeps its features in a module such as "vit"; a file of "ViTModel" has the same
names without that prefix, and no head.
"""

from functools import partial

from anchor_jax.models.pytorch.names.table import NameTable


def _and_features(*tables: NameTable) -> tuple[NameTable, ...]:
    """Return these tables, then those of the networks without heads."""
    return (*tables, *(table._replace(features="") for table in tables))


_RESNET = NameTable(
    features="resnet.",
    block=lambda stage, block: f"encoder.stages.{stage - 1}.layers.{block - 1}.",
    in_block={
        **{f"conv{i + 1}": f"layer.{i}.convolution" for i in range(3)},
        **{f"bn{i + 1}": f"layer.{i}.normalization" for i in range(3)},
        "shortcut_conv": "shortcut.convolution",
        "shortcut_bn": "shortcut.normalization",
    },
    outside={
        "stem_conv": "embedder.embedder.convolution",
        "stem_bn": "embedder.embedder.normalization",
        "head": "classifier.1",
    },
)

_REGNET = NameTable(
    features="regnet.",
    block=_RESNET.block,
    in_block={
        **{f"conv{i}": f"layer.{index}.convolution" for i, index in ((1, 0), (2, 1), (3, 3))},
        **{f"bn{i}": f"layer.{index}.normalization" for i, index in ((1, 0), (2, 1), (3, 3))},
        "squeeze": "layer.2.attention.0",
        "excite": "layer.2.attention.2",
        "shortcut_conv": "shortcut.convolution",
        "shortcut_bn": "shortcut.normalization",
    },
    outside=_RESNET.outside,
)


def _vit(model: str, *, layer: str, qkv: tuple[str, str, str], projection: str, mlp: tuple[str, str]) -> NameTable:
    return NameTable(
        features=f"{model}.",
        block=lambda _, block: f"{layer}.{block - 1}.",
        in_block={
            "norm1": "layernorm_before",
            "attention/qkv": qkv,
            "attention/projection": projection,
            "norm2": "layernorm_after",
            "mlp/fc1": mlp[0],
            "mlp/fc2": mlp[1],
        },
        outside={
            "patch_embedding": "embeddings.patch_embeddings.projection",
            "class_token": "embeddings.cls_token",
            "position_embedding": "embeddings.position_embeddings",
            "norm": "layernorm",
            "head": "classifier",
            **({"distillation_token": "embeddings.distillation_token"} if model == "deit" else {}),
        },
    )


_vit_5 = partial(  # transformers since version 5
    _vit,
    layer="layers",
    qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    projection="attention.o_proj",
    mlp=("mlp.fc1", "mlp.fc2"),
)
_vit_4 = partial(  # before version 5, and in most published files
    _vit,
    layer="encoder.layer",
    qkv=("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    projection="attention.output.dense",
    mlp=("intermediate.dense", "output.dense"),
)

_SWIN = NameTable(
    features="swinv2.",
    block=lambda stage, block: f"encoder.layers.{stage - 1}.blocks.{block - 1}.",
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
        "patch_embedding": "embeddings.patch_embeddings.projection",
        "patch_norm": "embeddings.norm",
        **{
            f"merging{i + 1}/{part}": f"encoder.layers.{i}.downsample.{part}"
            for i in range(3)
            for part in ("reduction", "norm")
        },
        "norm": "layernorm",
        "head": "classifier",
    },
)

RESNET = _and_features(_RESNET)
REGNET = _and_features(_REGNET)
# transformers' DeiT always has a distillation token; DeiT without one is published as a ViT
VIT = _and_features(_vit_5("vit"), _vit_5("deit"), _vit_4("vit"), _vit_4("deit"))
SWIN = _and_features(_SWIN)
