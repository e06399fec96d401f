"""Scores of a comparison: by hand, by NumPy and by SciPy."""

import numpy as np
import pytest
from comparable_runs import (
    MASKED,
    NUM_EXAMPLES,
    compared,
    evaluated,
    table_of,
    value_of,
    write_three_methods,
)
from scipy import stats

from anchor_jax.reporting.comparison.statistics import paired, summary


@pytest.fixture(scope="module")
def three_methods(tmp_path_factory):
    return write_three_methods(tmp_path_factory.mktemp("three"))


def test_summary_matches_numpy(three_methods):
    entries = table_of(compared(three_methods), "clean").entries["nll"]
    values = [value_of(folder, "clean", 10, "nll") for folder in three_methods[:3]]
    assert entries["anchored"].summary.values == dict(enumerate(values))
    np.testing.assert_allclose(entries["anchored"].summary.mean, np.mean(values))
    np.testing.assert_allclose(entries["anchored"].summary.std, np.std(values, ddof=1))


def test_difference_over_seeds_is_a_paired_t_interval(three_methods):
    difference = table_of(compared(three_methods), "clean").entries["accuracy"]["anchored"].over_seeds
    anchored = np.array([value_of(folder, "clean", 10, "accuracy") for folder in three_methods[:3]])
    standard = np.array([value_of(folder, "clean", 0, "accuracy") for folder in three_methods[6:]])
    pairs = anchored - standard
    half = stats.t.ppf(0.975, 2) * pairs.std(ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(difference, (pairs.mean(), pairs.mean() - half, pairs.mean() + half, 3))


def test_difference_over_examples_averages_seeds_first(three_methods):
    entry = table_of(compared(three_methods), "clean").entries["brier"][MASKED]
    masked, standard = (
        np.mean([np.load(folder / f"eval/step12-bins15/clean-references{num}.npz")["brier"] for folder in runs], axis=0)
        for runs, num in ((three_methods[3:6], 10), (three_methods[6:], 0))
    )
    pairs = masked.astype(np.float64) - standard
    half = stats.t.ppf(0.975, NUM_EXAMPLES - 1) * stats.sem(pairs)
    expected = (pairs.mean(), pairs.mean() - half, pairs.mean() + half, NUM_EXAMPLES)
    np.testing.assert_allclose(entry.over_examples, expected, rtol=1e-5)


def test_difference_over_examples_is_close_to_the_bootstrap(three_methods):
    entry = table_of(compared(three_methods), "corruptions").entries["severity5/accuracy"][MASKED]
    masked, standard = (
        np.mean(
            [np.load(f / f"eval/step12-bins15/corruptions-references{num}.npz")["correct"][:, 4] for f in runs], (0, 1)
        )
        for runs, num in ((three_methods[3:6], 10), (three_methods[6:], 0))
    )
    interval = stats.bootstrap(
        ((masked - standard),), np.mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    width = interval.high - interval.low
    np.testing.assert_allclose(entry.over_examples.mean, (masked - standard).mean())
    np.testing.assert_allclose(entry.over_examples[1:3], interval, atol=0.1 * width)


def test_each_severity_and_corruption_has_an_interval(three_methods):
    entries = table_of(compared(three_methods), "corruptions").entries
    for metric in ("accuracy", "severity1/accuracy", "severity5/accuracy"):
        np.testing.assert_allclose(
            entries[metric]["anchored"].over_examples.mean, entries[metric]["anchored"].over_seeds.mean, atol=1e-12
        )
    assert entries["ece"]["anchored"].over_examples is None


def test_baseline_has_no_difference(three_methods):
    comparison = compared(three_methods)
    assert comparison.baseline.name == "standard"
    for entries in table_of(comparison, "clean").entries.values():
        assert entries["standard"][1:] == (None, None)


def test_standard_network_lacks_scores_of_disagreement(three_methods):
    entries = table_of(compared(three_methods), "ood").entries
    assert entries["mutual_information/auroc"].keys() == {"anchored", MASKED}
    assert entries["mutual_information/auroc"]["anchored"].over_seeds is None
    assert entries["energy/auroc"]["anchored"].over_seeds.num == 3


def test_one_seed_has_an_interval_over_examples_only(tmp_path):
    runs = [evaluated(tmp_path / kind, kind) for kind in ("standard", "anchored")]
    entry = table_of(compared(runs), "clean").entries["accuracy"]["anchored"]
    assert entry.summary.std is None
    assert entry.over_seeds.num == 1
    assert entry.over_seeds.low is None
    assert entry.over_examples.low < entry.over_examples.mean < entry.over_examples.high


def test_difference_uses_shared_seeds_only(tmp_path):
    runs = [evaluated(tmp_path / f"s{seed}", "standard", seed) for seed in (0, 1, 2)]
    runs += [evaluated(tmp_path / f"a{seed}", "anchored", seed) for seed in (1, 2, 5)]
    comparison = compared(runs)
    entry = table_of(comparison, "clean").entries["nll"]["anchored"]
    pairs = [value_of(runs[2 + s], "clean", 10, "nll") - value_of(runs[s], "clean", 0, "nll") for s in (1, 2)]
    np.testing.assert_allclose(entry.over_seeds.mean, np.mean(pairs))
    assert entry.over_seeds.num == 2
    assert len(entry.summary.values) == 3
    assert any("different seeds" in note for note in comparison.notes)


def test_without_a_shared_seed_examples_are_compared(tmp_path):
    runs = [evaluated(tmp_path / "s", "standard", 0), evaluated(tmp_path / "a", "anchored", 1)]
    entry = table_of(compared(runs), "clean").entries["accuracy"]["anchored"]
    assert entry.over_seeds is None
    assert entry.over_examples.num == NUM_EXAMPLES


@pytest.mark.parametrize("values", [[0.3, 0.6], [0.1, 0.1 + 1e-16]])
def test_difference_without_spread_has_no_interval(values):
    assert paired(np.array(values) + 0.1, np.array(values))[1:] == (None, None, 2)


def test_difference_of_equal_predictions_is_zero():
    assert paired(np.ones(5), np.ones(5)) == (0, None, None, 5)


def test_summary_of_one_value_has_no_deviation():
    assert summary({3: 0.5}) == ({3: 0.5}, 0.5, None)
