"""The PyTorch implementations that the benchmarks compare with. Import these modules only if PyTorch is installed."""

import importlib.util


def is_installed() -> bool:
    """Return whether PyTorch is installed; print a note if it is not."""
    if importlib.util.find_spec("torch"):
        return True
    print("PyTorch is not installed; its implementations are skipped")
    return False
