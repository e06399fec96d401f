"""Published results in a comparison."""

import numpy as np
import pytest
from comparable_runs import (
    CORRUPTIONS,
    MASKED,
    compared,
    value_of,
    write_paper_run,
)

from anchor_jax import config as configuration
from anchor_jax.reporting.comparison import paper
from anchor_jax.reporting.comparison.methods import group_by_method, load
from configs import cifar10, cifar100, cifar100_wrn40_2


def test_configs_match_the_papers_protocol(tmp_path):
    for experiment in (cifar10, cifar100, cifar100_wrn40_2):
        folder = tmp_path / experiment.__name__
        runs = [
            write_paper_run(folder / kind, kind, experiment=experiment) for kind in ("standard", "anchored", "masked")
        ]
        assert [paper.protocol_mismatch(method) for method in group_by_method(load(runs))] == [None] * 3
        keys = {key for key in paper.PROTOCOL if not key.startswith("model.options.")}
        assert configuration.flatten(experiment.get_config()).keys() >= keys


def test_published_results_are_next_to_ours(tmp_path):
    runs = [
        write_paper_run(tmp_path / f"{kind}{seed}", kind, seed) for kind in ("standard", "masked") for seed in (0, 1)
    ]
    rows = {(row.method, row.quantity): row for row in compared(runs).paper}
    average = rows[MASKED, "mean of 19 corruptions and 5 severities, 1 reference"]
    assert average.paper == (0.808, None)
    ours = [value_of(folder, "corruptions", 1, "mean19/accuracy") for folder in runs[2:]]
    np.testing.assert_allclose((average.ours.mean, average.ours.std), (np.mean(ours), np.std(ours, ddof=1)))
    gain = rows[MASKED, "gain at severity 5 over the standard network, 1 reference"]
    assert gain.paper == (0.085, None)
    gains = [
        value_of(runs[2 + s], "corruptions", 1, "severity5/accuracy")
        - value_of(runs[s], "corruptions", 0, "severity5/accuracy")
        for s in (0, 1)
    ]
    np.testing.assert_allclose(gain.ours.mean, np.mean(gains))
    assert rows["standard", average.quantity].paper == (0.756, None)
    assert {row.source for row in rows.values()} == {"cifar10_corrupted"}


def test_cifar100_results_have_deviations_and_k_references(tmp_path):
    runs = [write_paper_run(tmp_path / kind, kind, experiment=cifar100) for kind in ("standard", "anchored")]
    figures = {row.quantity: row.paper for row in compared(runs).paper if row.method == "anchored"}
    assert figures["mean of 19 corruptions and 5 severities, 1 reference"] == (0.5070, 0.0044)
    assert figures["mean of 19 corruptions and 5 severities, K references"] == (0.5070, 0.0043)
    lacking = {
        row.quantity: row.missing for row in compared(runs, ("corruptions",), 1).paper if row.method == "anchored"
    }
    assert "needs more than 1 reference" in lacking["mean of 19 corruptions and 5 severities, K references"]


def test_published_results_depend_on_the_bank_size(tmp_path):
    bank = [("anchoring.bank_size", 50)]
    runs = [
        write_paper_run(tmp_path / "m", "masked", changes=bank),
        write_paper_run(tmp_path / "a", "anchored", changes=bank),
    ]
    assert {row.method: row.paper.value for row in compared(runs).paper} == {MASKED: 0.75, "anchored": 0.764}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("training.total_epochs", 8.0, "config.training.total_epochs is 8.0, in the paper 200.0"),
        ("model.options.width", 16, "config.model.options.width is 16, in the paper 64"),
        ("model.options.dropout_rate", 0.3, "config.model.options.dropout_rate is 0.3, in the paper not set"),
        ("anchoring.mask_prob", 0.2, "config.anchoring.mask_prob is 0.2, in the paper 0.0 or 0.25"),
        ("anchoring.bank_size", 7, "config.anchoring.bank_size is 7, in the paper 0 or 5"),
        ("data.name", "svhn_cropped", "config.data.name is 'svhn_cropped', in the paper 'cifar10' or 'cifar100'"),
    ],
)
def test_other_configs_have_no_published_result(tmp_path, key, value, reason):
    runs = [write_paper_run(tmp_path / f"m{seed}", "masked", seed, changes=[(key, value)]) for seed in (0, 1)]
    comparison = compared(runs)
    assert comparison.paper == ()
    [departure] = comparison.mismatches.values()
    assert departure.startswith(reason)


def test_unfinished_training_has_no_published_result(tmp_path):
    runs = [write_paper_run(tmp_path / f"m{seed}", "masked", seed, step=39_000) for seed in (0, 1)]
    [departure] = compared(runs).mismatches.values()
    assert "evaluated at step 39,000 of 78,000" in departure


def test_missing_results_of_ours_are_explained(tmp_path):
    runs = [write_paper_run(tmp_path / "m0", "masked", references=(10,)), write_paper_run(tmp_path / "m1", "masked", 1)]
    rows = compared(runs).paper
    assert {row.ours for row in rows} == {None}
    assert rows[0].missing == f"run python eval.py --workdir {runs[0]} --suites corruptions --num_references 1"
    assert rows[-1].missing == "needs a standard network trained with the paper's protocol among the runs"
    few = {"facts": {"members": CORRUPTIONS[:15]}}
    runs = [write_paper_run(tmp_path / f"few{seed}", "masked", seed, **few) for seed in (0, 1)]
    assert compared(runs).paper[0].missing == "needs exactly the 19 corruptions of the paper"
