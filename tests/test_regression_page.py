"""docs/regression.md: its Python blocks run, and its numbers are those of the result files."""

import json

import numpy as np
import pages
import pytest
from test_benchmarks_speed import benchmark, metrics_of, numbers_of

PAGE = (pages.DOCS / "regression.md").read_text()


def rows_of(file, cells_of):
    """Return a table row per case and implementation; `cells_of` maps their results by metric to cells."""
    results_of = {}
    for result in json.loads((pages.DOCS / "results" / file).read_text())["results"]:
        results_of.setdefault((result["case"], result["implementation"]), {})[result["metric"]] = result
    return [f"| {' | '.join([*key, *cells_of(results)])} |" for key, results in results_of.items()]


def medians(*metrics):
    return lambda results: [f"{results[metric]['median']:.3f}" if metric in results else "–" for metric in metrics]


def regrets(results):
    is_near = np.array(results["regret"]["samples"]) < 0.02
    return [*medians("regret_halfway", "regret")(results), str(is_near.sum())]


def test_python_blocks_run_and_beat_the_mean():
    names = pages.run(PAGE, "regression.md")
    spread_of_targets = np.std(names["y_test"])
    assert names["metrics"].rmse(names["answer"].mean, names["y_test"]) < 0.85 * spread_of_targets
    assert names["metrics"].rmse(names["ensemble"].mean, names["y_test"]) < 0.85 * spread_of_targets
    assert set(np.unique(names["regimes"])) == set(names["aj"].pager.Regime)
    assert names["improvement"].max() > 0


@pytest.mark.parametrize(
    ("file", "cells_of", "num_rows"),
    [
        ("regression_cpu.json", medians("rmse", "nll", "coverage_90", "coverage_error"), 24),
        (
            "risk_cpu.json",
            medians("false_negatives", "false_positives", "confusion_low", "confusion_high", "auroc"),
            16,
        ),
        ("optimisation_cpu.json", regrets, 6),
    ],
)
def test_tables_match_the_result_files(file, cells_of, num_rows):
    rows = rows_of(file, cells_of)
    assert len(rows) == num_rows
    table = [line for line in PAGE.splitlines() if line.startswith("| ") and line.count("|") == rows[0].count("|")]
    assert table[2:] == rows  # below the header


def test_regression_benchmark_has_equal_costs(tmp_path):
    file = tmp_path / "regression.json"
    methods = "--methods=anchored,ensemble-equal-training"
    content = numbers_of(benchmark("regression.regression", "--seeds=1", "--steps=10", methods, "--json", file), file)
    measured = {"rmse", "nll", "coverage_90", "coverage_error", "spread"}
    assert metrics_of(content) == {
        (name, metric) for name in ("anchored", "ensemble-equal-training") for metric in measured
    }
    anchored, ensemble = content["environment"]["costs"].values()
    for cost in ("training_passes", "inference_passes"):
        assert anchored[cost] == ensemble[cost]


def test_risk_benchmark_detects_large_errors(tmp_path):
    file = tmp_path / "risk.json"
    flags = "--seeds=1", "--steps=500", "--cases=square-with-pit"
    content = numbers_of(benchmark("regression.risk", *flags, "--json", file), file)
    expected = {
        (method, metric)
        for method in ("spread", "score-1", "score-2", "score-2-free")
        for metric in ("false_negatives", "auroc")
    }
    assert expected <= metrics_of(content)
    aurocs = {
        (each["case"], each["implementation"]): each["median"]
        for each in content["results"]
        if each["metric"] == "auroc"
    }
    assert aurocs["square-with-pit", "spread"] > 0.8
    assert aurocs["square-with-pit", "score-1"] > 0.8


def test_bayesopt_benchmark_beats_random_search(tmp_path):
    file = tmp_path / "bayesopt.json"
    flags = "--seeds=2", "--steps=10", "--candidates=300"
    content = numbers_of(benchmark("regression.bayesopt", *flags, "--json", file), file)
    regrets = {(each["case"], each["implementation"], each["metric"]): each["median"] for each in content["results"]}
    assert len(regrets) == 2 * 3 * 2
    for implementation in ("anchored", "gaussian-process"):
        assert regrets["ackley", implementation, "regret"] < 0.7 * regrets["ackley", "random", "regret"]
