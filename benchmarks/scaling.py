"""What a training step sends between chips against what it computes: arithmetic, nothing is measured.

    python benchmarks/scaling.py

Every chip sees a batch of its own of 128 images of 224x224 pixels, whatever their number N: the batch grows with N.

Compute: three times the forward pass, of two operations for each multiply-add, at a stated fraction of the peak.
Communication: bytes that each chip sends, over what its links carry one way, as rings do it, and not overlapped with
compute, which XLA does for part of it: the columns are upper bounds of what it adds.

- replicated: all-reduce of float32 gradients, 2 (N-1)/N x 4 bytes a parameter.
- FSDP: float32 parameters gathered forward and again backward, gradients scattered, 3 (N-1)/N x 4 bytes.
- batch: what `references="batch"` adds where augmented images are gathered from all chips, float32 of all N chips.

On hosts of eight GPUs each ring is two: one among the GPUs of a host by NVLink, and one for each GPU's eighth of the
bytes among hosts, by a network card of its own.
"""

from typing import NamedTuple

CHIPS = (8, 64, 256, 1024)
BATCH = 128  # images a chip
FRACTION = 0.4  # of the peak that a step reaches
FLOAT = 4  # bytes
IMAGE = 224 * 224 * 3 * FLOAT  # bytes of one that is augmented


class Network(NamedTuple):
    """As torchvision publishes it: parameters, and multiply-adds of one image forward."""

    name: str
    parameters: int
    multiply_adds: float


class Chip(NamedTuple):
    """Peak of bfloat16 in FLOP/s, and bytes/s that one chip sends: within a host, and beyond."""

    name: str
    peak: float
    within: float
    beyond: float
    chips_within: int  # one host; beyond these the slower links carry an equal share of each


NETWORKS = (
    Network("RegNetY-800MF", 6_432_512, 0.834e9),
    Network("ViT-B/16", 86_567_656, 17.564e9),
    Network("SwinV2-B", 87_930_848, 20.325e9),  # at its own 256x256 pixels
)
ACCELERATORS = (
    # 989 TFLOP/s dense, NVLink 900 GB/s both ways, 400 Gb/s InfiniBand a GPU: NVIDIA's data sheet of the H100 SXM
    Chip("H100", 989e12, 450e9, 50e9, 8),
    # 459 TFLOP/s, ICI 1,200 GB/s both ways over the three axes of a torus, of which one is counted: Google's page
    Chip("TPU v5p", 459e12, 200e9, 200e9, 1),
)


def compute_seconds(network: Network, chip: Chip) -> float:
    """Of one step."""
    return 3 * 2 * network.multiply_adds * BATCH / (FRACTION * chip.peak)


def pass_seconds(num_bytes: float, num_chips: int, chip: Chip) -> float:
    """Of one all-gather or reduce-scatter of so many bytes in all; an all-reduce is two."""
    within = min(num_chips, chip.chips_within)
    hosts = num_chips // within
    return (within - 1) / within * num_bytes / chip.within + (hosts - 1) / hosts * num_bytes / within / chip.beyond


def row(network: Network, chip: Chip, num_chips: int) -> tuple[float, ...]:
    """Seconds: compute, replicated, FSDP, batch."""
    parameters = FLOAT * network.parameters
    one_pass = pass_seconds(parameters, num_chips, chip)
    gathered = pass_seconds(IMAGE * BATCH * num_chips, num_chips, chip)
    return compute_seconds(network, chip), 2 * one_pass, 3 * one_pass, gathered


def table() -> str:
    """All of it, in milliseconds, in Markdown; in brackets times the compute."""
    lines = [
        "| network | chips | compute, ms | replicated | FSDP | batch |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for network in NETWORKS:
        for chip in ACCELERATORS:
            for num_chips in CHIPS:
                compute, *sent = row(network, chip, num_chips)
                shares = " | ".join(f"{1e3 * seconds:,.2f} ({_few_digits(seconds / compute)})" for seconds in sent)
                lines.append(f"| {network.name} | {num_chips:,} x {chip.name} | {1e3 * compute:.1f} | {shares} |")
    return "\n".join(lines)


def _few_digits(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"


if __name__ == "__main__":
    print(table())
