"""The PyTorch implementations that the benchmarks compare with. Import these modules only if PyTorch is installed."""

import importlib.util
from pathlib import Path

from anchor_jax.core.errors import UserError


def is_installed() -> bool:
    """Return whether PyTorch is installed; print a note if it is not."""
    if importlib.util.find_spec("torch"):
        return True
    print("PyTorch is not installed; its implementations are skipped")
    return False


def check_clone(folder: Path) -> None:
    """Raise a `UserError` if --official, this folder, is not a clone of the released code."""
    if not (folder / "CIFAR" / "wrapper.py").is_file():
        raise UserError(
            f"--official={folder} has no CIFAR/wrapper.py; give a clone of https://github.com/LLNL/anchoring"
        )
