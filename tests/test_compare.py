"""Evaluated runs side by side: the numbers by hand and by SciPy, what is grouped, what is refused, what is written."""

import csv
import json
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from commands import quick_command
from conftest import write_results
from scipy import stats

from anchor_jax import config as configuration
from anchor_jax.core.errors import UserError
from anchor_jax.reporting.comparison import compare, paper
from anchor_jax.reporting.comparison.comparison import compare_methods
from anchor_jax.reporting.comparison.methods import group_by_method, load
from anchor_jax.reporting.comparison.statistics import paired, summary
from anchor_jax.runs.record import Run, lock_workdir
from configs import cifar10, cifar100

CORRUPTIONS = [f"corruption_{letter}" for letter in "abcdefghijklmnopqrs"]  # 19, as in the paper
MASKED = "anchored + masking (0.25)"
QUALITY = {"standard": 0.7, "anchored": 0.75, "masked": 0.8}
NUM_EXAMPLES = 60
LABELS = np.random.default_rng(0).integers(0, 10, NUM_EXAMPLES).astype(np.int32)


def config_of(kind, seed=0, **changes):
    """A run's config; `changes` are flat keys with "__" for the dot."""
    config = configuration.base()
    config.seed = seed
    config.anchoring.enabled = kind != "standard"
    config.anchoring.mask_prob = 0.25 if kind == "masked" else 0.0
    config.data.mean, config.data.std = (0.5,), (0.25,)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def begun(folder, config, label_names=tuple("0123456789")):
    """The folder of a run, as training writes it."""
    anchored = config.anchoring.enabled
    references = np.zeros((3, 2, 2, 1), np.uint8) if anchored else None
    rows = np.arange(3) if anchored else None
    with lock_workdir(Run(folder, config, tuple(label_names), (2, 2, 1), "60 examples", rows, references)):
        pass
    return folder


def clean_of(rng, quality):
    correct = rng.random(NUM_EXAMPLES) < quality
    confidence = rng.uniform(0.1, 1, NUM_EXAMPLES).astype(np.float32)
    arrays = {
        "label": LABELS,
        "correct": correct,
        "confidence": confidence,
        "nll": rng.exponential(1 - quality, NUM_EXAMPLES).astype(np.float32),
        "brier": rng.uniform(0, 1 - quality, NUM_EXAMPLES).astype(np.float32),
    }
    metrics = {"accuracy": correct.mean(), "nll": arrays["nll"].mean(), "brier": arrays["brier"].mean()}
    return metrics | {"ece": rng.uniform(0, 1 - quality), "entropy": 0.5}, arrays


def corrupted_of(rng, quality, members):
    harder = quality - 0.1 * np.arange(5)[None, :, None]
    correct = rng.random((len(members), 5, NUM_EXAMPLES)) < harder
    metrics = {"accuracy": correct.mean(), "ece": rng.uniform(0, 0.2)}
    metrics |= {f"severity{s + 1}/accuracy": correct[:, s].mean() for s in range(5)}
    metrics |= {f"severity{s + 1}/ece": 0.02 * s for s in range(5)}
    if len(members) == 19:
        metrics["mean19/accuracy"] = metrics["accuracy"]
    return metrics, {"correct": correct}


def anomalies_of(rng, quality, anchored):
    scores = ("max_softmax", "energy", *["mutual_information"] * anchored)
    auroc = {f"{score}/auroc": quality + rng.uniform(0, 0.1) for score in scores}
    of_set = {f"svhn/{name}": value for name, value in auroc.items()}
    near = {f"near/{name}": value - 0.1 for name, value in auroc.items()}
    return auroc | of_set | near, {}


FACTS = {"num_bins": 15, "num_examples": NUM_EXAMPLES}
CORRUPTED = FACTS | {"source": ["cifar10_corrupted"], "members": CORRUPTIONS, "severities": [1, 2, 3, 4, 5]}


