"""The order of axes of images: models here take channels last, PyTorch and Equinox channels first."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

from anchor_jax.core.errors import UserError

MAX_CHANNELS = 4  # of color and transparency; arrays with a longer last axis are suspected to be [N, C, H, W]
TO_CHANNELS_LAST = ".transpose(0, 2, 3, 1)"  # from [N, C, H, W], the order of PyTorch
_is_known: ContextVar[bool] = ContextVar("layout_is_known", default=False)


@contextlib.contextmanager
def known_layout() -> Generator[None]:
    """Let `check_layout` pass everything: the images of a run are checked when they are read."""
    token = _is_known.set(True)
    try:
        yield
    finally:
        _is_known.reset(token)


def check_layout(name: str, shape: tuple[Any, ...]) -> None:
    """Raise if inputs of a model seem to be images with their channels first, which are anchored along the last axis.

    They do if their second axis is as short as that of channels, the others are longer, and there are three channels or
    the images are square: inputs of other shapes, such as sequences [B, 1, T, C], are as common.

    Args:
      name: what the message calls the inputs.
      shape: of the inputs; only batches of images have four axes.
    """
    is_static = all(isinstance(side, int) for side in shape[1:])  # unlike symbolic dimensions of `jax.export`
    if len(shape) != 4 or not is_static or _is_known.get():
        return
    num, first, height, width = shape
    if first <= MAX_CHANNELS < min(height, width) and (first == 3 or height == width):
        raise UserError(
            f"{name} must have its channels last, [B, H, W, C]; got {list(shape)}; if these are [B, C, H, W], pass "
            f"{name}{TO_CHANNELS_LAST}; if the last axis does hold channels, pass {name}.reshape({num}, -1, {width}) "
            "and reshape in the model"
        )


def transposition(name: str, shape: tuple[Any, ...], like: tuple[Any, ...]) -> str:
    """Return how to make images `[N, C, H, W]` like others `[M, H, W, C]`, to end a message; "" for any others."""
    if len(shape) != 4 or shape[1:] == like[1:] or shape[1:] != (like[-1], *like[1:-1]):
        return ""
    return f"; their channels are first: pass {name}{TO_CHANNELS_LAST}"
