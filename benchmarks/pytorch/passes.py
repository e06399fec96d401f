"""One forward pass or training step of a network, as users of torchvision and timm run it."""

import numpy as np
import torch
from torch import nn

from anchor_jax.config import Config
from benchmarks.pytorch.device import Steps, device, repeat, sgd
from benchmarks.pytorch.training import Training


class Forward(nn.Module):
    """The forward pass of evaluation, with one reference per image, drawn from the batch."""

    x: torch.Tensor  # normalized, float32 [B, H, W, C]

    def __init__(self, network: nn.Module, config: Config, x: torch.Tensor):
        super().__init__()
        self.network = network
        self.is_anchored = config.anchoring.enabled
        self.use_bfloat16 = config.model.dtype == "bfloat16"
        self.register_buffer("x", x)

    def forward(self) -> torch.Tensor:
        """Return the logits."""
        inputs = self.x
        if self.is_anchored:
            references = inputs[torch.randint(len(inputs), (len(inputs),), device=inputs.device)]
            inputs = torch.cat([references, inputs - references], dim=-1)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.use_bfloat16):
            return self.network(inputs.permute(0, 3, 1, 2))  # the permuted view is already channels-last


def forward(network: nn.Module, config: Config, x: np.ndarray, *, is_compiled: bool) -> Steps:
    """Return forward passes of normalized images, float32 `[B, H, W, C]`."""
    module = Forward(_channels_last(network), config, torch.from_numpy(x)).to(device()).eval()
    return repeat(torch.inference_mode()(_maybe_compile(module, is_compiled)))


def training(network: nn.Module, config: Config, images: np.ndarray, labels: np.ndarray, *, is_compiled: bool) -> Steps:
    """Return training steps on a dataset on the device: uint8 images `[N, H, W, C]`, int32 labels `[N]`."""
    module = Training(_channels_last(network), config, images, labels).to(device())
    optimizer, loss = sgd(module, config, fused=True), _maybe_compile(module, is_compiled)

    def step():
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()  # at the end, so that no gradients are kept between steps

    return repeat(step)


def _channels_last(network):
    return network.to(memory_format=torch.channels_last)


def _maybe_compile(module, is_compiled):
    torch.compiler.reset()  # it refuses to compile the same code for more than eight networks
    return torch.compile(module) if is_compiled else module