def evaluated(folder, kind, seed=0, *, step=12, references=(1, 10), suites=("clean",), facts=None, bins=15, **changes):
    """A run and what evaluation found, at one checkpoint; the numbers follow from kind, seed and K."""
    if not (folder / "run.json").exists():
        begun(folder, config_of(kind, seed, **changes))
    at, quality = folder / "eval" / f"step{step}-bins{bins}", QUALITY[kind]
    for num in references if kind != "standard" else (0,):
        rng = np.random.default_rng([zlib.crc32(kind.encode()), seed, num])
        corrupted_facts = CORRUPTED | (facts or {})
        made = {
            "clean": (FACTS, clean_of(rng, quality)),
            "corruptions": (corrupted_facts, corrupted_of(rng, quality, corrupted_facts["members"])),
            "ood": ({"members": ["svhn"]}, anomalies_of(rng, quality, kind != "standard")),
        }
        for suite in suites:
            of_suite, content = made[suite]
            write_results(at, suite, of_suite | {"step": step}, {num: content})
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three methods of three seeds each, on three suites."""
    folder, suites = tmp_path_factory.mktemp("three"), ("clean", "corruptions", "ood")
    return [
        evaluated(folder / f"{kind}{seed}", kind, seed, suites=suites)
        for kind in ("anchored", "masked", "standard")
        for seed in (0, 1, 2)
    ]


def compared(runs, *arguments):
    return compare_methods(group_by_method(load(runs)), *arguments)


def table_of(comparison, suite):
    return next(table for table in comparison.suites if table.suite == suite)


def value_of(folder, suite, num, metric):
    record = json.loads(next(folder.glob(f"eval/*/{suite}.json")).read_text())
    return record["results"][str(num)][metric]


# numbers


def test_mean_and_deviation_over_seeds_are_numpys(three):
    entries = table_of(compared(three), "clean").entries["nll"]
    values = [value_of(folder, "clean", 10, "nll") for folder in three[:3]]
    assert entries["anchored"].summary.values == dict(enumerate(values))
    np.testing.assert_allclose(entries["anchored"].summary.mean, np.mean(values))
    np.testing.assert_allclose(entries["anchored"].summary.std, np.std(values, ddof=1))


def test_difference_over_seeds_is_students_by_hand(three):
    difference = table_of(compared(three), "clean").entries["accuracy"]["anchored"].over_seeds
    anchored = np.array([value_of(folder, "clean", 10, "accuracy") for folder in three[:3]])
    standard = np.array([value_of(folder, "clean", 0, "accuracy") for folder in three[6:]])
    pairs = anchored - standard
    half = stats.t.ppf(0.975, 2) * pairs.std(ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(difference, (pairs.mean(), pairs.mean() - half, pairs.mean() + half, 3))


def test_difference_over_examples_averages_seeds_first(three):
    entry = table_of(compared(three), "clean").entries["brier"][MASKED]
    masked, standard = (
        np.mean([np.load(folder / f"eval/step12-bins15/clean-references{num}.npz")["brier"] for folder in runs], axis=0)
        for runs, num in ((three[3:6], 10), (three[6:], 0))
    )
    pairs = masked.astype(np.float64) - standard
    half = stats.t.ppf(0.975, NUM_EXAMPLES - 1) * stats.sem(pairs)
    expected = (pairs.mean(), pairs.mean() - half, pairs.mean() + half, NUM_EXAMPLES)
    np.testing.assert_allclose(entry.over_examples, expected, rtol=1e-5)


def test_difference_over_examples_is_close_to_the_bootstraps(three):
    entry = table_of(compared(three), "corruptions").entries["severity5/accuracy"][MASKED]
    masked, standard = (
        np.mean(
            [np.load(f / f"eval/step12-bins15/corruptions-references{num}.npz")["correct"][:, 4] for f in runs], (0, 1)
        )
        for runs, num in ((three[3:6], 10), (three[6:], 0))
    )
    interval = stats.bootstrap(
        ((masked - standard),), np.mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    width = interval.high - interval.low
    np.testing.assert_allclose(entry.over_examples.mean, (masked - standard).mean())
    np.testing.assert_allclose(entry.over_examples[1:3], interval, atol=0.1 * width)


def test_corruptions_have_an_interval_for_each_severity_and_member(three):
    entries = table_of(compared(three), "corruptions").entries
    for metric in ("accuracy", "severity1/accuracy", "severity5/accuracy"):
        np.testing.assert_allclose(
            entries[metric]["anchored"].over_examples.mean, entries[metric]["anchored"].over_seeds.mean, atol=1e-12
        )
    assert entries["ece"]["anchored"].over_examples is None


def test_baseline_has_no_difference(three):
    comparison = compared(three)
    assert comparison.baseline.name == "standard"
    for entries in table_of(comparison, "clean").entries.values():
        assert entries["standard"][1:] == (None, None)


def test_standard_network_lacks_scores_of_disagreement(three):
    entries = table_of(compared(three), "ood").entries
    assert entries["mutual_information/auroc"].keys() == {"anchored", MASKED}
    assert entries["mutual_information/auroc"]["anchored"].over_seeds is None
    assert entries["energy/auroc"]["anchored"].over_seeds.num == 3


def test_one_seed_each_has_an_interval_over_examples_alone(tmp_path):
    runs = [evaluated(tmp_path / kind, kind) for kind in ("standard", "anchored")]
    entry = table_of(compared(runs), "clean").entries["accuracy"]["anchored"]
    assert entry.summary.std is None
    assert entry.over_seeds.num == 1
    assert entry.over_seeds.low is None
    assert entry.over_examples.low < entry.over_examples.mean < entry.over_examples.high


def test_seeds_that_one_method_lacks_are_left_out_of_the_difference(tmp_path):
    runs = [evaluated(tmp_path / f"s{seed}", "standard", seed) for seed in (0, 1, 2)]
    runs += [evaluated(tmp_path / f"a{seed}", "anchored", seed) for seed in (1, 2, 5)]
    comparison = compared(runs)
    entry = table_of(comparison, "clean").entries["nll"]["anchored"]
    pairs = [value_of(runs[2 + s], "clean", 10, "nll") - value_of(runs[s], "clean", 0, "nll") for s in (1, 2)]
    np.testing.assert_allclose(entry.over_seeds.mean, np.mean(pairs))
    assert entry.over_seeds.num == 2
    assert len(entry.summary.values) == 3
    assert any("different seeds" in note for note in comparison.notes)


def test_no_shared_seed_leaves_test_examples(tmp_path):
    runs = [evaluated(tmp_path / "s", "standard", 0), evaluated(tmp_path / "a", "anchored", 1)]
    entry = table_of(compared(runs), "clean").entries["accuracy"]["anchored"]
    assert entry.over_seeds is None
    assert entry.over_examples.num == NUM_EXAMPLES


@pytest.mark.parametrize("values", [[0.3, 0.6], [0.1, 0.1 + 1e-16]])
def test_differences_without_spread_have_no_interval(values):
    assert paired(np.array(values) + 0.1, np.array(values))[1:] == (None, None, 2)


def test_same_predictions_differ_by_nothing():
    assert paired(np.ones(5), np.ones(5)) == (0, None, None, 5)


def test_one_value_has_no_deviation():
    assert summary({3: 0.5}) == ({3: 0.5}, 0.5, None)


# methods


def names_of(runs):
    return [method.name for method in group_by_method(load(runs))]


def test_runs_that_differ_in_seed_place_and_evaluation_are_one_method(tmp_path):
    runs = [evaluated(tmp_path / "a", "anchored", 0, data__path="here", checkpoint__keep=1)]
    runs += [evaluated(tmp_path / "b", "anchored", 1, data__path="there", evaluation__num_bins=20)]
    [method] = group_by_method(load(runs))
    assert method.name == "anchored"
    assert [one.seed for one in method.runs] == [0, 1]


def test_names_are_the_papers_and_standard_comes_first(three):
    assert names_of(three) == ["standard", "anchored", MASKED]


def test_other_settings_are_told_wherever_they_differ(tmp_path):
    runs = [
        evaluated(tmp_path / "a", "standard", training__batch_size=64),
        evaluated(tmp_path / "b", "standard", training__batch_size=32),
        evaluated(tmp_path / "c", "anchored", training__batch_size=64, model__name="mlp"),
        evaluated(tmp_path / "d", "masked", training__batch_size=64, anchoring__mask_per="example"),
        evaluated(tmp_path / "e", "masked", training__batch_size=64, anchoring__mask_prob=0.5),
    ]
    assert names_of(runs) == [
        "standard, model.name=resnet18, batch_size=64",
        "standard, model.name=resnet18, batch_size=32",
        "anchored, model.name=mlp, batch_size=64",
        "anchored + masking (0.25), model.name=resnet18, batch_size=64, mask_per=example",
        "anchored + masking (0.5), model.name=resnet18, batch_size=64, mask_per=batch",
    ]


def test_settings_without_effect_make_no_method(tmp_path):
    runs = [
        evaluated(tmp_path / "a", "standard", 0),
        evaluated(tmp_path / "b", "standard", 1, anchoring__mask_prob=0.5, anchoring__bank_size=5),
        evaluated(tmp_path / "c", "anchored", 0, anchoring__mask_per="example"),
        evaluated(tmp_path / "d", "anchored", 1),
    ]
    assert names_of(runs) == ["standard", "anchored"]


def test_normalisation_measured_on_what_another_seed_held_out_is_the_same(tmp_path):
    runs = [evaluated(tmp_path / "a", "anchored", 0), evaluated(tmp_path / "b", "anchored", 1, data__mean=(0.501,))]
    runs += [evaluated(tmp_path / "c", "anchored", 2, data__mean=(0.6,))]
    assert names_of(runs) == ["anchored, data.mean=(0.5,)", "anchored, data.mean=(0.6,)"]


def test_newest_checkpoint_is_taken(tmp_path):
    runs = [evaluated(tmp_path / kind, kind) for kind in ("standard", "anchored")]
    evaluated(runs[0], "standard", 3, step=100)
    (runs[1] / "eval/step500-bins15").mkdir()  # without results
    comparison = compared(runs)
    assert [one.step for method in comparison.methods for one in method.runs] == [100, 12]
    assert any("different steps" in note for note in comparison.notes)


def test_calibration_bins_that_all_have_are_taken(tmp_path):
    runs = [evaluated(tmp_path / kind, kind, bins=20) for kind in ("standard", "anchored")]
    evaluated(runs[1], "anchored", bins=15)
    assert {one.num_bins for one in load(runs)} == {20}


def test_most_references_that_all_have_are_taken(tmp_path):
    runs = [evaluated(tmp_path / "s", "standard"), evaluated(tmp_path / "a", "anchored", references=(1, 5, 10))]
    runs += [evaluated(tmp_path / "m", "masked", references=(1, 5, 20))]
    table = table_of(compared(runs), "clean")
    assert table.num_references == 5
    expected = value_of(runs[2], "clean", 5, "accuracy")
    assert table.entries["accuracy"][MASKED].summary.mean == expected
    assert table_of(compared(runs, (), 1), "clean").num_references == 1


def test_suite_that_one_run_lacks_is_left_out_and_told(tmp_path):
    runs = [evaluated(tmp_path / "s", "standard", suites=("clean", "ood")), evaluated(tmp_path / "a", "anchored")]
    comparison = compared(runs)
    assert [table.suite for table in comparison.suites] == ["clean"]
    [note] = comparison.notes
    assert note.startswith("ood is left out:")
    assert f"run python eval.py --workdir {runs[1]} --suites ood" in note


def test_standard_network_stands_beside_every_protocol(tmp_path):
    runs = [evaluated(tmp_path / kind, kind) for kind in ("standard", "anchored")]
    at = "eval/step12-bins15"
    write_results(runs[0] / at, "protocols", FACTS, {0: ({"standard/accuracy": 0.5}, {})})
    of_anchored = {"random1/accuracy": 0.6, "randomK/accuracy": 0.7, "blt/accuracy": 0.8, "draws/0/1/accuracy": 0.6}
    write_results(runs[1] / at, "protocols", FACTS, {10: (of_anchored, {})})
    table = table_of(compared(runs), "protocols")
    assert table.headlines == ["random1/accuracy", "randomK/accuracy", "blt/accuracy"]
    differences = [table.entries[name]["anchored"].over_seeds.mean for name in table.headlines]
    np.testing.assert_allclose(differences, [0.1, 0.2, 0.3])


# mistakes


@pytest.fixture
def pair(tmp_path):
    return [evaluated(tmp_path / kind, kind, suites=("clean", "corruptions")) for kind in ("standard", "anchored")]


def test_one_run_is_too_few(pair):
    with pytest.raises(UserError, match="at least two runs; got 1"):
        load(pair[:1])


def test_folder_without_a_run_is_refused(pair, tmp_path):
    with pytest.raises(UserError, match=r"no run in '.*nothing'"):
        load([*pair, tmp_path / "nothing"])


def test_run_that_is_not_evaluated_is_told_how_to(pair, tmp_path):
    run = begun(tmp_path / "new run", config_of("masked"))
    with pytest.raises(UserError, match=r"not evaluated; run python eval.py --workdir '.*new run' --suites clean"):
        load([*pair, run])


def test_same_run_twice_is_refused(pair):
    with pytest.raises(UserError, match="are the same run: config and seed 0 are equal; give only one"):
        group_by_method(load([*pair, pair[0]]))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"data__name": "svhn"}, "config.data.name of .* is '', of .* 'svhn'"),
        ({"data__test_split": "train"}, "config.data.test_split"),
    ],
)
def test_other_data_are_refused(pair, tmp_path, changes, what):
    with pytest.raises(UserError, match=f"different data cannot be compared: {what}"):
        load([*pair, evaluated(tmp_path / "other", "masked", **changes)])


def test_other_classes_are_refused(pair, tmp_path):
    other = begun(tmp_path / "other", config_of("masked"), ("cat", "dog"))
    with pytest.raises(UserError, match=r"the list of classes of .*, of .* \('cat', 'dog'\)"):
        load([*pair, evaluated(other, "masked")])


def test_other_labels_are_refused(pair, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "LABELS", LABELS[::-1].copy())
    runs = [*pair, evaluated(tmp_path / "other", "masked")]
    with pytest.raises(UserError, match=r"clean of .* about different test sets: the labels of their examples differ"):
        compared(runs)


@pytest.mark.parametrize(
    ("fact", "value"),
    [("source", ["generated on the device"]), ("members", CORRUPTIONS[:2]), ("num_examples", 7), ("seed", 3)],
)
def test_other_corruptions_are_refused(pair, tmp_path, fact, value):
    other = evaluated(tmp_path / "other", "masked", suites=("clean", "corruptions"), facts={fact: value})
    with pytest.raises(UserError, match=f"corruptions of .* are about different data: {fact} is"):
        compared([*pair, other])


def test_members_in_another_order_are_the_same(pair, tmp_path):
    other = evaluated(
        tmp_path / "other", "masked", suites=("clean", "corruptions"), facts={"members": CORRUPTIONS[::-1]}
    )
    entry = table_of(compared([*pair, other]), "corruptions").entries["accuracy"][MASKED]
    np.testing.assert_allclose(entry.over_examples.mean, entry.over_seeds.mean)


def test_no_suite_in_common_is_refused(tmp_path):
    runs = [evaluated(tmp_path / "s", "standard", suites=("ood",)), evaluated(tmp_path / "a", "anchored")]
    with pytest.raises(UserError, match=r"no suite in common; clean is left out: .* was not evaluated on clean"):
        compared(runs)


def test_suite_that_was_asked_for_is_needed(pair):
    with pytest.raises(UserError, match=r"was not evaluated on ood at step 12; run python eval.py .* --suites ood"):
        compared(pair, ("clean", "ood"))


def test_references_that_one_run_lacks_are_told(tmp_path, pair):
    runs = [*pair, evaluated(tmp_path / "m", "masked", references=(1, 5))]
    message = "evaluated on clean with 1, 5 references, not with 10; run python eval.py .* --num_references 10"
    with pytest.raises(UserError, match=message):
        compared(runs, ("clean",), 10)
    runs[2] = evaluated(tmp_path / "m2", "masked", references=(5,))
    runs[1] = evaluated(tmp_path / "a2", "anchored", references=(10,))
    with pytest.raises(UserError, match=message.replace("1, 5", "5")):
        compared(runs, ("clean",))


def test_other_calibration_bins_are_told(tmp_path):
    runs = [evaluated(tmp_path / "s", "standard"), evaluated(tmp_path / "a", "anchored", bins=20)]
    with pytest.raises(UserError, match=r"no number of calibration bins in common: 15 in '.*'; 20 in '.*'; .*num_bins"):
        load(runs)


# the paper


def of_paper(folder, kind, seed=0, *, experiment=cifar10, step=78_000, changes=(), **options):
    """A run with the config of the paper's protocol."""
    config = experiment.get_config()
    config.seed = seed
    config.anchoring.enabled = kind != "standard"
    config.anchoring.mask_prob = 0.25 if kind == "masked" else 0.0
    config.update_from_flattened_dict(dict(changes))
    begun(folder, config)
    return evaluated(folder, kind, seed, step=step, suites=("clean", "corruptions"), bins=20, **options)


