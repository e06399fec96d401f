"""The PyTorch side of `input.py`, as its user would write it: a DataLoader with worker processes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset


class Augmented(Dataset):
    """Random crop and mirror, then normalisation, of one image at a time: float32 `[C, H, W]` and its label."""

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


class Epoch:
    """A pass over a data set, by workers that stay."""

    def __init__(self, dataset: Dataset, batch_size: int, num_workers: int):
        self._loader = DataLoader(
            dataset,
            batch_size,
            shuffle=True,
            num_workers=num_workers,
            multiprocessing_context="spawn",  # JAX has threads, which a fork may deadlock
            persistent_workers=True,
        )

    def __call__(self) -> None:
        """Wait for all of its batches."""
        for _ in self._loader:
            pass
