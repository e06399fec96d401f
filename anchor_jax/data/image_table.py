"""Images on the devices, from which training steps take some by index."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from anchor_jax.core.short_reprs import short_repr


@short_repr
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ImageTable:
    """Images `[N, H, W, C]`, stored as one row of pixels each; a pytree.

    XLA on TPU stores an array `[N, H, W, C]` with N as the last axis in memory, because a short last axis is padded to
    128. To read single images, it then copies all of them to another layout, in every call, and reads in a loop.

    Attributes:
      rows: `[N, H·W·C]`, of any dtype.
      image_shape: (H, W, C).

    Example:
      >>> table = ImageTable.of(np.zeros((5, 4, 4, 3), np.uint8))
      >>> table.shape, table.rows.shape, table[np.array([3, 1])].shape
      ((5, 4, 4, 3), (5, 48), (2, 4, 4, 3))
    """

    rows: Any
    image_shape: tuple[int, int, int] = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, images: Any) -> "ImageTable":
        """Return the table of images `[N, H, W, C]`, of NumPy or JAX."""
        height, width, channels = images.shape[1:]
        return cls(images.reshape(len(images), math.prod(images.shape[1:])), (height, width, channels))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all images: (N, H, W, C)."""
        return (len(self.rows), *self.image_shape)

    @property
    def ndim(self) -> int:
        """The number of axes of all images: 4."""
        return len(self.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """Return images: int `[...]` -> `[..., H, W, C]`."""
        rows = self.rows[index]
        return rows.reshape(*rows.shape[:-1], *self.image_shape)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return all images as a NumPy array."""
        return np.asarray(self.rows, *args, **kwargs).reshape(self.shape)
