"""The tutorials run as they stand, leave their picture, and show what they say."""

import runpy

import numpy as np
from commands import ROOT
from PIL import Image


def ran(name, folder):
    """What the tutorial's `main` gives; its picture is there."""
    results = runpy.run_path(str(ROOT / "docs" / "tutorials" / f"{name}.py"))["main"](str(folder))
    with Image.open(folder / f"{name}.png") as image:
        assert np.asarray(image.convert("RGB")).std() > 10
    return results


def test_spread_over_references_is_small_where_there_are_data_and_large_elsewhere(tmp_path):
    spreads = ran("regression", tmp_path)
    assert spreads["where there are data"] < 0.05
    assert min(spreads["between them"], spreads["beyond them"]) > 5 * spreads["where there are data"]


def test_expected_improvement_finds_one_of_the_largest_of_many_maxima(tmp_path):
    values = ran("optimisation", tmp_path)
    assert values["at first"] < 0.7 * values["largest"]
    assert values["found"] > 0.8 * values["largest"]
