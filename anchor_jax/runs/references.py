"""The references of a run: drawn once, saved as `references.npz`, and verified by their SHA-256 when loaded."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anchor_jax.config import Config
from anchor_jax.core.errors import UserError
from anchor_jax.runtime.atomic_files import atomic_write


def draw_rows(config: Config, bank: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
    """Draw the rows of the training set whose images become the references of a run.

    Args:
      config: with `seed` and `evaluation.saved_references`, R.
      bank: rows of the training set, int `[M]`.

    Returns:
      min(R, M) different rows of the bank.
    """
    num = min(config.evaluation.saved_references, len(bank))
    return np.random.default_rng(config.seed).choice(bank, num, replace=False)


def digest(images: npt.NDArray[np.uint8]) -> str:
    """Return the SHA-256 of the pixels of images."""
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()


def save(file: Path, images: npt.NDArray[np.uint8]) -> None:
    """Write references, uint8 `[R, H, W, C]`, to a file.

    Raises:
      UserError: the file exists and holds other references.
    """
    if file.exists():
        try:
            load(file, digest(images))
        except UserError as error:
            raise UserError(
                f"'{file}' belongs to another run that was interrupted at its start, or is not a file of anchor_jax "
                f"({error}); move it away, or choose another --workdir"
            ) from error
    with atomic_write(file) as new:
        np.savez_compressed(new, images=images)


def load(file: Path, expected_digest: str) -> npt.NDArray[np.uint8]:
    """Read references, uint8 `[R, H, W, C]`.

    Raises:
      UserError: the file is missing or corrupt, or its pixels have another SHA-256.
    """
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            images = arrays["images"]
    except Exception as error:  # zipfile, zlib and NumPy raise many types of errors for corrupt files
        raise UserError(f"'{file}' is missing or corrupt ({error}); restore it from a copy") from error
    if digest(images) != expected_digest:
        raise UserError(
            f"'{file}' does not hold the references of the run (their hash differs); restore it from a copy"
        )
    return images
