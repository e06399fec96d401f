"""The PyTorch side of `models.py`: networks of torchvision and timm, as their users run them."""

import importlib
from typing import Any

import numpy as np
import torch
import with_torchvision  # noqa: F401
from pytorch import ResNet18, Steps, Training, _repeated, _sgd, device, peak_memory  # noqa: F401, of models.py
from torch import nn

from anchor_jax.config import Config

# our name -> theirs
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
NAMES = ("resnet18", "deit_s16", *TORCHVISION)  # those that have a counterpart


def network(name: str, channels: int, num_classes: int, image_size: int) -> nn.Module:
    """The counterpart of one of ours, on the CPU: `[B, channels, H, W]` -> logits `[B, num_classes]`.

    Raises:
      ImportError: torchvision or timm is not installed.
    """
    if name == "resnet18":
        return ResNet18(channels, num_classes, width=64)
    if name == "deit_s16":
        made = importlib.import_module("timm").create_model(
            "deit_small_patch16_224", num_classes=num_classes, img_size=image_size, drop_path_rate=0.1
        )
    else:
        sizes = {"image_size": image_size} if name == "vit_b16" else {}
        torchvision = importlib.import_module("torchvision")
        made = torchvision.models.get_model(TORCHVISION[name], num_classes=num_classes, **sizes)
    return _widened(made, channels)


def _widened(network, channels):
    """With a first layer that takes so many channels."""
    name, first = next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    sizes: Any = (first.kernel_size, first.stride, first.padding)
    network.set_submodule(name, nn.Conv2d(channels, first.out_channels, *sizes, bias=first.bias is not None))
    return network


class Forward(nn.Module):
    """The forward pass of evaluation, with one reference an image, drawn from the batch."""

    x: torch.Tensor  # normalised, float32 [B, H, W, C]

    def __init__(self, network: nn.Module, config: Config, x: torch.Tensor):
        super().__init__()
        self.network = network
        self.is_anchored = config.anchoring.enabled
        self.in_bfloat16 = config.model.dtype == "bfloat16"
        self.register_buffer("x", x)

    def forward(self) -> torch.Tensor:
        """Logits."""
        inputs = self.x
        if self.is_anchored:
            references = inputs[torch.randint(len(inputs), (len(inputs),), device=inputs.device)]
            inputs = torch.cat([references, inputs - references], dim=-1)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            return self.network(inputs.permute(0, 3, 1, 2))  # the view is channels-last as it stands


def forward(network: nn.Module, config: Config, x: np.ndarray, *, is_compiled: bool) -> Steps:
    """Forward passes of normalised images, float32 `[B, H, W, C]`."""
    module = Forward(_channels_last(network), config, torch.from_numpy(x)).to(device()).eval()
    return _repeated(torch.inference_mode()(_compiled(module, is_compiled)))


def training(network: nn.Module, config: Config, images: np.ndarray, labels: np.ndarray, *, is_compiled: bool) -> Steps:
    """Steps of training on a data set on the device: uint8 images `[N, H, W, C]`, int32 labels `[N]`."""
    module = Training(_channels_last(network), config, images, labels).to(device())
    optimizer, loss = _sgd(module, config, fused=True), _compiled(module, is_compiled)

    def step():
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()  # at the end, so that no gradient is held between steps

    return _repeated(step)


def _channels_last(network):
    return network.to(memory_format=torch.channels_last)


def _compiled(module, is_compiled):
    torch.compiler.reset()  # it refuses to compile the same lines for more than eight networks
    return torch.compile(module) if is_compiled else module
