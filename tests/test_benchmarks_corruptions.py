"""Benchmarks of corruptions: speed and fidelity, at their smallest."""

import json

import numpy as np
import pytest
from test_benchmarks_speed import benchmark

SMALL = ("--corruptions=contrast,pixelate",)


@pytest.fixture(autouse=True)
def without_cifar(monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


def results_of(done, file):
    assert done.returncode == 0, done.stderr
    content = json.loads(file.read_text())
    assert content.keys() == {"environment", "results"}
    return content["results"]


def test_speed_times_both_generators(tmp_path):
    file = tmp_path / "corruptions.json"
    sizes = ("--num_images=6", "--host_images=2", "--batch_size=4", "--samples=2")
    rows = results_of(benchmark("speed.corruptions", *SMALL, *sizes, f"--json={file}"), file)
    assert {(row["implementation"], row["metric"]) for row in rows} == {
        ("anchor_jax", "images_per_second"),
        ("anchor_jax", "compile_time"),
        ("tensorflow-datasets", "images_per_second"),
    }
    assert all(np.median(row["samples"]) == row["median"] >= 0 for row in rows)


def test_fidelity_compares_every_severity(tmp_path):
    file = tmp_path / "corruptions.json"
    rows = results_of(benchmark("fidelity.corruptions", *SMALL, "--large_images=2", f"--json={file}"), file)
    assert len(rows) == 10
    assert all(row["furthest"] <= 1 for row in rows if row["corruption"] == "contrast")
