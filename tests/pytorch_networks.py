"""Small PyTorch networks of other packages with random weights, each with the equivalent model of this package."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import timm
import torch
import transformers as hf
from timm.models.swin_transformer_v2 import SwinTransformerV2 as TimmSwin
from torch import nn
from torchvision.models import regnet, resnet, swin_transformer, vision_transformer

from benchmarks.pytorch.random_weights import randomize_weights

NUM_CLASSES = 5


class NetworkCase(NamedTuple):
    """A PyTorch network and the equivalent model."""

    name: str
    source: str
    options: Mapping[str, Any]
    side: int  # of its images
    build: Callable[[], nn.Module]
    channels: int = 3
    # substrings of its names -> what the source has instead
    renamings: tuple[tuple[str, str], ...] = ()

    def to_source_names(self, state_dict):
        """Rename the tensors of the network as the source does."""
        return rename(state_dict, self.renamings)

    def to_own_names(self, state_dict):
        """Invert `to_source_names`."""
        return rename(state_dict, [(new, old) for old, new in self.renamings])


def rename(state_dict, renamings):
    """Replace substrings of all names, one renaming after the other."""
    for old, new in renamings:
        state_dict = {name.replace(old, new): tensor for name, tensor in state_dict.items()}
    return state_dict


class PreActivationBlock(nn.Module):
    def __init__(self, channels, width, stride, dropout):
        super().__init__()
        self.dropout = dropout
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.convShortcut = nn.Conv2d(channels, width, 1, stride, bias=False) if channels != width else None

    def forward(self, x):
        activated = torch.relu(self.bn1(x))
        y = torch.relu(self.bn2(self.conv1(activated)))
        y = self.conv2(nn.functional.dropout(y, self.dropout, self.training) if self.dropout else y)
        return y + (x if self.convShortcut is None else self.convShortcut(activated))


class WideResNet(nn.Module):
    """The Wide ResNet of the released code, whose names no package has."""

    def __init__(self, depth, widen, dropout=0.0):
        super().__init__()
        self.conv1 = nn.Conv2d(6, 16, 3, 1, 1, bias=False)
        before = 16
        for stage in range(3):
            blocks = []
            for block in range((depth - 4) // 6):
                width = 16 * widen * 2**stage
                blocks.append(PreActivationBlock(before, width, 2 if stage and not block else 1, dropout))
                before = width
            setattr(self, f"block{stage + 1}", nn.ModuleDict({"layer": nn.Sequential(*blocks)}))
        self.bn1 = nn.BatchNorm2d(before)
        self.fc = nn.Linear(before, NUM_CLASSES)

    def forward(self, x):
        x = self.conv1(x)
        for stage in (self.block1, self.block2, self.block3):
            x = stage["layer"](x)
        return self.fc(torch.relu(self.bn1(x)).mean((2, 3)))


def cifar_resnet():
    """Return torchvision's ResNet with the CIFAR stem of the released code, for anchored images."""
    network = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], NUM_CLASSES)
    network.conv1, network.maxpool = nn.Conv2d(6, 64, 3, 1, 1, bias=False), nn.Identity()
    return network


def torchvision_regnet():
    blocks = regnet.BlockParams([1, 2], [8, 16], [4, 4], [1.0, 1.0], [2, 2], se_ratio=0.25)
    return regnet.RegNet(blocks, NUM_CLASSES, stem_width=8)


def torchvision_vit(side=32, patch_size=8):
    return vision_transformer.VisionTransformer(side, patch_size, 2, 2, 16, 64, num_classes=NUM_CLASSES)


def torchvision_swin():
    return swin_transformer.SwinTransformer(
        [2, 2],
        16,
        [2, 2],
        [2, 4],
        [4, 4],
        num_classes=NUM_CLASSES,
        block=swin_transformer.SwinTransformerBlockV2,
        downsample_layer=swin_transformer.PatchMergingV2,
    )


def huggingface_resnet(**options):
    return hf.ResNetForImageClassification(
        hf.ResNetConfig(embedding_size=8, depths=[1, 2], num_labels=NUM_CLASSES, **options)
    )


def huggingface_regnet():
    config = hf.RegNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 2],
        groups_width=4,
        layer_type="y",
        num_labels=NUM_CLASSES,
    )
    return hf.RegNetForImageClassification(config)


def huggingface_vit(config, network):
    return network(
        config(
            image_size=32,
            patch_size=8,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            layer_norm_eps=1e-6,
            num_labels=NUM_CLASSES,
        )
    )


