"""The benchmarks of all models: they run and write the form they promise."""

import numpy as np
from test_benchmarks_speed import benchmark, numbers_of

SMALL = ("--batch_size=2", "--samples=2", "--image_size=32", "--implementations=anchor_jax")
METRICS = {"images_per_second", "fraction_of_peak", "peak_memory", "compile_time"}


def test_every_pass_is_measured(tmp_path):
    file = tmp_path / "models.json"
    content = numbers_of(benchmark("models", *SMALL, "--models=resnet18", "--cases=anchored", "--json", file), file)
    peak, *results = content["results"]
    assert peak["metric"] == "flop_rate"
    by_case = {case: {r["metric"]: r for r in results if r["case"] == case} for case in {r["case"] for r in results}}
    assert {case.split(", ")[2] for case in by_case} == {"forward", "training"}
    for case, metrics in by_case.items():
        assert case.startswith("resnet18 32, anchored, ")
        assert metrics.keys() == METRICS
        assert np.median(metrics["images_per_second"]["samples"]) > 0
        assert 0 < metrics["fraction_of_peak"]["median"] < 1.5


def test_mistake_is_told_in_one_line():
    done = benchmark("models", "--models=resnet19")
    assert done.returncode == 1
    assert "unknown model 'resnet19'" in done.stderr


def test_logits_are_those_of_the_network_of_pytorch_at_full_size(tmp_path):
    file = tmp_path / "parity.json"
    (result,) = numbers_of(benchmark("parity", "--models=resnet18", "--json", file), file)["results"]
    assert result["case"] == "resnet18 32, anchoring"
    assert 0 < result["median"] < 1e-4
