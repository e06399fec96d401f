"""Benchmarks of startup and of the input pipeline, at their smallest."""

import importlib.util
import json

import pytest
from commands import assert_told
from test_benchmarks_speed import benchmark

CONFIG = """
from ml_collections import ConfigDict

from anchor_jax.config import base


def get_config():
    config = base()
    config.model.name = "mlp"
    config.model.options = ConfigDict({"hidden": (8,)})
    return config
"""


def results_of(tmp_path, name, *arguments):
    """Run a benchmark; check the format of its file and return its medians by (implementation, case)."""
    done = benchmark(name, "--json", tmp_path / "result.json", "--samples=1", *arguments)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "result.json").read_text())
    assert content.keys() == {"environment", "results"}
    assert content["environment"]["jax"]
    for result in content["results"]:
        assert result.keys() == {"case", "implementation", "metric", "unit", "median", "samples"}
        assert result["samples"] == [result["median"]]
        assert result["median"] > 0
    return {(result["implementation"], result["case"]): result["median"] for result in content["results"]}


def test_startup_times_cold_and_warm_steps(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    arguments = ("--config", tmp_path / "config.py", "--config.training.batch_size=16", "--cases=step")
    seconds = results_of(tmp_path, "speed.startup", *arguments)
    assert seconds.keys() == {("anchor_jax", f"first training step, {start}") for start in ("cold", "warm")}


def test_input_times_all_stages(tmp_path):
    arguments = ("--png_images=0", "--jpeg_images=8", "--jpeg_size=20", "--batch_size=4", "--workers=1")
    speeds = results_of(tmp_path, "speed.input", *arguments, "--stream_images=8", "--stream_size=16")
    streamed = "stream of jpeg 500x375 to 16x16"
    assert ("anchor_jax", streamed) in speeds
    ours = {("anchor_jax", f"jpeg 20x20, {case}") for case in ("decode a folder", "decode array_record", "augment")}
    assert ours <= speeds.keys()
    if importlib.util.find_spec("torch"):
        assert speeds.keys() >= {("pytorch", "jpeg 20x20, decode a folder and augment"), ("pytorch", streamed)}


@pytest.mark.parametrize(
    ("name", "argument", "message"),
    [
        ("speed.startup", "--config.data.source=nothing", "unknown data source 'nothing'"),
        ("speed.input", "--png_images=100", "--png_images must be divisible by --batch_size=128; got 100"),
    ],
)
def test_mistakes_are_one_line_errors(name, argument, message):
    assert_told(benchmark(name, argument), 1, message)
