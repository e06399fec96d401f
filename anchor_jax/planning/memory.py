"""The memory of a training step on one device, by kind."""

import math
import re
from typing import Any, NamedTuple

import jax

from anchor_jax.planning.step import PlannedStep
from anchor_jax.training.device_loop import MAX_STEPS_AHEAD

_SIZE = r"([\d.]+)([KMGT]?)B?"  # in messages of the compiler
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Memory(NamedTuple):
    """Bytes on one device; the arrays of the state without the padding of their layouts.

    Attributes:
      parameters: of the network, with the statistics of BatchNorm.
      optimizer: its state.
      average: the moving average of the parameters; 0 if there is none.
      data: the training set, the order of an epoch, the reference bank and mixing images, which every device holds.
      batch: batches of a stream: the current one, and those that wait.
      padding: what layouts add to the arrays above.
      temporaries: activations, gradients and all else that lives within a step; the program itself, too.
      available: what the chip has for a program.
    """

    parameters: int
    optimizer: int
    average: int
    data: int
    batch: int
    padding: int
    temporaries: int
    available: int

    @property
    def total(self) -> int:
        """All that is needed."""
        return sum(self) - self.available

    @property
    def fits(self) -> bool:
        """Whether the chip has as much."""
        return self.total <= self.available


def device_bytes(tree: Any) -> int:
    """Return the bytes of one device's shards of all arrays, or shapes with a sharding, in a tree."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def known_memory(step: PlannedStep) -> dict[str, int]:
    """Return the bytes of what a step is given, by kind, as in `Memory`."""
    state, _ = step.carry
    return {
        "parameters": device_bytes((state.params, state.batch_stats)),
        "optimizer": device_bytes(state.opt_state),
        "average": device_bytes(state.average),
        "data": device_bytes((step.data, step.order)),
        "batch": device_bytes(step.batch),
    }


def compiled_memory(step: PlannedStep, analysis: Any, available: int) -> Memory:
    """Return the memory of a compiled step.

    Args:
      step: the step.
      analysis: `compiled.memory_analysis()`.
      available: what the chip has for a program.
    """
    known = known_memory(step)
    results = max(analysis.output_size_in_bytes - analysis.alias_size_in_bytes, 0)
    state = known["parameters"] + known["optimizer"] + known["average"]
    counters = device_bytes(step.carry) - state
    temporaries = analysis.temp_size_in_bytes + analysis.generated_code_size_in_bytes + results + counters
    padding = max(analysis.argument_size_in_bytes - sum(known.values()) - counters, 0)
    return _placed(step, known, padding, temporaries, available)


def exceeding_memory(step: PlannedStep, message: str, available: int) -> Memory | None:
    """Return the memory of a step that the compiler of TPUs refuses because it is too large; None for another reason.

    Args:
      step: the step.
      message: of the compiler.
      available: what the chip has for a program, if the compiler does not say it.
    """
    known = known_memory(step)
    if used := re.search(rf"Used {_SIZE} of {_SIZE} hbm", message):
        temporaries = max(_bytes(used[1], used[2]) - sum(known.values()), 0)
    elif used := re.search(rf"HLO temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)", message):
        temporaries = _bytes(used[1], used[2])
    else:
        return None
    # the message counts the images and the bank, which share their memory when the step runs, one by one
    return _placed(step, known, 0, temporaries, _bytes(used[3], used[4]) or available, shares_bank=False)


def _placed(
    step: PlannedStep,
    known: dict[str, int],
    padding: int,
    temporaries: int,
    available: int,
    *,
    shares_bank: bool = True,
) -> Memory:
    images, bank = step.data.images, step.data.bank_images
    if shares_bank and images is not None and bank is not None and images.shape == bank.shape:
        known = known | {"data": known["data"] - device_bytes(bank)}
    return Memory(
        **known | {"batch": known["batch"] * (1 + MAX_STEPS_AHEAD)},
        padding=padding,
        temporaries=temporaries,
        available=available,
    )


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * _UNITS[unit])
