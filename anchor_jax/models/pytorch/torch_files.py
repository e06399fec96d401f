"""Files saved by PyTorch, read without running any code in them."""

import contextlib
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.models.pytorch.entries import listed

_SAVE_TENSORS = "save only the state dict, with torch.save(network.state_dict(), FILE)"

# what training scripts keep beside the weights: the objects are replaced by placeholders
_PLACEHOLDERS = (
    *(f"builtins.{name}" for name in ("dict", "float", "frozenset", "int", "list", "range", "slice", "str", "tuple")),
    *(f"pathlib.{name}Path" for name in ("Posix", "Windows", "PurePosix", "PureWindows", "")),
    *(f"pathlib._local.{name}Path" for name in ("Posix", "Windows", "PurePosix", "PureWindows", "")),  # Python 3.13
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    "argparse.Namespace",
    "collections.defaultdict",
    "torch.torch_version.TorchVersion",
    "types.SimpleNamespace",
)
# the same, by packages: libraries of configs, and of the loops that save them
_PLACEHOLDER_PACKAGES = (
    *("addict", "easydict", "lightning", "lightning_fabric", "ml_collections", "mmcv", "mmengine", "omegaconf"),
    *("pytorch_lightning", "typing", "yacs"),
)


class _Placeholder:
    """Stands in for any object of a checkpoint that holds no weights; none of its code exists here."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Return a mapping, which takes the items and attributes of the object."""
        return OrderedDict()


def load(file: Path) -> Any:
    """Return the content of a file written by `torch.save`.

    Beside tensors and Python's own types, NumPy's arrays and scalars are read. Objects that scripts and libraries of
    configs keep beside the weights become empty mappings; any other object is an error.

    Raises:
      UserError: PyTorch is not installed, or the file is corrupt or holds other objects.
    """
    torch = import_torch(file)
    if not file.stat().st_size:
        raise UserError(f"cannot read '{file}': it is empty; copy or save it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that PyTorch did not write, which then fail to load
            with _safe_globals(torch, file):
                return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # its own text is not shown: some advise to run the code in the file
        raise UserError(_reason(torch, file, error)) from error


def import_torch(file: Path) -> ModuleType:
    """Return PyTorch, which is needed to read or write a file."""
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"reading or writing '{file}' needs PyTorch, which is not installed; run pip install torch, or use a "
            ".safetensors file"
        ) from error
    return torch


def _safe_globals(torch: ModuleType, file: Path) -> contextlib.AbstractContextManager[Any]:
    """Allow what is needed to read arrays of NumPy, and replace other harmless objects by placeholders."""
    packages = (name for name in _unsafe_globals(torch, file) if name.partition(".")[0] in _PLACEHOLDER_PACKAGES)
    names = {*_PLACEHOLDERS, *packages}
    return torch.serialization.safe_globals([*_numpy_globals(), *((_Placeholder, name) for name in names)])


def _numpy_globals() -> Iterator[Any]:
    """Yield what rebuilds arrays and scalars, by its names in NumPy 1 and 2."""
    yield from (np.ndarray, np.dtype)
    yield from {type(np.dtype(code)) for code in np.typecodes["All"]}
    for name, value in (("_reconstruct", np.zeros(1)), ("scalar", np.float32(0))):
        rebuild = value.__reduce__()[0]
        yield from ((rebuild, f"numpy.{module}.multiarray.{name}") for module in ("core", "_core"))


def _unsafe_globals(torch: ModuleType, file: Path) -> list[str]:
    """Return the names of classes and functions in a file that PyTorch does not know to be safe; [] if unknown."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # an old format, or a corrupt file
        return []


def _reason(torch: ModuleType, file: Path, error: Exception) -> str:
    """Return why a file cannot be read, and what to do."""
    with _safe_globals(torch, file):
        unsafe = sorted(_unsafe_globals(torch, file)) or re.findall(r"Unsupported global: GLOBAL (\S+)", str(error))
    layers = [name for name in unsafe if name.startswith(("torch.nn.modules.", "torch.nn.parallel."))]
    if layers:
        networks = [name for name in unsafe if not name.startswith(("torch.", "collections.", "builtins."))]
        return (
            f"cannot read '{file}': it holds a whole network ({listed(networks or layers, 2)}), and loading it would "
            f"run code; {_SAVE_TENSORS}"
        )
    what = f"it contains objects other than weights, which are not loaded ({listed(unsafe, 4)})"
    if not unsafe:
        what = f"{type(error).__name__}: it is corrupt, or contains objects other than weights, which are not loaded"
    return f"cannot read '{file}': {what}; {_SAVE_TENSORS}"
