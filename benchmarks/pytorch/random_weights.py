"""PyTorch networks with random weights and statistics, and their logits."""

from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.pytorch.torchvision_import import import_torchvision

ShiftedWindowAttentionV2: Any = import_torchvision().models.swin_transformer.ShiftedWindowAttentionV2


def randomize_weights(network: nn.Module, seed: int = 0) -> nn.Module:
    """Move all weights and statistics of a network away from their initial values, in place; return it in eval mode."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            scale = 0.5 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.2
            parameter += scale * torch.randn_like(parameter)
            if name.endswith("logit_scale"):
                parameter += 3 * torch.rand_like(parameter)  # some exceed the largest scale, and are clipped
        for module in network.modules():
            if (
                isinstance(module, nn.BatchNorm2d)
                and module.running_mean is not None
                and module.running_var is not None
            ):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
            if isinstance(module, ShiftedWindowAttentionV2):
                qkv: Any = module.qkv
                bias = qkv.bias
                bias[len(bias) // 3 : 2 * len(bias) // 3] = 0  # of the keys, which the forward pass ignores
    return network.eval()


def logits_of(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """Return the logits of images, float32 `[B, H, W, C]`."""
    with torch.no_grad():
        outputs = network(torch.tensor(images).permute(0, 3, 1, 2))
    return getattr(outputs, "logits", outputs).numpy()
