"""PyTorch networks with the architectures of `anchor_jax.models`."""

import importlib
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.pytorch.torchvision_import import import_torchvision

# name in anchor_jax -> name in torchvision
TORCHVISION = {
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "regnet_y_800mf": "regnet_y_800mf",
    "regnet_y_1_6gf": "regnet_y_1_6gf",
    "vit_b16": "vit_b_16",
    "swin_v2_t": "swin_v2_t",
    "swin_v2_s": "swin_v2_s",
    "swin_v2_b": "swin_v2_b",
}
NAMES = ("resnet18", "deit_s16", *TORCHVISION)  # the models that have a counterpart


def create(name: str, channels: int, num_classes: int, image_size: int) -> nn.Module:
    """Create the counterpart of a model, on the CPU.

    Args:
      name: one of `NAMES`.
      channels: of the inputs.
      num_classes: number of logits.
      image_size: height and width in pixels.

    Returns:
      A network from `[B, channels, H, W]` to logits `[B, num_classes]`.

    Raises:
      ImportError: torchvision or timm is not installed.
    """
    if name == "resnet18":
        return ResNet18(channels, num_classes, width=64)
    if name == "deit_s16":
        network = importlib.import_module("timm").create_model(
            "deit_small_patch16_224", num_classes=num_classes, img_size=image_size, drop_path_rate=0.1
        )
    else:
        sizes = {"image_size": image_size} if name == "vit_b16" else {}
        network = import_torchvision().models.get_model(TORCHVISION[name], num_classes=num_classes, **sizes)
    return _with_channels(network, channels)


def _with_channels(network, channels):
    """Replace the first convolution by one with `channels` input channels."""
    name, first = next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    sizes: Any = (first.kernel_size, first.stride, first.padding)
    network.set_submodule(name, nn.Conv2d(channels, first.out_channels, *sizes, bias=first.bias is not None))
    return network


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, with a 1×1 convolution if the shape changes."""

    def __init__(self, channels: int, features: int, stride: int):
        super().__init__()
        self.conv1 = _conv(channels, features, 3, stride)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = _conv(features, features, 3)
        self.bn2 = nn.BatchNorm2d(features)
        self.shortcut = nn.Sequential()
        if channels != features:
            self.shortcut.add_module("conv", _conv(channels, features, 1, stride))
            self.shortcut.add_module("bn", nn.BatchNorm2d(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `[B, channels, H, W]` to `[B, features, H/stride, W/stride]`."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)


class ResNet18(nn.Module):
    """The ResNet-18 of `anchor_jax.models` with the stem for CIFAR; its layers have the same names."""

    def __init__(self, channels: int, num_classes: int, width: int):
        super().__init__()
        self.stem_conv = _conv(channels, width, 3)
        self.stem_bn = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential()
        features = width
        for stage in range(4):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                module = BasicBlock(features, width * 2**stage, stride)
                self.blocks.add_module(f"stage{stage + 1}_block{block + 1}", module)
                features = width * 2**stage
        self.head = nn.Linear(features, num_classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map `[B, channels, H, W]` to logits `[B, num_classes]`."""
        x = functional.relu(self.stem_bn(self.stem_conv(inputs)), inplace=True)
        return self.head(self.blocks(x).mean((2, 3)))


def _conv(channels, features, size, stride=1):
    return nn.Conv2d(channels, features, size, stride, padding=size // 2, bias=False)
