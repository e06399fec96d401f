"""The tutorials run, write their plots, and show what they claim."""

import runpy

import numpy as np
from commands import ROOT
from PIL import Image


def run_main(name, folder):
    """Run a tutorial's `main` and return its result; check the plot that it writes."""
    results = runpy.run_path(str(ROOT / "docs" / "tutorials" / f"{name}.py"))["main"](str(folder))
    with Image.open(folder / f"{name}.png") as image:
        assert np.asarray(image.convert("RGB")).std() > 10
    return results


def test_regression_spread_is_small_only_at_the_data(tmp_path):
    spreads = run_main("regression", tmp_path)
    assert spreads["inside the intervals"] < 0.05
    assert min(spreads["between them"], spreads["beyond them"]) > 5 * spreads["inside the intervals"]


def test_bayesian_optimization_comes_close_to_the_maximum(tmp_path):
    values = run_main("bayesian_optimization", tmp_path)
    assert values["initial"] < 0.7 * values["global maximum"]
    assert values["best"] > 0.8 * values["global maximum"]
