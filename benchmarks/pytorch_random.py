"""PyTorch networks with random weights and statistics, and what they answer."""

import numpy as np
import torch
import with_torchvision  # noqa: F401
from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttentionV2


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """A network for evaluation none of whose weights and statistics is at its first value."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            scale = 0.5 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.2
            parameter += scale * torch.randn_like(parameter)
            if name.endswith("logit_scale"):
                parameter += 3 * torch.rand_like(parameter)  # some beyond the largest allowed
        for module in network.modules():
            if (
                isinstance(module, nn.BatchNorm2d)
                and module.running_mean is not None
                and module.running_var is not None
            ):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
            if isinstance(module, ShiftedWindowAttentionV2):
                module.qkv.bias[len(module.qkv.bias) // 3 : 2 * len(module.qkv.bias) // 3] = 0  # as in its forward pass
    return network.eval()


def logits_of(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """Logits of images, float32 `[B, H, W, C]`."""
    with torch.no_grad():
        outputs = network(torch.tensor(images).permute(0, 3, 1, 2))
    return getattr(outputs, "logits", outputs).numpy()
