"""TrivialAugment (Müller, Hutter, ICCV 2021, arXiv 2103.10158) and RandAugment (Cubuk et al., 2019, arXiv 1909.13719).

Operations, magnitudes and chances are those of torchvision's `TrivialAugmentWide` and `RandAugment` with 31 magnitudes.
All that can be drawn is prepared on the host, as rows of a table.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax.data.augmentation.draws import whole
from anchor_jax.data.augmentation.operations import Operation, apply, operation

NAMES = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    *("Brightness", "Color", "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
)
NUM_MAGNITUDES = 31

_UNSIGNED = ("Posterize", "Solarize")


class Space(NamedTuple):
    """The greatest magnitudes of a policy."""

    shear: float  # slope
    translate: tuple[float, float]  # pixels, along x and y
    rotate: float  # degrees
    enhance: float  # change of the factor of a blend
    posterize: int  # binary places that are lost


def trivial_augment(key: jax.Array, image: jax.Array) -> jax.Array:
    """One of 14 operations, of any magnitude: uint8 `[H, W, C]`, C is 1 or 3 -> the same."""
    return _drawn(key, image, _operations(wide_space(), image.shape[:2]))


def rand_augment(key: jax.Array, image: jax.Array, *, num_operations: int, magnitude: int) -> jax.Array:
    """Operations of one magnitude, one after the other: uint8 `[H, W, C]`, C is 1 or 3 -> the same.

    Args:
      key: of the random numbers.
      image: one.
      num_operations: how many, each one of 14.
      magnitude: 0..30.
    """
    space = rand_space(image.shape)
    operations = jax.tree.map(lambda rows: rows[:, [magnitude]], _operations(space, image.shape[:2]))

    def augmented(image, key):
        return _drawn(key, image, operations), None

    return jax.lax.scan(augmented, image, jax.random.split(key, num_operations))[0]


def wide_space() -> Space:
    """Of TrivialAugment's wide space."""
    return Space(shear=0.99, translate=(32.0, 32.0), rotate=135.0, enhance=0.99, posterize=6)


def rand_space(shape: tuple[int, ...]) -> Space:
    """Of RandAugment, for images `(H, W, ...)`."""
    translate = (150 / 331 * shape[1], 150 / 331 * shape[0])
    return Space(shear=0.3, translate=translate, rotate=30.0, enhance=0.9, posterize=4)


def magnitudes(space: Space) -> dict[str, np.ndarray]:
    """Operation -> its magnitudes, float32 `[31]`, from mild to strong."""
    steps = np.arange(NUM_MAGNITUDES) / ((NUM_MAGNITUDES - 1) / space.posterize)
    blends = dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), _evenly(0, space.enhance))
    none = np.zeros(NUM_MAGNITUDES, np.float32)
    return {
        "Identity": none,
        "ShearX": _evenly(0, space.shear),
        "ShearY": _evenly(0, space.shear),
        "TranslateX": _evenly(0, space.translate[0]),
        "TranslateY": _evenly(0, space.translate[1]),
        "Rotate": _evenly(0, space.rotate),
        **blends,
        "Posterize": (8 - np.round(steps)).astype(np.float32),
        "Solarize": _evenly(255, 0),
        "AutoContrast": none,
        "Equalize": none,
    }


def _evenly(first: float, last: float) -> np.ndarray:
    """`torch.linspace`, whose float32 cuts a translation of 16 pixels off to 15."""
    ends = np.float32(first), np.float32(last)
    step = float((ends[1] - ends[0]) / np.float32(NUM_MAGNITUDES - 1))
    number = np.arange(NUM_MAGNITUDES)
    from_first, from_last = float(ends[0]) + step * number, float(ends[1]) - step * number[::-1]
    return np.where(number < NUM_MAGNITUDES // 2, from_first, from_last).astype(np.float32)


@lru_cache
def _operations(space: Space, shape: tuple[int, ...]) -> Operation:
    """All that can be drawn: arrays `[14, 31, 2, ...]`, by name, magnitude and sign."""
    of_names = magnitudes(space)

    def signed(name):
        signs = (1, 1) if name in _UNSIGNED else (1, -1)
        return [_stacked([operation(name, sign * float(m), shape) for sign in signs]) for m in of_names[name]]

    return _stacked([_stacked(signed(name)) for name in NAMES])


def _stacked(operations):
    return jax.tree.map(lambda *rows: np.stack(rows), *operations)


def _drawn(key: jax.Array, image: jax.Array, operations: Operation) -> jax.Array:
    """One of the operations, arrays `[names, magnitudes, signs, ...]`, all as likely."""
    row = whole(jax.random.uniform(key, (3,)), jnp.array(operations.matrix.shape[:3]))
    return apply(image, jax.tree.map(lambda rows: jnp.asarray(rows)[tuple(row)], operations))