def test_protocol_of_the_configs_is_the_papers(tmp_path):
    for experiment in (cifar10, cifar100):
        folder = tmp_path / experiment.__name__
        runs = [of_paper(folder / kind, kind, experiment=experiment) for kind in ("standard", "anchored", "masked")]
        assert [paper.protocol_mismatch(method) for method in group_by_method(load(runs))] == [None] * 3
        keys = {key for key in paper.PROTOCOL if not key.startswith("model.options.")}
        assert configuration.flatten(experiment.get_config()).keys() >= keys


def test_figures_stand_beside_ours_with_one_reference(tmp_path):
    runs = [of_paper(tmp_path / f"{kind}{seed}", kind, seed) for kind in ("standard", "masked") for seed in (0, 1)]
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


def test_figures_of_cifar_100_have_deviations_and_many_references(tmp_path):
    runs = [of_paper(tmp_path / kind, kind, experiment=cifar100) for kind in ("standard", "anchored")]
    figures = {row.quantity: row.paper for row in compared(runs).paper if row.method == "anchored"}
    assert figures["mean of 19 corruptions and 5 severities, 1 reference"] == (0.5070, 0.0044)
    assert figures["mean of 19 corruptions and 5 severities, K references"] == (0.5070, 0.0043)
    lacking = {
        row.quantity: row.missing for row in compared(runs, ("corruptions",), 1).paper if row.method == "anchored"
    }
    assert "needs more than 1 reference" in lacking["mean of 19 corruptions and 5 severities, K references"]


