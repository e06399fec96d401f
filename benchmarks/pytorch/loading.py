"""DataLoaders with worker processes, as a user of PyTorch would write them; see `benchmarks.speed.input`."""

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset


class AugmentedImages(Dataset):
    """Pairs of image, float32 `[C, H, W]`, and label: padded, randomly cropped and flipped, and normalized."""

    def __init__(self, images: Sequence[Path] | np.ndarray, labels: np.ndarray, crop_padding: int):
        self._images = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
        self._labels = labels.tolist()
        self._crop_padding = crop_padding

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        image = self._images[row]
        if isinstance(image, Path):
            image = torch.from_numpy(np.array(Image.open(image).convert("RGB")))
        return self._augment(image.permute(2, 0, 1)), self._labels[row]

    def _augment(self, image):
        height, width = image.shape[1:]
        top, left = torch.randint(0, 2 * self._crop_padding + 1, (2,)).tolist()
        image = functional.pad(image, [self._crop_padding] * 4)[:, top : top + height, left : left + width]
        if torch.rand(()) < 0.5:
            image = image.flip(-1)
        return (image.float() / 255 - 0.5) / 0.25


class CroppedFiles(Dataset):
    """Pairs of image, float32 `[C, H, W]`, and label, decoded from files: random resized crop, flip, normalization.

    The crops are those of torchvision, which resizes with Pillow.
    """

    def __init__(self, files: Sequence[Path], labels: np.ndarray, size: int, area: tuple[float, float]):
        self._files = files
        self._labels = labels.tolist()
        self._size = size
        self._area = area

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        image = Image.open(self._files[row]).convert("RGB")
        crop = image.resize((self._size, self._size), Image.Resampling.BILINEAR, box=self._box(*image.size))
        if torch.rand(()) < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(crop)).permute(2, 0, 1)
        return (pixels.float() / 255 - 0.5) / 0.25, self._labels[row]

    def _box(self, width, height):
        for _ in range(10):
            area = width * height * torch.empty(()).uniform_(*self._area).item()
            ratio = math.exp(torch.empty(()).uniform_(math.log(3 / 4), math.log(4 / 3)).item())
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = int(torch.randint(width - w + 1, ())), int(torch.randint(height - h + 1, ()))
                return left, top, left + w, top + h
        return 0, 0, width, height


def endless(dataset: Dataset, batch_size: int, num_workers: int) -> Iterator[torch.Tensor]:
    """Return batches of a dataset, epoch after epoch, without incomplete ones."""
    loader = _loader(dataset, batch_size, num_workers, drop_last=True)
    return itertools.chain.from_iterable(itertools.repeat(loader))


class Epoch:
    """One epoch over a dataset, each time it is called."""

    def __init__(self, dataset: Dataset, batch_size: int, num_workers: int):
        self._loader = _loader(dataset, batch_size, num_workers)

    def __call__(self) -> None:
        """Load all batches."""
        for _ in self._loader:
            pass


def _loader(dataset, batch_size, num_workers, drop_last=False) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size,
        shuffle=True,
        drop_last=drop_last,
        num_workers=num_workers,
        multiprocessing_context="spawn",  # JAX has threads, and a fork of a process with threads may deadlock
        persistent_workers=True,
    )
