"""Compare the communication of a training step with its compute, for N chips: arithmetic, not a measurement.

    python -m benchmarks.speed.scaling

Each chip processes 128 images of 224x224 pixels, so the global batch grows with N.

- compute: three forward passes, two operations per multiply-add, at 40 % of the peak rate.
- replicated: all-reduce of float32 gradients, 2 (N-1)/N x 4 bytes per parameter.
- FSDP: all-gather of float32 parameters forward and backward, reduce-scatter of gradients, 3 (N-1)/N x 4 bytes.
- batch: extra communication of `references="batch"` if augmented images are gathered, float32, from all N chips.

Communication is the number of bytes that each chip sends in a ring, divided by the one-way bandwidth of its links. It
is an upper bound of the added time, because XLA overlaps part of it with compute. On hosts with eight GPUs a ring has
two levels: NVLink within a host, and between hosts a network card per GPU, which carries an eighth of the bytes.
"""

from typing import NamedTuple

from anchor_jax.cli import app

CHIPS = (8, 64, 256, 1024)
BATCH = 128  # images per chip
FRACTION = 0.4  # of the peak rate
FLOAT = 4  # bytes
IMAGE = 224 * 224 * 3 * FLOAT  # bytes of an augmented image


class Network(NamedTuple):
    """The number of parameters, and of multiply-adds per image forward, as published by torchvision."""

    name: str
    parameters: int
    multiply_adds: float


class Chip(NamedTuple):
    """The bfloat16 peak in FLOP/s, and the one-way bandwidth per chip in bytes/s, within a host and between hosts."""

    name: str
    peak: float
    within: float
    beyond: float
    chips_within: int  # chips per host


NETWORKS = (
    Network("RegNetY-800MF", 6_432_512, 0.834e9),
    Network("ViT-B/16", 86_567_656, 17.564e9),
    Network("SwinV2-B", 87_930_848, 20.325e9),  # at 256x256 pixels, its native size
)
ACCELERATORS = (
    # NVIDIA's H100 SXM data sheet: 989 TFLOP/s dense, NVLink 900 GB/s both ways, 400 Gb/s InfiniBand per GPU
    Chip("H100", 989e12, 450e9, 50e9, 8),
    # Google's page: 459 TFLOP/s, ICI 1,200 GB/s both ways over the three axes of a torus; one axis is counted
    Chip("TPU v5p", 459e12, 200e9, 200e9, 1),
)


def main() -> None:
    """Print the table."""
    print(table())


def compute_seconds(network: Network, chip: Chip) -> float:
    """Return the compute time of a step."""
    return 3 * 2 * network.multiply_adds * BATCH / (FRACTION * chip.peak)


def pass_seconds(num_bytes: float, num_chips: int, chip: Chip) -> float:
    """Return the time of an all-gather or reduce-scatter of `num_bytes` in total; an all-reduce takes twice that."""
    within = min(num_chips, chip.chips_within)
    hosts = num_chips // within
    return (within - 1) / within * num_bytes / chip.within + (hosts - 1) / hosts * num_bytes / within / chip.beyond


def row(network: Network, chip: Chip, num_chips: int) -> tuple[float, ...]:
    """Return the seconds of compute, replicated, FSDP and batch, as the module docstring defines them."""
    parameters = FLOAT * network.parameters
    one_pass = pass_seconds(parameters, num_chips, chip)
    gathered = pass_seconds(IMAGE * BATCH * num_chips, num_chips, chip)
    return compute_seconds(network, chip), 2 * one_pass, 3 * one_pass, gathered


def table() -> str:
    """Return a Markdown table in milliseconds; ratios to the compute time are in brackets."""
    lines = [
        "| network | chips | compute, ms | replicated | FSDP | batch |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for network in NETWORKS:
        for chip in ACCELERATORS:
            for num_chips in CHIPS:
                compute, *sent = row(network, chip, num_chips)
                shares = " | ".join(f"{1e3 * seconds:,.2f} ({_format_ratio(seconds / compute)})" for seconds in sent)
                lines.append(f"| {network.name} | {num_chips:,} x {chip.name} | {1e3 * compute:.1f} | {shares} |")
    return "\n".join(lines)


def _format_ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"


if __name__ == "__main__":
    app.run(main)
