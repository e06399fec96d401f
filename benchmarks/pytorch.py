"""The PyTorch side: the released implementation of anchoring, and the strongest one that a user could write.

What trains is `Steps`, a function that does so many steps and returns when the device has done them. Both sides may
use TF32 for float32 on a GPU: XLA does by default, and so PyTorch is told to.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from timing import peak_host_memory
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from anchor_jax.config import Config
from anchor_jax.core.errors import UserError

Steps = Callable[[int], None]
Builders = Mapping[str, Callable[[], Steps]]

NUM_CLASSES = 10
RELEASED_WIDTH = 64  # its ResNet-18 knows no other
RELEASED_FORMATS = {"released-nchw": torch.contiguous_format, "released-channels-last": torch.channels_last}


@cache
def device() -> torch.device:
    """The device that JAX runs on, with PyTorch set up to be fast there."""
    platform = jax.default_backend()
    if platform == "cpu":
        return torch.device("cpu")
    if platform != "gpu" or not torch.cuda.is_available():
        raise UserError(
            f"JAX runs on {platform}, which this PyTorch {torch.__version__} does not see; install a build for it, or "
            "compare on the CPU with JAX_PLATFORMS=cpu"
        )
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda", 0)


def peak_memory(run: Callable[[], object]) -> int:
    """Bytes that a call holds at its peak, beyond what was held before it: of the GPU, else of the host."""
    if device().type == "cpu":
        return peak_host_memory(run)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - held


# The baseline


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, projected by a 1×1 convolution where the shape changes."""

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
        """`[B, channels, H, W]` -> `[B, features, H/stride, W/stride]`."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)


class ResNet18(nn.Module):
    """The network of `anchor_jax.models`, whose names its layers have: `[B, C, H, W]` -> logits."""

    def __init__(self, channels: int, num_classes: int, width: int):
        super().__init__()
        self.stem_conv = _conv(channels, width, 3)
        self.stem_bn = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential()
        features = width
        for stage in range(4):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                made = BasicBlock(features, width * 2**stage, stride)
                self.blocks.add_module(f"stage{stage + 1}_block{block + 1}", made)
                features = width * 2**stage
        self.head = nn.Linear(features, num_classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits `[B, num_classes]`."""
        x = functional.relu(self.stem_bn(self.stem_conv(inputs)), inplace=True)
        return self.head(self.blocks(x).mean((2, 3)))


