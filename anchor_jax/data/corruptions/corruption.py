"""The interface of corruptions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


def _unchanged(constants: Any, shape: tuple[int, int]) -> Any:
    del shape
    return constants


class Corruption(NamedTuple):
    """A corruption of one image, and its published constants.

    Attributes:
      apply: (key, image, prepared constants) -> image, both float32 `[H, W, 3]` in [0, 1]. The caller clips the result.
      small: the constants of severity 1..5 for CIFAR's 32 x 32 images.
      large: the constants of severity 1..5 for ImageNet's 224 x 224 images.
      prepare: (constants of one severity, (H, W)) -> numbers and arrays, which become arguments of the compiled
        program. It runs on the host, once per severity and image size.
    """

    apply: Callable[[jax.Array, jax.Array, Any], jax.Array]
    small: tuple[Any, ...]
    large: tuple[Any, ...]
    prepare: Callable[[Any, tuple[int, int]], Any] = _unchanged
