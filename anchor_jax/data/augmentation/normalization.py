"""Normalize images, and measure the constants for it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from anchor_jax.core import checks, modes
from anchor_jax.core.errors import UserError


class Normalization(NamedTuple):
    """Mean and standard deviation per channel, of pixels in [0, 1].

    Attributes:
      mean: one number per channel.
      std: one number per channel, above 0.

    Example:
      >>> import anchor_jax as aj
      >>> cifar10 = aj.data.Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))  # of the released code
      >>> len(cifar10.mean)
      3
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def measure_normalization(images: np.ndarray, *, channels: int = 0) -> Normalization:
    """Compute mean and standard deviation per channel; the std of a constant channel is 1.

    Args:
      images: uint8 `[N, H, W, C]`.
      channels: C, required if it is above 4: such images are mostly `[N, C, H, W]`.

    Raises:
      UserTypeError: the images are not uint8.
      UserError: the images are empty, have another shape, or seem to be `[N, C, H, W]`.

    Example:
      >>> import anchor_jax as aj
      >>> import numpy as np
      >>> mean, std = aj.data.measure_normalization(np.uint8([[[[0], [255]]]]))
      >>> float(mean[0]), float(std[0])
      (0.5, 0.5)
    """
    checks.images("images", images, "uint8", channels)
    values = np.arange(256) / 255
    counts = [np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])]
    mean = [np.average(values, weights=count) for count in counts]
    std = [np.average((values - m) ** 2, weights=count) ** 0.5 for count, m in zip(counts, mean, strict=True)]
    return Normalization(tuple(round(m, 6) for m in mean), tuple(round(s, 6) or 1.0 for s in std))


@modes.in_32_bits
def normalize(images: jax.Array, normalization: Normalization) -> jax.Array:
    """Compute `(pixel / 255 - mean) / std`.

    Args:
      images: uint8 `[..., C]`.
      normalization: with C means and standard deviations.

    Returns:
      float32 `[..., C]`.

    Raises:
      UserTypeError: the images are not uint8, or `normalization` is not a `Normalization`.
      UserError: the numbers of channels differ, or a standard deviation is not above 0.

    Example:
      >>> import anchor_jax as aj
      >>> import numpy as np
      >>> aj.data.normalize(np.uint8([[[0], [255]]]), aj.data.Normalization((0.5,), (0.25,))).tolist()
      [[[-2.0], [2.0]]]
    """
    checks.array("images", images, "uint8", "[..., C]")
    checks.instance("normalization", normalization, Normalization, "measure_normalization")
    if not len(normalization.mean) == len(normalization.std) == images.shape[-1]:
        is_first = len(normalization.mean) in images.shape[-3:-2]
        hint = f"; if the images are [B, C, H, W], pass images{checks.TO_CHANNELS_LAST}" if is_first else ""
        raise UserError(
            f"normalization must have a mean and a std for each of {images.shape[-1]} channels, got "
            f"{len(normalization.mean)} and {len(normalization.std)}{hint}"
        )
    if not all(isinstance(std, Tracer) or std > 0 for std in normalization.std):
        raise UserError(f"normalization must have every std above 0, got {normalization.std}")
    mean = jnp.array(normalization.mean, jnp.float32)
    std = jnp.array(normalization.std, jnp.float32)
    return (images.astype(jnp.float32) / 255 - mean) / std
