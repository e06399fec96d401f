"""From stored pixels to what a network sees, and what that is measured from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError


class Normalization(NamedTuple):
    """Mean and standard deviation of each channel, for pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def measure_normalization(images: np.ndarray) -> Normalization:
    """Mean and standard deviation of each channel over uint8 images `[N, H, W, C]`.

    Raises:
      UserTypeError: the images are not uint8.
      UserError: they are empty or of another shape.
    """
    checks.array("images", images, "uint8", "[N, H, W, C]")
    values = np.arange(256) / 255
    counts = [np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])]
    mean = [np.average(values, weights=count) for count in counts]
    std = [np.average((values - m) ** 2, weights=count) ** 0.5 for count, m in zip(counts, mean, strict=True)]
    # a constant channel is left at its own scale
    return Normalization(tuple(round(m, 6) for m in mean), tuple(round(s, 6) or 1.0 for s in std))


def normalize(images: jax.Array, normalization: Normalization) -> jax.Array:
    """uint8 `[..., C]` -> float32 `[..., C]`: `(pixel / 255 - mean) / std`.

    Raises:
      UserTypeError: the images are not uint8, or `normalization` is none.
      UserError: its channels are not those of the images, or a standard deviation is not above 0.
    """
    checks.array("images", images, "uint8", "[..., C]")
    checks.instance("normalization", normalization, Normalization, "measure_normalization")
    if not len(normalization.mean) == len(normalization.std) == images.shape[-1]:
        raise UserError(
            f"normalization must have a mean and a std for each of {images.shape[-1]} channels, got "
            f"{len(normalization.mean)} and {len(normalization.std)}"
        )
    if not all(std > 0 for std in normalization.std):
        raise UserError(f"normalization must have every std above 0, got {normalization.std}")
    mean = jnp.array(normalization.mean, jnp.float32)
    std = jnp.array(normalization.std, jnp.float32)
    return (images.astype(jnp.float32) / 255 - mean) / std