def test_figures_follow_the_size_of_the_bank(tmp_path):
    bank = [("anchoring.bank_size", 50)]
    runs = [of_paper(tmp_path / "m", "masked", changes=bank), of_paper(tmp_path / "a", "anchored", changes=bank)]
    assert {row.method: row.paper.value for row in compared(runs).paper} == {MASKED: 0.75, "anchored": 0.764}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("training.total_epochs", 8.0, "config.training.total_epochs is 8.0, in the paper 200.0"),
        ("model.options.width", 16, "config.model.options.width is 16, in the paper 64"),
        ("anchoring.mask_prob", 0.2, "config.anchoring.mask_prob is 0.2, in the paper 0.0 or 0.25"),
        ("anchoring.bank_size", 7, "config.anchoring.bank_size is 7, in the paper 0 or 5"),
        ("data.name", "svhn_cropped", "config.data.name is 'svhn_cropped', in the paper 'cifar10' or 'cifar100'"),
    ],
)
def test_other_configurations_have_no_figure(tmp_path, key, value, reason):
    runs = [of_paper(tmp_path / f"m{seed}", "masked", seed, changes=[(key, value)]) for seed in (0, 1)]
    comparison = compared(runs)
    assert comparison.paper == ()
    [departure] = comparison.mismatches.values()
    assert departure.startswith(reason)


