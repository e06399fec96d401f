"""Describe the machine and the software that produced a result."""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "pillow", "torch", "torchvision", "timm", "transformers")


def environment() -> dict[str, Any]:
    """Return the command line, the hardware and the versions of the packages."""
    device = jax.devices()[0]
    return {
        "command": _command(),
        "cpu": _cpu_name(),
        "cpu_cores": os.cpu_count(),
        "accelerator": None if device.platform == "cpu" else f"{jax.device_count()} x {device.device_kind}",
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def _command():
    spec = sys.modules["__main__"].__spec__  # None for a script
    program = ["-m", spec.name.removesuffix(".__main__")] if spec else [sys.argv[0]]
    return " ".join(["python", *program, *sys.argv[1:]])


def _cpu_name():
    cpuinfo = Path("/proc/cpuinfo")  # Linux
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
