"""The benchmarks of start and input at their smallest: they run, and their files have the agreed form."""

import importlib.util
import json

import pytest
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
    """Median by (implementation, case), of a file that has the agreed form."""
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


def test_startup(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    arguments = ("--config", tmp_path / "config.py", "--config.training.batch_size=16", "--cases=step")
    seconds = results_of(tmp_path, "startup", *arguments)
    assert seconds.keys() == {("anchor_jax", f"first training step, {start}") for start in ("cold", "warm")}


def test_input(tmp_path):
    arguments = ("--png_images=0", "--jpeg_images=8", "--jpeg_size=20", "--batch_size=4", "--workers=1")
    speeds = results_of(tmp_path, "input", *arguments, "--stream_images=8", "--stream_size=16")
    streamed = "stream of jpeg 500x375 to 16x16"
    assert ("anchor_jax", streamed) in speeds
    ours = {("anchor_jax", f"jpeg 20x20, {case}") for case in ("decode a folder", "decode array_record", "augment")}
    assert ours <= speeds.keys()
    if importlib.util.find_spec("torch"):
        assert speeds.keys() >= {("pytorch", "jpeg 20x20, decode a folder and augment"), ("pytorch", streamed)}


@pytest.mark.parametrize(
    ("name", "argument", "message"),
    [
        ("startup", "--config.data.source=nothing", "unknown data source 'nothing'"),
        ("input", "--png_images=100", "--png_images must be divisible by --batch_size=128; got 100"),
    ],
)
def test_mistake_is_told_in_one_line(name, argument, message):
    done = benchmark(name, argument)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
