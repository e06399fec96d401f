"""The chips that a run can be planned for, and targets such as "v5e:4x4" (a slice of TPUs) or "h200:8" (GPUs)."""

import dataclasses
import math
import re
from typing import Literal

from anchor_jax.core.errors import UserError, unknown

GPUS_PER_HOST = 8
# A program on a GPU gets this fraction of the memory, unless XLA_PYTHON_CLIENT_MEM_FRACTION sets another one (JAX's
# documentation, "GPU memory allocation").
GPU_MEMORY_FRACTION = 0.75
_FIRST_WITH_ACCELERATED_FEATURES = 9  # compute capability, see "feature-specific targets" in NVIDIA's CUDA guide


@dataclasses.dataclass(frozen=True)
class Chip:
    """What is known of a chip.

    Attributes:
      title: its name.
      platform: of the compiler, "tpu" or "cuda".
      memory: bytes that a program may use by default.
      bandwidth: of the memory, bytes/s.
      peak_flops: FLOP/s of matrix products, without sparsity, by dtype of the operands.
      link: bytes/s that a chip sends to the others.
      source: of these numbers.
      clock: cycles per second of the compiler's estimates; 0 for GPUs, whose compiler has none.
      gpu: what XLA needs to know of a GPU; None for TPUs.
    """

    title: str
    platform: Literal["tpu", "cuda"]
    memory: int
    bandwidth: float
    peak_flops: dict[str, float]
    link: float
    source: str
    clock: float = 0.0
    gpu: "GpuDescription | None" = None

    def peak(self, dtype: str) -> float:
        """Return the peak FLOP/s for operands of a dtype; a dtype that is not listed has the lowest of all peaks."""
        return self.peak_flops.get(dtype, min(self.peak_flops.values()))


@dataclasses.dataclass(frozen=True)
class GpuDescription:
    """What XLA's `GpuTargetConfigProto` states about a GPU that the compiler decides by."""

    name: str
    memory: int
    capability: tuple[int, int]
    cores: int
    fpus_per_core: int
    shared_memory_per_core: int
    shared_memory_per_block: int  # at most, if a kernel asks for it
    l2_cache: int
    clock_ghz: float

    def target_config(self, bandwidth: float) -> str:
        """Return the text of the protocol buffer `stream_executor.GpuTargetConfigProto`."""
        major, minor = self.capability
        fields = {
            "threads_per_block_limit": 1024,
            "threads_per_warp": 32,
            "shared_memory_per_block": 49152,
            "shared_memory_per_core": self.shared_memory_per_core,
            "threads_per_core_limit": 2048,
            "core_count": self.cores,
            "fpus_per_core": self.fpus_per_core,
            "block_dim_limit_x": 2**31 - 1,
            "block_dim_limit_y": 65535,
            "block_dim_limit_z": 65535,
            "thread_dim_limit_x": 1024,
            "thread_dim_limit_y": 1024,
            "thread_dim_limit_z": 64,
            "registers_per_core_limit": 65536,
            "registers_per_block_limit": 65536,
            "memory_bandwidth": round(bandwidth),
            "l2_cache_size": self.l2_cache,
            "clock_rate_ghz": self.clock_ghz,
            "device_memory_size": self.memory,
            "shared_memory_per_block_optin": self.shared_memory_per_block,
        }
        lines = "".join(f"  {name}: {value}\n" for name, value in fields.items())
        # sm_90a instead of sm_90: matrix products use Hopper's `wgmma` only with its architecture-specific features
        features = " feature_extension: ACCELERATED_FEATURES" if major >= _FIRST_WITH_ACCELERATED_FEATURES else ""
        capability = f"  cuda_compute_capability {{ major: {major} minor: {minor}{features} }}\n"
        return (
            f"gpu_device_info {{\n{lines}{capability}}}\n"
            'platform_name: "CUDA"\n'
            "dnn_version_info { major: 9 minor: 10 patch: 0 }\n"
            f'device_description_str: "{self.name}"\n'
        )


def _tpu(name, gib, bandwidth, flops_per_cycle, clock, link) -> Chip:
    peak = flops_per_cycle * clock
    peaks = {"bfloat16": peak, "float32": peak}  # float32 is rounded by default
    source = f"https://docs.cloud.google.com/tpu/docs/{name}; the clock is the peak over the FLOP of a cycle; "
    source += "the memory is what libtpu leaves to a program"
    return Chip(f"TPU {name}", "tpu", round(gib * 2**30), bandwidth, peaks, link, source, clock)


