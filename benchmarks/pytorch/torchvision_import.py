"""Import torchvision even if its compiled operators do not fit the installed build of PyTorch."""

import importlib
from functools import cache
from types import ModuleType
from typing import Any


@cache
def import_torchvision() -> ModuleType:
    """Return torchvision.

    Raises:
      ImportError: it is not installed.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    _declare_operators()
    return importlib.import_module("torchvision")


@cache  # the declarations last as long as the library object
def _declare_operators() -> Any:
    """Declare the operators that the import refers to; nothing here calls them."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
    return library
