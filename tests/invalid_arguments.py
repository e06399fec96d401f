"""Calls with invalid arguments, and what each must raise."""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import pytest

import anchor_jax as aj
from anchor_jax.core.errors import UserTypeError

KEY = jax.random.key(0)
KEYS, TWO_KEYS = jax.random.split(KEY, 3), jax.random.split(KEY)
NAN = float("nan")
B, H, C = 4, 5, 3
X = np.ones((B, H), np.float32)
BANK = np.ones((6, H), np.float32)
IMAGES = np.zeros((3, 8, 8, 3), np.uint8)
FIRST = np.ones((B, 3, 8, 9), np.float32)  # images with their channels first
LOGITS = np.zeros((B, C), np.float32)
LABELS = np.array([0, 1, 2, 0])
MASK = np.zeros(B, bool)
PROBS = np.full((2, B, C), 1 / C, np.float32)
CONFIDENCE, CORRECT = np.full(B, 0.5, np.float32), np.ones(B, bool)
RAGGED = [[0.1, 0.9], [1.0]]


def network(params, inputs):
    return inputs[:, :C]


class InvalidCall(NamedTuple):
    call: Callable[[], object]
    message: str  # pattern that the message starts with
    is_type_error: bool = False


def value(call, message):
    """Return a call with an argument of an invalid value or shape."""
    return InvalidCall(call, message)


def kind(call, message):
    """Return a call with an argument of an invalid type or dtype."""
    return InvalidCall(call, message, is_type_error=True)


def assert_raises(invalid):
    with pytest.raises(aj.UserError, match=rf"\A{invalid.message}") as raised:
        invalid.call()
    assert isinstance(raised.value, UserTypeError) == invalid.is_type_error
    assert "\n" not in str(raised.value)


def assert_raises_before_compilation(invalid, caplog):
    with jax.log_compiles():
        assert_raises(invalid)
    assert "Compiling" not in caplog.text


def each_of(calls):
    names = [re.sub(r"\\", "", invalid.message)[:60] for invalid in calls]
    return pytest.mark.parametrize("invalid", calls, ids=names)