def _gpu(sheet, bandwidth, peak_flops, link, name, processor, memory) -> Chip:
    source = f"{sheet} data sheet; cores, caches and clock: xla/backends/gpu/target_config/specs in openxla/xla"
    available, gpu = round(GPU_MEMORY_FRACTION * memory), GpuDescription(name, memory, *processor)
    return Chip(name, "cuda", available, bandwidth, peak_flops, link, source, gpu=gpu)


# FLOP/s of dense products. float32 operands are rounded to TF32 by default (`jax.lax.Precision.DEFAULT`).
_HOPPER_PEAK = {"bfloat16": 989.4e12, "float16": 989.4e12, "float32": 494.7e12}
_AMPERE_PEAK = {"bfloat16": 312e12, "float16": 312e12, "float32": 156e12}
# from `capability` to `clock_ghz` of a `GpuDescription`
_HOPPER = ((9, 0), 132, 128, 233472, 232448, 52428800, 1.98)
_AMPERE = ((8, 0), 108, 64, 167936, 166912, 41943040, 1.41)

CHIPS = {
    "v5e": _tpu("v5e", 15.75, 819e9, 131_072, 1.5e9, 200e9),
    "v5p": _tpu("v5p", 95.74, 2765e9, 262_144, 1.75e9, 600e9),
    "v6e": _tpu("v6e", 31.25, 1638e9, 524_288, 1.75e9, 400e9),
    "a100": _gpu(
        "NVIDIA A100 80GB SXM", 2.039e12, _AMPERE_PEAK, 300e9, "NVIDIA A100-SXM4-80GB", _AMPERE, 85_100_068_864
    ),
    "h100": _gpu("NVIDIA H100 SXM", 3.352e12, _HOPPER_PEAK, 450e9, "NVIDIA H100 80GB HBM3", _HOPPER, 84_942_979_072),
    "h200": _gpu("NVIDIA H200 SXM", 4.8e12, _HOPPER_PEAK, 450e9, "NVIDIA H200 141GB HBM3e", _HOPPER, 151_397_597_184),
}


@dataclasses.dataclass(frozen=True)
class Target:
    """Chips that share a batch.

    Attributes:
      name: as the user wrote it, such as "v5e:4x4".
      chip: the kind of chip.
      topology: the name that the compiler knows the arrangement by.
      num_devices: how many chips.
    """

    name: str
    chip: Chip
    topology: str
    num_devices: int


def parse_target(name: str) -> Target:
    """Return the target that a string names: a TPU slice, "v5e:4x4", or a number of GPUs, "h200:8".

    >>> parse_target("v5e:4x4").num_devices
    16

    Raises:
      UserError: the chip is unknown, or the arrangement is not one of this kind of chip.
    """
    kind, _, arrangement = name.strip().lower().partition(":")
    if kind not in CHIPS:
        raise unknown("chip", kind, CHIPS)
    chip = CHIPS[kind]
    if chip.platform == "cuda":
        if not re.fullmatch(r"[1-9]\d{0,4}", arrangement):
            raise UserError(f"target '{name}' must name a number of GPUs, such as '{kind}:8'")
        return Target(name, chip, _gpu_topology(name, int(arrangement)), int(arrangement))
    num_axes = 2 if kind.endswith("e") else 3
    sides = re.fullmatch(r"[1-9]\d{0,2}(x[1-9]\d{0,2})*", arrangement) and [int(n) for n in arrangement.split("x")]
    if not sides or len(sides) != num_axes:
        example = "4x4" if num_axes == 2 else "2x2x1"
        raise UserError(f"target '{name}' must name a slice with {num_axes} sides, such as '{kind}:{example}'")
    return Target(name, chip, f"{kind}:{arrangement}", math.prod(sides))


def _gpu_topology(name: str, num: int) -> str:
    """Return slices x hosts x GPUs of a host."""
    if num > GPUS_PER_HOST and num % GPUS_PER_HOST:
        raise UserError(f"target '{name}' must have at most {GPUS_PER_HOST} GPUs, or a multiple of {GPUS_PER_HOST}")
    return f"1x{math.ceil(num / GPUS_PER_HOST)}x{min(num, GPUS_PER_HOST)}"
