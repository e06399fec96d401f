"""State dictionaries in files: .safetensors, and what PyTorch saves (.pth, .pt, .bin)."""

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from anchor_jax.core.errors import UserError
from anchor_jax.models.pytorch.names import SOURCES
from anchor_jax.runtime.atomic_files import write_new_file

# where a checkpoint of a training keeps the weights, the average of them first
NESTED = ("model_ema", "state_dict", "model", "net")


def source_and_file(weights: str) -> tuple[str, Path]:
    """The parts of "SOURCE:FILE", which `config.model.weights` is.

    Raises:
      UserError: it is of another form, or the source is unknown.
    """
    source, _, file = weights.partition(":")
    if not file or source not in SOURCES:
        raise UserError(f"config.model.weights must be SOURCE:FILE, SOURCE of {', '.join(SOURCES)}; got '{weights}'")
    return source, Path(file)


def read_state_dict(file: Path) -> dict[str, Any]:
    """The state dictionary in a file; no code in it is run.

    Of a checkpoint that holds more, such as the released code's, the average of the weights ("model_ema") is taken,
    or else "state_dict", "model" or "net".

    Args:
      file: .safetensors, or else what `torch.save` wrote, which needs PyTorch.

    Returns:
      Name -> array, or `torch.Tensor` on the CPU.

    Raises:
      UserError: there is no such file, it is damaged, it holds other than weights, or PyTorch is not installed.
    """
    if not file.is_file():
        raise UserError(f"no file '{file}'; give a .safetensors file or one that PyTorch saved")
    content = _load_safetensors(file) if file.suffix == ".safetensors" else _load_pytorch(file)
    if isinstance(content, Mapping):
        content = next((content[key] for key in NESTED if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not all(hasattr(tensor, "shape") for tensor in content.values()):
        raise UserError(f"'{file}' holds no state dictionary, at its top or under {', '.join(NESTED)}")
    return dict(content)


def write_state_dict(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a state dictionary to a new file, .safetensors or else as `torch.save` does.

    Raises:
      UserError: the file is there already or cannot be written, or PyTorch is needed and not installed.
    """
    arrays = {name: np.ascontiguousarray(tensor).reshape(tensor.shape) for name, tensor in tensors.items()}
    with write_new_file(file) as new:
        if file.suffix == ".safetensors":
            safetensors.numpy.save_file(arrays, new)
        else:
            torch = _pytorch(file)
            torch.save({name: torch.tensor(array) for name, array in arrays.items()}, new)


def _load_safetensors(file):
    try:
        return safetensors.numpy.load_file(file)
    except Exception as error:  # of many kinds on damaged files, and on types that NumPy lacks
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"cannot read '{file}' ({reason}); give an undamaged .safetensors file") from error


def _load_pytorch(file):
    torch = _pytorch(file)
    try:
        # the arguments of the command that trained, which checkpoints hold beside weights, are plain values
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that are not its own, which then fail
            return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # of many kinds on damaged files; some texts advise to run what is in the file
        raise UserError(
            f"cannot read '{file}' ({type(error).__name__}): it is damaged, or holds more than weights, which is not "
            "run; save its state dictionary alone"
        ) from error


def _pytorch(file):
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"'{file}' is a file of PyTorch, which is not installed: pip install torch, or give a .safetensors file"
        ) from error
    return torch
