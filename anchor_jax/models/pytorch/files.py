"""State dicts in files: .safetensors, and files saved by PyTorch (.pth, .pt, .bin)."""

import argparse
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import safetensors.numpy

from anchor_jax.core.errors import UserError
from anchor_jax.models.pytorch.names import SOURCES
from anchor_jax.runtime.atomic_files import write_new_file
from anchor_jax.runtime.paths import local_path

# keys under which training checkpoints store the state dict; averaged weights are preferred
NESTED_KEYS = ("model_ema", "state_dict", "model", "net")


def source_and_file(weights: str) -> tuple[str, Path]:
    """Split "SOURCE:FILE", the format of `config.model.weights`.

    Raises:
      UserError: the format is another one, or the source is unknown.
    """
    source, _, file = weights.partition(":")
    if not file or source not in SOURCES:
        raise UserError(
            f"config.model.weights must be SOURCE:FILE, where SOURCE is one of {', '.join(SOURCES)}; got '{weights}'"
        )
    return source, local_path("config.model.weights", file)


def read_state_dict(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a state dict from a file, without running any code in it.

    In a training checkpoint, such as the released code's, the averaged weights ("model_ema") are used if present, and
    otherwise "state_dict", "model" or "net".

    Args:
      file: a .safetensors file, or a file written by `torch.save`, which needs PyTorch.

    Returns:
      Arrays by name, or `torch.Tensor` on the CPU.

    Raises:
      UserError: the file does not exist, is corrupt or contains more than weights, or PyTorch is not installed.
    """
    file = local_path("file", file)
    if not file.is_file():
        raise UserError(f"no file '{file}'; pass a .safetensors file or one saved by PyTorch")
    content = _load_safetensors(file) if file.suffix == ".safetensors" else _load_torch(file)
    if isinstance(content, Mapping):
        content = next((content[key] for key in NESTED_KEYS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not all(hasattr(tensor, "shape") for tensor in content.values()):
        raise UserError(f"'{file}' contains no state dict, neither at the top level nor as {', '.join(NESTED_KEYS)}")
    return dict(content)


def write_state_dict(file: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Write a state dict to a new file: .safetensors, or the format of `torch.save` for any other suffix.

    Raises:
      UserError: the file exists or cannot be written, or PyTorch is needed and not installed.
    """
    file = local_path("file", file)
    arrays = {name: np.ascontiguousarray(tensor).reshape(tensor.shape) for name, tensor in tensors.items()}
    with write_new_file(file) as new_file:
        if file.suffix == ".safetensors":
            safetensors.numpy.save_file(arrays, new_file)
        else:
            torch = _import_torch(file)
            torch.save({name: torch.tensor(array) for name, array in arrays.items()}, new_file)


def _load_safetensors(file: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(file)
    except Exception as error:  # corrupt files, and dtypes that NumPy lacks, raise many types
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"cannot read '{file}' ({reason}); pass an intact .safetensors file") from error


def _load_torch(file: Path) -> Any:
    torch = _import_torch(file)
    try:
        # checkpoints often contain the training arguments next to the weights; a Namespace holds plain values
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that PyTorch did not write, which then fail to load
            return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # its own text is not shown: some advise to run the code in the file
        raise UserError(
            f"cannot read '{file}' ({type(error).__name__}); it is corrupt, or contains objects other than weights, "
            "which are not loaded; save only the state dict"
        ) from error


def _import_torch(file: Path) -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"reading or writing '{file}' needs PyTorch, which is not installed; run pip install torch, or use a "
            ".safetensors file"
        ) from error
    return torch
