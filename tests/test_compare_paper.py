"""Published results in a comparison."""

import numpy as np
import pytest
from commands import ROOT
from comparable_runs import (
    C_BAR,
    CORRUPTIONS,
    MASKED,
    compared,
    value_of,
    write_imagenet_run,
    write_paper_run,
)

from anchor_jax import config as configuration
from anchor_jax.reporting.comparison import paper
from anchor_jax.reporting.comparison.methods import group_by_method, load
from anchor_jax.reporting.comparison.paper_protocols import PROTOCOLS
from anchor_jax.reporting.comparison.paper_results import PUBLISHED
from configs import (
    cifar10,
    cifar100,
    cifar100_wrn40_2,
    imagenet_deit_s16,
    imagenet_regnet_y_800mf,
    imagenet_swin_v2_b,
    imagenet_swin_v2_s,
    imagenet_swin_v2_t,
    imagenet_vit_b16,
)

IMAGENET = {
    experiment.get_config().model.name: experiment
    for experiment in (
        imagenet_regnet_y_800mf,
        imagenet_deit_s16,
        imagenet_swin_v2_t,
        imagenet_swin_v2_s,
        imagenet_vit_b16,
        imagenet_swin_v2_b,
    )
}
WRN = [("model.name", "wrn40_2"), ("model.options.dropout_rate", 0.3)]
AVERAGE = "mean of 19 corruptions and 5 severities, 1 reference"
GAIN = "gain at severity 5 over the standard network, 1 reference"


def rows_of(runs, *arguments):
    return {(row.method, row.quantity): row for row in compared(runs, *arguments).paper}


@pytest.mark.parametrize("target", ["uniform", "label"])
def test_cifar_configs_match_the_published_protocol(tmp_path, target):
    changes = [("anchoring.masked_target", target)]
    for name, experiment in {"cifar10": cifar10, "cifar100": cifar100, "wrn": cifar100_wrn40_2}.items():
        runs = [
            write_paper_run(tmp_path / name / kind, kind, experiment=experiment, changes=changes)
            for kind in ("standard", "anchored", "masked")
        ]
        methods = group_by_method(load(runs))
        assert [paper.protocol_mismatch(method) for method in methods] == [None] * 3
        anchored = "no result of this method is published" if name == "wrn" else ""
        assert [paper.remark(method) for method in methods[:2]] == ["", anchored]
        assert f"the target of masked examples is {'the ' * (target == 'label')}{target}" in paper.remark(methods[2])


@pytest.mark.parametrize("model", IMAGENET)
def test_imagenet_configs_match_the_published_protocol(tmp_path, model):
    kinds = ("standard", "anchored", "masked")
    runs = [write_imagenet_run(tmp_path / kind, kind, IMAGENET[model], ("clean",)) for kind in kinds]
    methods = group_by_method(load(runs))
    assert [paper.protocol_mismatch(method) for method in methods] == [None] * 3
    assert [bool(paper.published_results(method)) for method in methods] == [True, False, True]
    assert paper.remark(methods[1]) == "no result of this method is published"


def test_protocols_name_config_keys_and_published_models():
    known = set(configuration.flatten(configuration.base()))
    for protocol in PROTOCOLS.values():
        for recipe in protocol.recipes.values():
            keys = {key for key in [*protocol.keys, *recipe] if not key.startswith("model.options.")}
            assert keys <= known
    models = {(data, model) for data, protocol in PROTOCOLS.items() for model in protocol.recipes}
    assert {key for by_key in PUBLISHED.values() for key in by_key} == models