def _conv(channels, features, size, stride=1):
    return nn.Conv2d(channels, features, size, stride, padding=size // 2, bias=False)


class Training(nn.Module):
    """A network and its training set on the device: each call draws a batch, and gives the loss to descend."""

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
        self.in_bfloat16 = config.model.dtype == "bfloat16"
        self.padding = padding = config.augmentation.crop_padding
        self.side = images.shape[1]
        # buffers keep their place, so that a CUDA graph reads them there and copies no data set at each step
        self.register_buffer("images", functional.pad(torch.from_numpy(images), (0, 0, *4 * (padding,))))
        self.register_buffer("labels", torch.from_numpy(labels).long())
        self.register_buffer("mean", torch.tensor(config.data.mean))
        self.register_buffer("std", torch.tensor(config.data.std))

    def forward(self) -> torch.Tensor:
        """The mean loss of a batch drawn anew."""
        examples = self._below(len(self.images), self.batch_size)
        mask = torch.rand((), device=self.images.device) < self.mask_prob
        inputs = self._normalized(self._augmented(examples))
        if self.is_anchored:
            references = self._normalized(self._as_stored(self._below(len(self.images), self.batch_size)))
            inputs = torch.cat([references.where(~mask, 0), inputs - references], dim=-1)
        return self.loss(inputs, self.labels[examples], mask)

    def loss(self, inputs: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy of inputs `[B, H, W, C or 2C]`, against uniform where the batch is masked."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            logits = self.network(inputs.permute(0, 3, 1, 2)).float()  # the view is channels-last as it stands
        to_uniform = -functional.log_softmax(logits, dim=-1).mean()
        return torch.where(mask, to_uniform, functional.cross_entropy(logits, labels))

    def _below(self, bound, *shape):
        return torch.randint(bound, shape, device=self.images.device)

    def _augmented(self, examples):
        """Random crops and mirrors `[B, H, W, C]`, gathered from the padded data set at once."""
        batch, pixels = len(examples), torch.arange(self.side, device=examples.device)
        mirrored = self._below(2, batch, 1).bool()
        rows = pixels + self._below(2 * self.padding + 1, batch, 1)
        columns = torch.where(mirrored, self.side - 1 - pixels, pixels) + self._below(2 * self.padding + 1, batch, 1)
        return self.images[examples[:, None, None], rows[:, :, None], columns[:, None, :]]

    def _as_stored(self, examples):
        inner = slice(self.padding, self.padding + self.side)
        return self.images[:, inner, inner][examples]

    def _normalized(self, images):
        return (images.float() / 255 - self.mean) / self.std


def baselines(config: Config, width: int, images: np.ndarray, labels: np.ndarray) -> Builders:
    """Training as fast as plain PyTorch allows, eager and in every way to compile it that may be the fastest.

    "pytorch-graph" puts the whole step, its update too, into one CUDA graph, which leaves the host nothing to do.
    """
    torch.compiler.reset()  # it refuses to compile the same lines for more than eight networks
    build = partial(_baseline, config, width, images, labels)
    builders = {"pytorch-eager": build}
    if device().type == "cpu":
        return builders | {"pytorch-compiled": partial(build, mode="default")}
    return builders | {
        "pytorch-reduce-overhead": partial(build, mode="reduce-overhead"),
        "pytorch-max-autotune": partial(build, mode="max-autotune"),
        "pytorch-graph": partial(build, mode="max-autotune-no-cudagraphs", whole_step=True),
    }


def _baseline(config, width, images, labels, *, mode=None, whole_step=False) -> Steps:
    channels = images.shape[-1] * (1 + config.anchoring.enabled)
    network: Any = ResNet18(channels, NUM_CLASSES, width)  # PyTorch's types do not know of memory formats
    network.to(memory_format=torch.channels_last)
    training = Training(network, config, images, labels).to(device())
    optimizer = _sgd(training, config, fused=True)
    loss: Callable[[], torch.Tensor] = torch.compile(training, mode=mode) if mode else training

    def step():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    graph = cache(partial(_captured, step))
    return _repeated((lambda: graph().replay()) if whole_step else step)


def _captured(step: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """The CUDA graph of a step; some steps come before it, on a side stream, as PyTorch's notes on graphs ask for."""
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


def _sgd(module, config, **options):
    settings = config.optimizer
    return torch.optim.SGD(
        module.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay, **options
    )


def _repeated(step: Callable[[], None]) -> Steps:
    def run(num_steps):
        for _ in range(num_steps):
            step()
        if device().type == "cuda":
            torch.cuda.synchronize()

    return run


# The released implementation


class Released(NamedTuple):
    """Modules of LLNL/anchoring."""

    wrapper: ModuleType
    models: ModuleType

    @classmethod
    def load(cls, folder: Path, width: int) -> "Released":
        """Import them from a clone.

        Raises:
          UserError: it is no clone, torchvision is missing, or the width is not that of the released ResNet-18.
        """
        code = folder / "CIFAR"
        if not (code / "wrapper.py").is_file():
            raise UserError(
                f"--official={folder} holds no CIFAR/wrapper.py; give a clone of https://github.com/LLNL/anchoring"
            )
        if width != RELEASED_WIDTH:
            raise UserError(f"the released ResNet-18 has --width={RELEASED_WIDTH}; got {width}: leave --official out")
        _torchvision()
        sys.path.insert(0, str(code))
        return cls(importlib.import_module("wrapper"), importlib.import_module("utils.models"))

    def network(self) -> nn.Module:
        """ResNet-18 with the first layer that `CIFAR/train.py` gives it."""
        network = self.models.ResNet18(nc=3, num_classes=NUM_CLASSES)
        network.conv1 = nn.Conv2d(6, RELEASED_WIDTH, kernel_size=3, stride=1, padding=1, bias=False)
        return network


def released_training(code: Released, config: Config, images: np.ndarray, labels: np.ndarray) -> Builders:
    """Training as `CIFAR/train.py` does it, in float32.

    "released-loader" is the whole of it, with the loaders; the others take a batch that is on the device already.
    """
    build = partial(_released_training, code, config)
    builders = {
        name: partial(build, _same_batch(config, images, labels, memory_format), memory_format)
        for name, memory_format in RELEASED_FORMATS.items()
    }
    return builders | {
        "released-loader": lambda: build(_loaded_batches(config, images, labels), torch.contiguous_format)
    }


def _released_training(code, config, batches, memory_format) -> Steps:
    net = code.wrapper.AnchoringWrapper(code.network(), crop=0, imsize=32)
    net = net.to(device(), memory_format=memory_format)
    if device().type == "cuda":
        net = nn.DataParallel(net, device_ids=[0])  # as there, on one GPU
    net.train()
    criterion, optimizer = nn.CrossEntropyLoss(), _sgd(net, config)

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

    return _repeated(step)


def _same_batch(config, images, labels, memory_format) -> Iterator[tuple[torch.Tensor, ...]]:
    """Inputs, targets and anchors on the device, the same at each step."""
    num = config.training.batch_size
    inputs, anchors = (_inputs(part, config, memory_format) for part in (images[:num], images[-num:]))
    targets = torch.from_numpy(labels[:num]).long().to(device())
    while True:
        yield inputs, targets, anchors


def _inputs(images, config, memory_format=torch.contiguous_format) -> torch.Tensor:
    """uint8 `[B, H, W, C]` -> normalised `[B, C, H, W]` on the device."""
    mean, std = torch.tensor(config.data.mean), torch.tensor(config.data.std)
    normalized = (torch.from_numpy(images) / 255 - mean) / std
    return normalized.permute(0, 3, 1, 2).to(device()).contiguous(memory_format=memory_format)


def _loaded_batches(config, images, labels) -> Iterator[tuple[torch.Tensor, ...]]:
    train = _loader(ReleasedData(config, images, labels, augmented=True), config.training.batch_size)
    anchors = _loader(ReleasedData(config, images, labels, augmented=False), config.training.batch_size)
    for (inputs, targets), (references, _) in zip(train, anchors, strict=False):
        yield inputs, targets, references


def _loader(dataset, batch_size) -> Iterator[Any]:
    # as there, but for how the workers start, since JAX has threads, which a fork may deadlock, and that they stay
    loader = DataLoader(
        dataset, batch_size, shuffle=True, num_workers=2, multiprocessing_context="spawn", persistent_workers=True
    )
    while True:
        yield from loader


class ReleasedData(Dataset):
    """The data set of `CIFAR/train.py` on images in memory, made anew in each worker."""

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


def released_prediction(code: Released, name: str, config: Config, images: np.ndarray, references: np.ndarray) -> Steps:
    """K-reference predictions as `CIFAR/inference.py` makes them, of inputs that are on the device already."""
    memory_format = RELEASED_FORMATS[name]
    net = code.wrapper.AnchoringWrapperInference(code.network())
    net = net.to(device(), memory_format=memory_format).eval()
    inputs, anchors = (_inputs(part, config, memory_format) for part in (images, references))

    @torch.inference_mode()
    def step():
        net(inputs, anchors=anchors, n_anchors=len(anchors), return_std=len(anchors) > 1)

    return _repeated(step)


@cache
def _torchvision() -> ModuleType:
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError:
        raise UserError("the released code needs torchvision: pip install torchvision") from None
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _operators()
        return importlib.import_module("torchvision")


@cache
def _operators() -> torch.library.Library:
    """The names that torchvision asks for where its operators are of another build than PyTorch; nothing runs them."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
    return library
