"""K-reference prediction in plain PyTorch, as fast as a user could write it: eager, compiled, and as a CUDA graph."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from anchor_jax.config import Config
from benchmarks.pytorch.device import Steps, device, repeat
from benchmarks.pytorch.networks import ResNet18

NUM_CLASSES = 10


class Prediction(nn.Module):
    """Mean and variance of the predictions over K references, computed for one reference at a time.

    Args:
      network: from `[B, 2C, H, W]` to logits.
      config: its section `data` is used.
      references: uint8 `[K, H, W, C]`.
      mode: of `torch.compile`, for one reference; None compiles nothing.
    """

    references: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, config: Config, references: np.ndarray, mode: str | None):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(config.data.mean))
        self.register_buffer("std", torch.tensor(config.data.std))
        self.register_buffer("references", self._normalize(torch.from_numpy(references)))
        torch.compiler.reset()
        self._probs: Callable[..., torch.Tensor] = torch.compile(self._probs_of, mode=mode) if mode else self._probs_of

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map images, uint8 `[B, H, W, C]`, to the mean and variance of the probabilities, `[B, classes]` each."""
        x = self._normalize(images)
        total = squares = torch.zeros((), device=x.device)
        for reference in self.references:
            probs = self._probs(x, reference)
            total, squares = total + probs, squares + probs.square()
        mean = total / len(self.references)
        return mean, squares / len(self.references) - mean.square()

    def _probs_of(self, x, reference):
        inputs = torch.cat([reference.expand_as(x), x - reference], dim=-1)
        return self.network(inputs.permute(0, 3, 1, 2)).softmax(-1)  # the permuted view is already channels-last

    def _normalize(self, images):
        return (images.float() / 255 - self.mean) / self.std


def names() -> tuple[str, ...]:
    """Return the implementations that this device has."""
    strongest = "pytorch-graph" if device().type == "cuda" else "pytorch-compiled"
    return ("pytorch-eager", strongest)


def prediction(name: str, width: int, config: Config, images: np.ndarray, references: np.ndarray) -> Steps:
    """Return predictions of images of the host, uint8 `[B, H, W, C]`, with references, uint8 `[K, H, W, C]`.

    Args:
      name: one of `names`.
      width: of the ResNet-18.
      config: its section `data` is used.
      images: of each batch; they are copied to the device every time.
      references: of all batches.
    """
    mode = {"pytorch-eager": None, "pytorch-graph": "max-autotune-no-cudagraphs"}.get(name, "default")
    network: Any = ResNet18(2 * images.shape[-1], NUM_CLASSES, width)  # PyTorch's type stubs lack memory formats
    network.to(memory_format=torch.channels_last)
    module = Prediction(network, config, references, mode).to(device()).eval()
    host = torch.from_numpy(images)
    if device().type == "cuda":
        host = host.pin_memory()
    batch = torch.empty_like(host, device=device())
    predict = _captured(module, batch) if name == "pytorch-graph" else lambda: module(batch)

    @torch.inference_mode()
    def step():
        batch.copy_(host, non_blocking=True)
        predict()

    return repeat(step)


@torch.inference_mode()
def _captured(module: nn.Module, batch: torch.Tensor) -> Callable[[], object]:
    """Return the replay of the CUDA graph of a prediction, after warm-up as PyTorch's CUDA notes require."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            module(batch)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        module(batch)
    return graph.replay
