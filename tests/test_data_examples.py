"""The examples in the docstrings of `anchor_jax.data`."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

from anchor_jax import data

FUNCTIONS = [name for name in data.__all__ if inspect.isfunction(getattr(data, name))]
MODULES = [module.name for module in pkgutil.walk_packages(data.__path__, f"{data.__name__}.")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_data_functions_have_an_example(name):
    assert ">>> import anchor_jax as aj" in getattr(data, name).__doc__


@pytest.mark.parametrize("module", MODULES)
def test_data_examples_run(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0
