"""Anchored training in plain PyTorch, as fast as a user could write it: eager, compiled, and as a CUDA graph."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from anchor_jax.config import Config
from benchmarks.pytorch.device import Builders, Steps, device, repeat, sgd
from benchmarks.pytorch.networks import ResNet18

NUM_CLASSES = 10


class Training(nn.Module):
    """A network and its training set on the device; each call draws a batch and returns its loss.

    Args:
      network: from `[B, C or 2C, H, W]` to logits.
      config: `data`, `augmentation`, `anchoring`, `model.dtype` and `training.batch_size` are used.
      images: uint8 `[N, H, W, C]`.
      labels: int32 `[N]`.
    """

    images: torch.Tensor
    labels: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, config: Config, images: np.ndarray, labels: np.ndarray):
        super().__init__()
        self.network = network
        self.batch_size = config.training.batch_size
        self.is_anchored = config.anchoring.enabled
        self.mask_prob = config.anchoring.mask_prob if self.is_anchored else 0.0
        self.use_bfloat16 = config.model.dtype == "bfloat16"
        self.padding = padding = config.augmentation.crop_padding
        self.side = images.shape[1]
        # buffers keep their address, so a CUDA graph reads them in place instead of copying the data at each step
        self.register_buffer("images", functional.pad(torch.from_numpy(images), (0, 0, *4 * (padding,))))
        self.register_buffer("labels", torch.from_numpy(labels).long())
        self.register_buffer("mean", torch.tensor(config.data.mean))
        self.register_buffer("std", torch.tensor(config.data.std))

    def forward(self) -> torch.Tensor:
        """Return the mean loss of a new random batch."""
        rows = self._randint(len(self.images), self.batch_size)
        mask = torch.rand((), device=self.images.device) < self.mask_prob
        inputs = self._normalize(self._augment(rows))
        if self.is_anchored:
            references = self._normalize(self._crop_center(self._randint(len(self.images), self.batch_size)))
            inputs = torch.cat([references.where(~mask, 0), inputs - references], dim=-1)
        return self.loss(inputs, self.labels[rows], mask)

    def loss(self, inputs: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy of inputs `[B, H, W, C or 2C]`, against uniform if the batch is masked."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.use_bfloat16):
            logits = self.network(inputs.permute(0, 3, 1, 2)).float()  # the permuted view is already channels-last
        uniform_loss = -functional.log_softmax(logits, dim=-1).mean()
        return torch.where(mask, uniform_loss, functional.cross_entropy(logits, labels))

    def _randint(self, bound, *shape):
        return torch.randint(bound, shape, device=self.images.device)

    def _augment(self, rows):
        """Return random crops and flips `[B, H, W, C]`, gathered from the padded images in one operation."""
        batch, pixels = len(rows), torch.arange(self.side, device=rows.device)
        flipped = self._randint(2, batch, 1).bool()
        y = pixels + self._randint(2 * self.padding + 1, batch, 1)
        x = torch.where(flipped, self.side - 1 - pixels, pixels) + self._randint(2 * self.padding + 1, batch, 1)
        return self.images[rows[:, None, None], y[:, :, None], x[:, None, :]]

    def _crop_center(self, rows):
        """Return the images without padding."""
        inner = slice(self.padding, self.padding + self.side)
        return self.images[:, inner, inner][rows]

    def _normalize(self, images):
        return (images.float() / 255 - self.mean) / self.std


def baselines(config: Config, width: int, images: np.ndarray, labels: np.ndarray) -> Builders:
    """Return the implementations to time: eager, and each way to compile that may be the fastest.

    "pytorch-graph" captures the complete step, including the update, in one CUDA graph, so that the host does nothing.
    """
    torch.compiler.reset()  # it refuses to compile the same code for more than eight networks
    build = partial(_baseline, config, width, images, labels)
    builders = {"pytorch-eager": build}
    if device().type == "cpu":
        return builders | {"pytorch-compiled": partial(build, mode="default")}
    return builders | {
        "pytorch-reduce-overhead": partial(build, mode="reduce-overhead"),
        "pytorch-max-autotune": partial(build, mode="max-autotune"),
        "pytorch-graph": partial(build, mode="max-autotune-no-cudagraphs", capture_step=True),
    }


def _baseline(config, width, images, labels, *, mode=None, capture_step=False) -> Steps:
    channels = images.shape[-1] * (1 + config.anchoring.enabled)
    network: Any = ResNet18(channels, NUM_CLASSES, width)  # PyTorch's type stubs lack memory formats
    network.to(memory_format=torch.channels_last)
    training = Training(network, config, images, labels).to(device())
    optimizer = sgd(training, config, fused=True)
    loss: Callable[[], torch.Tensor] = torch.compile(training, mode=mode) if mode else training

    def step():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    graph = cache(partial(_capture, step))
    return repeat((lambda: graph().replay()) if capture_step else step)


def _capture(step: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """Return the CUDA graph of a step, after warm-up steps on a side stream as PyTorch's CUDA notes require."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph
