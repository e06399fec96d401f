"""Benchmarks of all models: speed, memory and agreement with PyTorch."""

import numpy as np
from commands import assert_told
from test_benchmarks_speed import benchmark, numbers_of

SMALL = ("--batch_size=2", "--samples=2", "--image_size=32", "--implementations=anchor_jax")
METRICS = {"images_per_second", "fraction_of_peak", "peak_memory", "compile_time"}


def test_models_measures_every_pass(tmp_path):
    file = tmp_path / "models.json"
    done = benchmark("speed.models", *SMALL, "--models=resnet18", "--cases=anchored", "--json", file)
    content = numbers_of(done, file)
    peak, *results = content["results"]
    assert peak["metric"] == "flop_rate"
    by_case = {case: {r["metric"]: r for r in results if r["case"] == case} for case in {r["case"] for r in results}}
    assert {case.split(", ")[2] for case in by_case} == {"forward", "training"}
    for case, metrics in by_case.items():
        assert case.startswith("resnet18 32, anchored, ")
        assert metrics.keys() == METRICS
        assert np.median(metrics["images_per_second"]["samples"]) > 0
        assert 0 < metrics["fraction_of_peak"]["median"] < 1.5


def test_models_rejects_unknown_models():
    assert_told(benchmark("speed.models", "--models=resnet19"), 1, "unknown model 'resnet19'")


def test_parity_at_full_size(tmp_path):
    file = tmp_path / "parity.json"
    (result,) = numbers_of(benchmark("fidelity.parity", "--models=resnet18", "--json", file), file)["results"]
    assert result["case"] == "resnet18 32, anchoring"
    assert 0 < result["median"] < 1e-4
