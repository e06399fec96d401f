"""docs/regression.md: its blocks run as they stand, and its numbers are those of the result files."""

import json
import re

import numpy as np
from commands import ROOT
from test_benchmarks_speed import benchmark, metrics_of, numbers_of

PAGE = (ROOT / "docs" / "regression.md").read_text()


def medians(file):
    """case -> implementation -> metric -> median."""
    table = {}
    for result in json.loads((ROOT / "docs" / "results" / file).read_text())["results"]:
        table.setdefault(result["case"], {}).setdefault(result["implementation"], {})[result["metric"]] = result[
            "median"
        ]
    return table


def test_its_blocks_run_and_what_they_make_makes_sense():
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/regression.md", "exec"), names)
    spread_of_targets = np.std(names["y_test"])
    assert names["metrics"].rmse(names["answer"].mean, names["y_test"]) < 0.85 * spread_of_targets
    assert names["metrics"].rmse(names["ensemble"].mean, names["y_test"]) < 0.85 * spread_of_targets
    assert set(np.unique(names["regimes"])) <= {0, 1, 2, 3}
    assert np.all(names["improvement"] >= 0)


def test_its_table_is_that_of_the_file():
    metrics = ("rmse", "nll", "coverage_90", "coverage_error")
    rows = [
        f"| {case} | {implementation} | " + " | ".join(f"{numbers[metric]:.3f}" for metric in metrics) + " |"
        for case, methods in medians("regression_cpu.json").items()
        for implementation, numbers in methods.items()
    ]
    assert len(rows) == 24
    for row in rows:
        assert row in PAGE


def test_the_benchmark_of_regression_runs_and_trains_at_equal_cost(tmp_path):
    file = tmp_path / "regression.json"
    methods = "--methods=anchored,ensemble-equal-training"
    content = numbers_of(benchmark("regression", "--seeds=1", "--steps=10", methods, "--json", file), file)
    asked = {"rmse", "nll", "coverage_90", "coverage_error", "spread"}
    assert metrics_of(content) == {
        (name, metric) for name in ("anchored", "ensemble-equal-training") for metric in asked
    }
    anchored, ensemble = content["environment"]["costs"].values()
    for cost in ("training_passes", "inference_passes"):
        assert anchored[cost] == ensemble[cost]
