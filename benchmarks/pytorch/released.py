"""The released implementation of anchoring, LLNL/anchoring, run as it was released."""

import importlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from anchor_jax.config import Config
from anchor_jax.core.errors import UserError
from benchmarks.pytorch import check_clone
from benchmarks.pytorch.device import Builders, Steps, device, repeat, sgd
from benchmarks.pytorch.torchvision_import import import_torchvision

NUM_CLASSES = 10
WIDTH = 64  # the only width of the released ResNet-18
FORMATS = {"released-nchw": torch.contiguous_format, "released-channels-last": torch.channels_last}


class Released(NamedTuple):
    """The modules of LLNL/anchoring that the benchmarks call."""

    wrapper: ModuleType
    models: ModuleType

    @classmethod
    def load(cls, folder: Path, width: int) -> "Released":
        """Import the modules from a clone.

        Args:
          folder: of the clone.
          width: of the ResNet-18 to compare with.

        Raises:
          UserError: the folder is not a clone, torchvision is missing, or the width differs from the released one.
        """
        check_clone(folder)
        if width != WIDTH:
            raise UserError(f"--official needs --width={WIDTH}, that of the released ResNet-18; got {width}")
        _torchvision()
        sys.path.insert(0, str(folder / "CIFAR"))
        return cls(importlib.import_module("wrapper"), importlib.import_module("utils.models"))

    def network(self) -> nn.Module:
        """Return the ResNet-18 with the first layer that `CIFAR/train.py` gives it."""
        network = self.models.ResNet18(nc=3, num_classes=NUM_CLASSES)
        network.conv1 = nn.Conv2d(6, WIDTH, kernel_size=3, stride=1, padding=1, bias=False)
        return network


def training(code: Released, config: Config, images: np.ndarray, labels: np.ndarray) -> Builders:
    """Return the implementations that train as `CIFAR/train.py` does, in float32.

    "released-loader" includes the data loaders; the others reuse a batch that is already on the device.
    """
    build = partial(_training, code, config)
    builders = {
        name: partial(build, _repeat_batch(config, images, labels, memory_format), memory_format)
        for name, memory_format in FORMATS.items()
    }
    return builders | {
        "released-loader": lambda: build(_loaded_batches(config, images, labels), torch.contiguous_format)
    }


def _training(code, config, batches, memory_format) -> Steps:
    net = code.wrapper.AnchoringWrapper(code.network(), crop=0, imsize=32)
    net = net.to(device(), memory_format=memory_format)
    if device().type == "cuda":
        net = nn.DataParallel(net, device_ids=[0])  # as in the released script, on one GPU
    net.train()
    criterion, optimizer = nn.CrossEntropyLoss(), sgd(net, config)

    def step():
        inputs, targets, anchors = (tensor.to(device()) for tensor in next(batches))
        optimizer.zero_grad()
        corrupt = bool(torch.bernoulli(torch.tensor(config.anchoring.mask_prob)) == 1)
        outputs = net(inputs, anchors=anchors, corrupt=corrupt)
        loss = criterion(outputs, targets)
        loss.backward()
        optimizer.step()
        loss.item()
        outputs.max(1)[1].eq(targets).sum().item()

    return repeat(step)


def prediction(code: Released, name: str, config: Config, images: np.ndarray, references: np.ndarray) -> Steps:
    """Return K-reference prediction as in `CIFAR/inference.py`, of inputs that are already on the device.

    Args:
      code: the released modules.
      name: a key of `FORMATS`.
      config: its normalization is used.
      images: uint8 `[B, H, W, C]`.
      references: uint8 `[K, H, W, C]`.
    """
    memory_format = FORMATS[name]
    net = code.wrapper.AnchoringWrapperInference(code.network())
    net = net.to(device(), memory_format=memory_format).eval()
    inputs, anchors = (_normalize(array, config, memory_format) for array in (images, references))

    @torch.inference_mode()
    def step():
        net(inputs, anchors=anchors, n_anchors=len(anchors), return_std=len(anchors) > 1)

    return repeat(step)


def _repeat_batch(config, images, labels, memory_format) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield the same inputs, targets and anchors at each step, on the device."""
    num = config.training.batch_size
    inputs, anchors = (_normalize(array, config, memory_format) for array in (images[:num], images[-num:]))
    targets = torch.from_numpy(labels[:num]).long().to(device())
    while True:
        yield inputs, targets, anchors


def _normalize(images, config, memory_format=torch.contiguous_format) -> torch.Tensor:
    """Return uint8 images `[B, H, W, C]` normalized as `[B, C, H, W]` on the device."""
    mean, std = torch.tensor(config.data.mean), torch.tensor(config.data.std)
    normalized = (torch.from_numpy(images) / 255 - mean) / std
    return normalized.permute(0, 3, 1, 2).to(device()).contiguous(memory_format=memory_format)


def _loaded_batches(config, images, labels) -> Iterator[tuple[torch.Tensor, ...]]:
    train = _loader(ReleasedData(config, images, labels, augmented=True), config.training.batch_size)
    anchors = _loader(ReleasedData(config, images, labels, augmented=False), config.training.batch_size)
    for (inputs, targets), (references, _) in zip(train, anchors, strict=False):
        yield inputs, targets, references


def _loader(dataset, batch_size) -> Iterator[Any]:
    # as in the released script, except that the workers persist, and are spawned: JAX has threads, and a fork of a
    # process with threads may deadlock
    loader = DataLoader(
        dataset, batch_size, shuffle=True, num_workers=2, multiprocessing_context="spawn", persistent_workers=True
    )
    while True:
        yield from loader


class ReleasedData(Dataset):
    """The dataset of `CIFAR/train.py` on images in memory; each worker recreates it from its arguments."""

    def __init__(self, config: Config, images: np.ndarray, labels: np.ndarray, augmented: bool):
        self._arguments = (config, images, labels, augmented)
        torchvision = _torchvision()
        transforms = torchvision.transforms
        augmentation = [transforms.RandomCrop(images.shape[1], padding=4), transforms.RandomHorizontalFlip()]
        normalization = [transforms.ToTensor(), transforms.Normalize(config.data.mean, config.data.std)]
        self._cifar = torchvision.datasets.CIFAR10.__new__(torchvision.datasets.CIFAR10)
        self._cifar.data, self._cifar.targets, self._cifar.train = images, labels.tolist(), True
        self._cifar.transform = transforms.Compose(augmentation * augmented + normalization)
        self._cifar.target_transform = None

    def __reduce__(self):
        return type(self), self._arguments

    def __len__(self) -> int:
        return len(self._cifar)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._cifar[index]


def _torchvision() -> ModuleType:
    try:
        return import_torchvision()
    except ModuleNotFoundError:
        raise UserError("--official needs torchvision: pip install torchvision") from None
