"""The examples in docstrings run."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

from anchor_jax import data

PACKAGE = Path(__file__).parents[1] / "anchor_jax"
MODULES = [
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for file in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in file.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_module_run(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("name", [name for name in data.__all__ if inspect.isfunction(getattr(data, name))])
def test_data_functions_have_an_example(name):
    assert ">>> import anchor_jax as aj" in getattr(data, name).__doc__