def test_training_that_is_not_over_has_no_figure(tmp_path):
    runs = [of_paper(tmp_path / f"m{seed}", "masked", seed, step=39_000) for seed in (0, 1)]
    [departure] = compared(runs).mismatches.values()
    assert "evaluated at step 39,000 of 78,000" in departure


def test_what_a_figure_lacks_is_told(tmp_path):
    runs = [of_paper(tmp_path / "m0", "masked", references=(10,)), of_paper(tmp_path / "m1", "masked", 1)]
    rows = compared(runs).paper
    assert {row.ours for row in rows} == {None}
    assert rows[0].missing == f"run python eval.py --workdir {runs[0]} --suites corruptions --num_references 1"
    assert rows[-1].missing == "needs a standard network trained with the paper's protocol among the runs"
    few = {"facts": {"members": CORRUPTIONS[:15]}}
    runs = [of_paper(tmp_path / f"few{seed}", "masked", seed, **few) for seed in (0, 1)]
    assert compared(runs).paper[0].missing == "needs exactly the 19 corruptions of the paper"


# files


class Page(HTMLParser):
    """Checks that tags close in the order in which they open, and keeps what the page says and asks for."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.ids, self.links, self.sources = [], [], set(), set(), []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert attrs.get("id") not in self.ids
        self.ids |= {attrs["id"]} if "id" in attrs else set()
        self.links |= {attrs["href"]} if "href" in attrs else set()
        self.sources += [attrs["src"]] if "src" in attrs else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(folder):
    page = Page((folder / "compare.html").read_text(encoding="utf-8"))
    return page, " ".join(" ".join(page.text).split())


def test_page_is_well_formed_and_needs_nothing_beside_it(three, tmp_path, capsys):
    compare(three, tmp_path / "out")
    page, text = page_of(tmp_path / "out")
    assert {link.removeprefix("#") for link in page.links} <= page.ids
    assert len(page.sources) == 3 + 3 + 4  # dots and differences of each, reliability, severity, two groups of AUROC
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "Comparison of 9 runs" in text
    assert "config.data.source is 'digits', in the paper 'tfds'" in text
    told = capsys.readouterr().out
    assert "Corruptions, 10 references" in told
    assert f"report: {tmp_path / 'out/compare.html'}" in told


def test_names_of_sets_and_folders_are_text_not_markup(tmp_path):
    name = "<b>&amp;\"'[red]"
    runs = [evaluated(tmp_path / f"{kind}<i>&amp;", kind) for kind in ("standard", "anchored")]
    for run, num in zip(runs, (0, 1), strict=True):
        metrics = {"accuracy": 0.5 + 0.1 * num, f"{name}/accuracy": 0.5}
        write_results(run / "eval/step12-bins15", "shift", FACTS | {"members": [name]}, {num: (metrics, {})})
    compare(runs, tmp_path / "out")
    _, text = page_of(tmp_path / "out")
    assert f"accuracy, {name}" in text
    assert str(runs[0]) in text


def test_page_tells_that_corruptions_were_generated(tmp_path):
    for source, told in (("cifar10_corrupted", False), ("generated on the device", True)):
        folder = tmp_path / source
        runs = [of_paper(folder / kind, kind, facts={"source": [source]}) for kind in ("standard", "masked")]
        compare(runs, folder / "out", ("corruptions",))
        _, text = page_of(folder / "out")
        assert ("Our corruptions were generated from the test set" in text) == told
        assert source in text


def test_json_and_csv_hold_every_number(three, tmp_path):
    comparison = compare(three, tmp_path / "out")
    record = json.loads((tmp_path / "out/compare.json").read_text())
    entry = table_of(comparison, "clean").entries["nll"][MASKED]
    written = record["suites"]["clean"]["metrics"]["nll"][MASKED]
    assert (written["mean"], written["std"]) == (entry.summary.mean, entry.summary.std)
    assert written["seeds"] == {str(seed): value for seed, value in entry.summary.values.items()}
    assert written["difference_over_seeds"] == entry.over_seeds._asdict()
    assert record["methods"][MASKED]["runs"][1] == {
        "workdir": str(three[4]), "seed": 1, "step": 12, "num_bins": 15,
    }  # fmt: skip
    with (tmp_path / "out/compare.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    [line] = [
        line
        for line in lines
        if (line["suite"], line["metric"], line["method"], line["statistic"])
        == ("clean", "nll", MASKED, "difference_over_examples")
    ]
    assert tuple(float(line[part]) for part in ("value", "low", "high", "num")) == entry.over_examples
    assert line["num_references"] == "10"
    values = [line for line in lines if line["statistic"] == "value" and line["metric"] == "svhn/energy/auroc"]
    assert [(line["method"], line["seed"], line["num_references"]) for line in values[:3]] == [
        ("standard", str(seed), "0") for seed in (0, 1, 2)
    ]


def test_earlier_comparison_is_replaced_and_other_files_stay(pair, tmp_path):
    out = tmp_path / "out"
    compare(pair, out, ("corruptions",))
    (out / "notes.txt").write_text("mine")
    compare(pair, out, ("clean",))
    assert sorted(file.name for file in out.iterdir()) == ["compare.csv", "compare.html", "compare.json", "notes.txt"]
    assert json.loads((out / "compare.json").read_text())["suites"].keys() == {"clean"}


@pytest.mark.parametrize("content", ["", "{}", '{"kind": "something else"}', "[1]"])
def test_folder_of_something_else_is_left_alone(pair, tmp_path, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / "compare.json").write_text(content)
    with pytest.raises(UserError, match="holds something other than a comparison"):
        compare(pair, out)
    assert [(file.name, file.read_text()) for file in out.iterdir()] == [("compare.json", content)]


def test_run_and_file_are_no_place_for_a_report(pair, tmp_path):
    with pytest.raises(UserError, match="holds something other than a comparison"):
        compare(pair, pair[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; give a folder"):
        compare(pair, tmp_path / "file")
    with pytest.raises(UserError, match="cannot write to"):
        compare(pair, tmp_path / "file/out")


def test_methods_alone_are_shown_without_differences(tmp_path):
    runs = [evaluated(tmp_path / f"a{seed}", "anchored", seed) for seed in (0, 1)]
    comparison = compare(runs, tmp_path / "out")
    _, text = page_of(tmp_path / "out")
    assert "nothing to compare it with" in comparison.notes[0]
    assert comparison.notes[0] in text


# command line

COMPARE = ("-m", "anchor_jax.compare")


def test_command_takes_runs_beside_flags(pair, tmp_path):
    done = quick_command(
        "-m", "anchor_jax.compare", pair[0], "--out", tmp_path / "out", pair[1], "--suites=clean", "--num_references=1"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Clean test set, 1 reference" in done.stdout
    assert (tmp_path / "out/compare.html").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--out=x", "nowhere", "elsewhere"), 1, "no run in 'nowhere'"),
        (("nowhere", "elsewhere"), 2, "--out must have a value"),
    ],
)
def test_mistake_is_told_in_one_line(arguments, status, message):
    done = quick_command(*COMPARE, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1)
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
