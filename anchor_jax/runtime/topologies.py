"""Devices that are not there, to compile for: TPU slices and NVIDIA GPUs, by the compilers that JAX installs."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from anchor_jax.core.errors import UserError
from anchor_jax.runtime.mesh import AXIS

# libtpu looks for the metadata server of a TPU host, warns about what it does not find there, and locks the chips of
# this host; there are none.
_TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# The plug-in would time kernels on a GPU to choose among them.
_GPU_FLAG = "--xla_gpu_autotune_level=0"

_INSTALL = {"tpu": "pip install 'anchor-jax[plan-tpu]'", "cuda": "pip install 'anchor-jax[plan-gpu]'"}
_TITLES = {"tpu": "TPUs (libtpu)", "cuda": "NVIDIA GPUs (JAX's CUDA plug-in)"}


def prepare() -> None:
    """Set the environment for compilers without devices; call this before JAX initializes its devices."""
    for name, value in _TPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "xla_gpu_autotune_level" not in (flags := os.environ.get("XLA_FLAGS", "")):
        os.environ["XLA_FLAGS"] = f"{flags} {_GPU_FLAG}".strip()
    jax.config.update("jax_platforms", "cpu")  # plug-ins without devices fail to initialize
    jax.config.update("jax_enable_compilation_cache", False)  # programs cannot be loaded without their devices


def topology_mesh(platform: str, topology: str, num_devices: int, target_config: str = "") -> Mesh:
    """Return a mesh of devices that exist for the compiler only, with the single axis `AXIS`.

    Args:
      platform: "tpu" or "cuda".
      topology: name of a TPU slice, such as "v5e:4x4", or slices x hosts x GPUs, such as "1x1x8".
      num_devices: how many devices the topology must have.
      target_config: of GPUs, the text of a `GpuTargetConfigProto`.

    Raises:
      UserError: the compiler is not installed, or knows no such topology.
    """
    from jax.experimental import topologies  # imports a second's worth of modules

    if platform == "tpu":
        options: dict[str, Any] = {"topology_name": topology}
        if num_devices == 1:  # a host of one chip; by default a host has 2 x 2
            options["chips_per_host_bounds"] = (1, 1, 1)
    else:
        options = {"topology_name": "", "target_config": target_config, "topology": topology}
    try:
        devices: Sequence[Any] = topologies.get_topology_desc(platform=platform, **options).devices
    except Exception as error:  # of many types, from the plug-ins
        raise _explained(platform, topology, error) from error
    if len(devices) != num_devices:
        raise UserError(f"the compiler has {len(devices)} devices for {topology}, not {num_devices}; choose another")
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), (AXIS,))


def _explained(platform: str, topology: str, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if not is_installed(platform):
        return UserError(f"no compiler for {_TITLES[platform]} is installed; {_INSTALL[platform]}")
    return UserError(f"the compiler for {_TITLES[platform]} does not accept the topology {topology}: {reason}")


def is_installed(platform: str) -> bool:
    """Return whether the compiler for "tpu" or "cuda" is installed."""
    from importlib.util import find_spec

    names = ("libtpu",) if platform == "tpu" else ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
    for name in names:
        try:
            if find_spec(name):
                return True
        except ModuleNotFoundError:
            continue
    return False