def huggingface_swin():
    config = hf.Swinv2Config(
        image_size=32,
        patch_size=2,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
        num_labels=NUM_CLASSES,
    )
    return hf.Swinv2ForImageClassification(config)


ONE_EACH = {"stage_sizes": (1, 1, 1, 1), "stem": "imagenet"}
RESNET = {"stage_sizes": (1, 2), "width": 8, "stem": "imagenet"}
REGNET = {"stage_sizes": (1, 2), "widths": (8, 16), "group_width": 4, "stem_width": 8}
VIT = {"patch_size": 8, "width": 16, "depth": 2, "num_heads": 2}
SWIN = {"patch_size": 2, "width": 16, "stage_sizes": (2, 2), "num_heads": (2, 4), "window": 4}

NETWORKS = {
    "torchvision's ResNet": NetworkCase(
        "resnet50",
        "torchvision",
        ONE_EACH,
        32,
        lambda: resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], NUM_CLASSES),
    ),
    "timm's ResNet": NetworkCase(
        "resnet18",
        "timm",
        ONE_EACH,
        32,
        lambda: timm.create_model("resnet18", layers=(1, 1, 1, 1), num_classes=NUM_CLASSES),
    ),
    "Hugging Face's ResNet, basic": NetworkCase(
        "resnet18", "huggingface", RESNET, 32, lambda: huggingface_resnet(hidden_sizes=[8, 16], layer_type="basic")
    ),
    "Hugging Face's ResNet, bottleneck": NetworkCase(
        "resnet50", "huggingface", RESNET, 32, lambda: huggingface_resnet(hidden_sizes=[32, 64])
    ),
    "the released ResNet": NetworkCase(
        "resnet18",
        "anchoring",
        {"stage_sizes": (1, 1, 1, 1)},
        16,
        cifar_resnet,
        channels=6,
        renamings=(("downsample", "shortcut"), ("fc.", "linear.")),
    ),
    "the released Wide ResNet": NetworkCase(
        "wrn40_2", "anchoring", {"depth": 16, "widen": 1}, 16, lambda: WideResNet(16, 1), channels=6
    ),
    "torchvision's RegNet": NetworkCase("regnet_y_800mf", "torchvision", REGNET, 32, torchvision_regnet),
    "timm's RegNet": NetworkCase(
        "regnet_y_1_6gf",
        "timm",
        {"stage_sizes": (1, 1, 2, 1), "widths": (8, 16, 32, 64), "group_width": 8},
        32,
        lambda: timm.create_model("regnety_016", depth=5, w0=8, wa=10.0, wm=2.0, group_size=8, num_classes=NUM_CLASSES),
    ),
    "Hugging Face's RegNet": NetworkCase("regnet_y_800mf", "huggingface", REGNET, 32, huggingface_regnet),
    "torchvision's ViT": NetworkCase("vit_b16", "torchvision", VIT, 32, torchvision_vit),
    "timm's DeiT": NetworkCase(
        "deit_s16",
        "timm",
        VIT,
        32,
        lambda: timm.create_model(
            "deit_small_patch16_224",
            img_size=32,
            patch_size=8,
            embed_dim=16,
            depth=2,
            num_heads=2,
            num_classes=NUM_CLASSES,
        ),
    ),
    "Hugging Face's ViT": NetworkCase(
        "vit_b16", "huggingface", VIT, 32, lambda: huggingface_vit(hf.ViTConfig, hf.ViTForImageClassification)
    ),
    "Hugging Face's DeiT": NetworkCase(
        "deit_s16",
        "huggingface",
        VIT | {"distillation_token": True},
        32,
        lambda: huggingface_vit(hf.DeiTConfig, hf.DeiTForImageClassification),
    ),
    "torchvision's Swin": NetworkCase("swin_v2_t", "torchvision", SWIN, 32, torchvision_swin),
    "timm's Swin": NetworkCase(
        "swin_v2_t",
        "timm",
        SWIN | {"pretrained_window": 6},
        32,
        lambda: TimmSwin(
            32,
            2,
            num_classes=NUM_CLASSES,
            embed_dim=16,
            depths=(2, 2),
            num_heads=(2, 4),
            window_size=4,
            pretrained_window_sizes=(6, 6),
        ),
    ),
    "Hugging Face's Swin": NetworkCase("swin_v2_s", "huggingface", SWIN, 32, huggingface_swin),
}


@functools.cache
def build_network(case):
    """Return the network of a case. It is shared by all tests, which must not modify it."""
    return randomize_weights(NETWORKS[case].build())
