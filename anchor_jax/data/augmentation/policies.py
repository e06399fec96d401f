"""TrivialAugment (Müller, Hutter, ICCV 2021, arXiv 2103.10158) and RandAugment (Cubuk et al., 2019, arXiv 1909.13719).

Operations, magnitudes and probabilities are those of torchvision's `TrivialAugmentWide` and `RandAugment` with 31
magnitudes. All operations that can be drawn are created on the host, as rows of a table.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.data.augmentation.operations import Operation, apply, create_operation
from anchor_jax.data.augmentation.uniform import to_integer
from anchor_jax.runtime import selection

NAMES = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    *("Brightness", "Color", "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
)
NUM_MAGNITUDES = 31

_UNSIGNED = ("Posterize", "Solarize")


class PolicySpace(NamedTuple):
    """The maximum magnitudes of a policy."""

    shear: float  # slope
    translate: tuple[float, float]  # pixels, along x and y
    rotate: float  # degrees
    enhance: float  # difference of a blending factor from 1
    posterize: int  # bits to drop


def trivial_augment(key: jax.Array, image: jax.Array) -> jax.Array:
    """Apply one of 14 operations at a random magnitude to an image uint8 `[H, W, C]`, C is 1 or 3."""
    return _apply_random(key, image, _operation_table(wide_space(), image.shape[:2]))


def rand_augment(key: jax.Array, image: jax.Array, *, num_operations: int, magnitude: int) -> jax.Array:
    """Apply random operations of one magnitude in sequence.

    Args:
      key: PRNG key.
      image: uint8 `[H, W, C]`, C is 1 or 3.
      num_operations: number of operations, each one of 14.
      magnitude: 0..30.
    """
    space = rand_space(image.shape)
    table = jax.tree.map(lambda rows: rows[:, [magnitude]], _operation_table(space, image.shape[:2]))

    def step(image, key):
        return _apply_random(key, image, table), None

    return jax.lax.scan(step, image, jax.random.split(key, num_operations))[0]


def wide_space() -> PolicySpace:
    """Return the magnitudes of TrivialAugment's wide space."""
    return PolicySpace(shear=0.99, translate=(32.0, 32.0), rotate=135.0, enhance=0.99, posterize=6)


def rand_space(shape: tuple[int, ...]) -> PolicySpace:
    """Return the magnitudes of RandAugment for images `(H, W, ...)`."""
    translate = (150 / 331 * shape[1], 150 / 331 * shape[0])
    return PolicySpace(shear=0.3, translate=translate, rotate=30.0, enhance=0.9, posterize=4)


def magnitudes(space: PolicySpace) -> dict[str, np.ndarray]:
    """Return operation -> its magnitudes, float32 `[31]`, from mild to strong."""
    steps = np.arange(NUM_MAGNITUDES) / ((NUM_MAGNITUDES - 1) / space.posterize)
    blends = dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), _linspace(0, space.enhance))
    none = np.zeros(NUM_MAGNITUDES, np.float32)
    return {
        "Identity": none,
        "ShearX": _linspace(0, space.shear),
        "ShearY": _linspace(0, space.shear),
        "TranslateX": _linspace(0, space.translate[0]),
        "TranslateY": _linspace(0, space.translate[1]),
        "Rotate": _linspace(0, space.rotate),
        **blends,
        "Posterize": (8 - np.round(steps)).astype(np.float32),
        "Solarize": _linspace(255, 0),
        "AutoContrast": none,
        "Equalize": none,
    }


def _linspace(first: float, last: float) -> np.ndarray:
    """Compute `torch.linspace`; its float32 arithmetic matters, as it truncates a translation of 16 pixels to 15."""
    ends = np.float32(first), np.float32(last)
    step = float((ends[1] - ends[0]) / np.float32(NUM_MAGNITUDES - 1))
    number = np.arange(NUM_MAGNITUDES)
    from_first, from_last = float(ends[0]) + step * number, float(ends[1]) - step * number[::-1]
    return np.where(number < NUM_MAGNITUDES // 2, from_first, from_last).astype(np.float32)


@lru_cache
def _operation_table(space: PolicySpace, shape: tuple[int, ...]) -> Operation:
    """Return all operations of a policy: arrays `[14, 31, 2, ...]`, by name, magnitude and sign."""
    magnitudes_of = magnitudes(space)

    def operations(name: str) -> list[Operation]:
        signs = (1, 1) if name in _UNSIGNED else (1, -1)
        return [
            _stack([create_operation(name, sign * float(magnitude), shape) for sign in signs])
            for magnitude in magnitudes_of[name]
        ]

    return _stack([_stack(operations(name)) for name in NAMES])


def _stack(operations: list[Operation]) -> Operation:
    return jax.tree.map(lambda *rows: np.stack(rows), *operations)


def _apply_random(key: jax.Array, image: jax.Array, table: Operation) -> jax.Array:
    """Apply an operation drawn uniformly from a table of arrays `[names, magnitudes, signs, ...]`."""
    row = to_integer(jax.random.uniform(key, (3,)), jnp.array(table.matrix.shape[:3]))
    return apply(image, selection.entry(table, tuple(row)))