def test_published_results_are_next_to_ours(tmp_path):
    runs = [
        write_paper_run(tmp_path / f"{kind}{seed}", kind, seed) for kind in ("standard", "masked") for seed in (0, 1)
    ]
    rows = rows_of(runs)
    average = rows[MASKED, AVERAGE]
    assert average.paper == (0.808, None, "paper")
    ours = [value_of(folder, "corruptions", 1, "mean19/accuracy") for folder in runs[2:]]
    np.testing.assert_allclose((average.ours.mean, average.ours.std), (np.mean(ours), np.std(ours, ddof=1)))
    gain = rows[MASKED, GAIN]
    assert gain.paper == (0.085, None, "project page")
    gains = [
        value_of(runs[2 + s], "corruptions", 1, "severity5/accuracy")
        - value_of(runs[s], "corruptions", 0, "severity5/accuracy")
        for s in (0, 1)
    ]
    np.testing.assert_allclose(gain.ours.mean, np.mean(gains))
    assert rows["standard", AVERAGE].paper == (0.756, None, "paper")
    clean = rows[MASKED, "clean accuracy, 1 reference"]
    assert clean.paper.value == 0.957
    np.testing.assert_allclose(clean.ours.mean, np.mean([value_of(f, "clean", 1, "accuracy") for f in runs[2:]]))
    assert {row.suite: row.source for row in rows.values()} == {"corruptions": "cifar10_corrupted", "clean": "cifar10"}


def test_cifar100_results_have_deviations_and_k_references(tmp_path):
    runs = [write_paper_run(tmp_path / kind, kind, experiment=cifar100) for kind in ("standard", "anchored")]
    figures = {row.quantity: row.paper for row in compared(runs).paper if row.method == "anchored"}
    assert figures[AVERAGE] == (0.5070, 0.0044, "paper")
    assert figures["mean of 19 corruptions and 5 severities, K references"] == (0.5070, 0.0043, "paper")
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
        ("model.name", "wrn40_2", "config.model.name is 'wrn40_2', published for 'resnet18'"),
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
    assert {row.suite for row in compared(runs, ("clean",)).paper} == {"clean"}
    few = {"facts": {"members": CORRUPTIONS[:15]}}
    runs = [write_paper_run(tmp_path / f"few{seed}", "masked", seed, **few) for seed in (0, 1)]
    assert compared(runs).paper[0].missing.startswith("needs the 19 corruptions of the paper; run python eval.py ")


def test_gain_is_over_the_same_network(tmp_path):
    other = write_paper_run(tmp_path / "resnet", "standard", experiment=cifar100)
    same, masked = (
        write_paper_run(tmp_path / kind, kind, experiment=cifar100, changes=WRN) for kind in ("standard", "masked")
    )

    def gain_of(*runs):
        return next(row for row in compared(runs).paper if row.quantity == GAIN)

    assert gain_of(same, masked).paper.value == 0.055
    accuracies = [value_of(run, "corruptions", int(run is masked), "severity5/accuracy") for run in (same, masked)]
    assert gain_of(other, same, masked).ours.mean == pytest.approx(accuracies[1] - accuracies[0])
    assert gain_of(other, masked).missing.startswith("needs a standard network trained with the paper's protocol")


def test_imagenet_results_are_of_each_suite(tmp_path):
    runs = [write_imagenet_run(tmp_path / kind, kind, imagenet_swin_v2_t) for kind in ("standard", "masked")]
    rows = {row.quantity.split(",")[0].split(":")[0]: row for row in compared(runs).paper if row.method != "standard"}
    assert {name: row.paper.value for name, row in rows.items()} == {
        "ImageNet-C": 0.386,
        "ImageNet-C̄": 0.517,
        "ImageNet-R": 0.412,
        "ImageNet-Sketch": 0.277,
        "smoothed ECE": 0.117,
        "AUROC of NINCO by energy": 0.785,
    }

    def value(suite, metric):
        return value_of(runs[1], suite, 1, metric)

    def at_severity_5(members):
        return np.mean([value("corruptions", f"{member}/5/accuracy") for member in members])

    assert {name: row.ours.mean for name, row in rows.items()} == {
        "ImageNet-C": pytest.approx(at_severity_5(CORRUPTIONS)),
        "ImageNet-C̄": pytest.approx(at_severity_5(C_BAR)),
        "ImageNet-R": value("shift", "ImageNet-R/accuracy"),
        "ImageNet-Sketch": value("shift", "sketch-test/accuracy"),
        "smoothed ECE": value("clean", "smooth_ece"),
        "AUROC of NINCO by energy": value("ood", "NINCO/energy/auroc"),
    }
    assert "without their severity" in rows["ImageNet-C"].note
    assert {row.paper.source for row in rows.values()} == {"paper"}


def test_imagenet_results_that_are_missing_have_a_command(tmp_path):
    runs = [
        write_imagenet_run(tmp_path / kind, kind, imagenet_deit_s16, ("clean", "shift"))
        for kind in ("standard", "masked")
    ]
    rows = [row for row in compared(runs).paper if row.method == "standard"]
    start = f"run python eval.py --workdir {runs[0]} --suites "
    assert [row.missing for row in rows] == [
        *[f"{start}corruptions --num_references 1 --corruptions tfds:imagenet2012_corrupted,generated-c-bar"] * 2,
        *[""] * 3,
        f"{start}ood --num_references 1 --ood images:PATH/NINCO",
    ]
    assert {row.paper.source for row in rows} == {"project page"}


def test_page_on_imagenet_has_the_published_numbers():
    page = (ROOT / "docs/imagenet.md").read_text()
    for source, by_key in PUBLISHED.items():
        for (data, model), results in by_key.items():
            if data == "imagenet2012":
                cells = " | ".join(f"{k['standard'][0][0]} → {k['anchored + masking'][0][0]}" for k in results.values())
                [line] = [line for line in page.splitlines() if line.endswith(f" | {cells} |")]
                assert ("(project page)" in line) == (source == "project page"), model


@pytest.mark.parametrize(
    ("label_names", "reason"),
    [
        ([f"n{number:08}" for number in range(1_000)], None),
        ([f"n{number:08}" for number in range(100)], "config.data.source is 'folder', in the paper 'tfds'"),
        ([f"class {number}" for number in range(1_000)], "config.data.source is 'folder', in the paper 'tfds'"),
    ],
    ids=["ImageNet", "part of it", "other classes"],
)
def test_imagenet_in_folders_is_known_by_its_classes(tmp_path, label_names, reason):
    changes = [("data.source", "folder"), ("data.name", ""), ("data.test_split", "val")]
    options = {"changes": changes, "label_names": label_names}
    runs = [
        write_imagenet_run(tmp_path / kind, kind, imagenet_vit_b16, ("clean",), **options)
        for kind in ("standard", "masked")
    ]
    assert {paper.protocol_mismatch(method) for method in group_by_method(load(runs))} == {reason}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("optimizer.learning_rate", 0.1, "config.optimizer.learning_rate is 0.1, in the published recipe 0.0001"),
        ("anchoring.mask_prob", 0.25, "config.anchoring.mask_prob is 0.25, in the published recipe 0.0 or 0.2"),
        ("data.test_split", "validation[:9]", "config.data.test_split is 'validation[:9]', in the published recipe"),
        ("model.name", "resnet50", "config.model.name is 'resnet50', published for 'regnet_y_800mf' or 'deit_s16'"),
        ("model.options.window", 4, "config.model.options.window is 4, in the published recipe not set"),
        ("training.total_epochs", 300.0, "config.training.total_epochs is 300.0, in the published recipe 400.0"),
    ],
)
def test_other_imagenet_configs_have_no_published_result(tmp_path, key, value, reason):
    options = {"changes": [(key, value)]}
    runs = [
        write_imagenet_run(tmp_path / str(seed), "masked", imagenet_swin_v2_s, ("clean",), seed=seed, **options)
        for seed in (0, 1)
    ]
    comparison = compared(runs)
    assert comparison.paper == ()
    [departure] = comparison.mismatches.values()
    assert departure.startswith(reason)
