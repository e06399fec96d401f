"""Methods of a comparison: how runs are grouped, and which runs cannot be compared."""

import json
import re

import comparable_runs
import numpy as np
import pytest
from comparable_runs import (
    CORRUPTIONS,
    FACTS,
    LABELS,
    MASKED,
    begun,
    compared,
    config_of,
    evaluated,
    table_of,
    value_of,
    write_pair,
    write_three_methods,
)
from conftest import write_results

from anchor_jax.core.errors import UserError
from anchor_jax.evaluation import storage
from anchor_jax.evaluation.output import POINTER
from anchor_jax.evaluation.results import Score, SuiteResult
from anchor_jax.evaluation.same_data import compare_data
from anchor_jax.reporting.comparison.comparison import example_values
from anchor_jax.reporting.comparison.methods import group_by_method, load


@pytest.fixture(scope="module")
def three_methods(tmp_path_factory):
    return write_three_methods(tmp_path_factory.mktemp("three"))


@pytest.fixture
def pair(tmp_path):
    return write_pair(tmp_path)


def names_of(runs):
    return [method.name for method in group_by_method(load(runs))]


def test_method_ignores_seed_paths_and_evaluation(tmp_path):
    runs = [evaluated(tmp_path / "a", "anchored", 0, data__path="here", checkpoint__keep=1)]
    runs += [evaluated(tmp_path / "b", "anchored", 1, data__path="there", evaluation__num_bins=20)]
    [method] = group_by_method(load(runs))
    assert method.name == "anchored"
    assert [one.seed for one in method.runs] == [0, 1]


def test_methods_have_the_papers_names_and_order(three_methods):
    assert names_of(three_methods) == ["standard", "anchored", MASKED]


def test_overlays_are_methods_of_their_own(tmp_path):
    overlay = {"anchoring__mask_prob": 0.25, "anchoring__overlay_weight": -1.0}
    runs = [
        evaluated(tmp_path / "a", "standard", anchoring__mask_prob=0.5),
        evaluated(tmp_path / "b", "standard", 1, anchoring__mask_draw="periodic"),
        evaluated(tmp_path / "c", "standard", **overlay),
        evaluated(tmp_path / "d", "standard", 1, **overlay, anchoring__masked_target="label"),
    ]
    methods = group_by_method(load(runs))
    assert [len(method.runs) for method in methods] == [2, 2]
    assert [method.name for method in methods] == ["standard", "standard + overlay (0.25)"]


def test_method_names_list_the_differing_settings(tmp_path):
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


def test_settings_without_effect_do_not_make_a_method(tmp_path):
    runs = [
        evaluated(tmp_path / "a", "standard", 0),
        evaluated(tmp_path / "b", "standard", 1, anchoring__mask_prob=0.5, anchoring__bank_size=5),
        evaluated(tmp_path / "c", "anchored", 0, anchoring__mask_per="example"),
        evaluated(tmp_path / "d", "anchored", 1),
    ]
    assert names_of(runs) == ["standard", "anchored"]
    grouped = {f"anchoring__{key}": value for key, value in (("references", "batch"), ("group_size", 4))}
    masked = {"anchoring__mask_per": "group", **grouped}
    runs = [evaluated(tmp_path / "e", "masked", 0, **masked)]
    updates = {"anchoring__update_bn_when_masked": True}
    runs += [evaluated(tmp_path / "f", "masked", 1, **masked, **updates)]
    assert names_of(runs) == ["anchored + masking (0.25)"]
    masked["training__bn_group_size"] = 4  # a group of BatchNorm has one mask
    runs = [
        evaluated(tmp_path / "g", "masked", 0, **masked),
        evaluated(tmp_path / "h", "masked", 0, **masked, **updates),
    ]
    assert len(names_of(runs)) == 2


def test_orientation_makes_a_method_only_of_photographs(tmp_path):
    ways = [{}, {"data__orientation": "exif"}, {"data__orientation": "stored"}]
    small = [evaluated(tmp_path / f"small{seed}", "anchored", seed, **way) for seed, way in enumerate(ways)]
    assert names_of(small) == ["anchored"]
    folder = {"data__source": "folder", "data__image_size": 32}
    large = [evaluated(tmp_path / f"large{seed}", "anchored", seed, **way, **folder) for seed, way in enumerate(ways)]
    assert names_of(large) == ["anchored, orientation=stored", "anchored, orientation=default"]


def test_normalization_may_differ_slightly_within_a_method(tmp_path):
    runs = [evaluated(tmp_path / "a", "anchored", 0), evaluated(tmp_path / "b", "anchored", 1, data__mean=(0.501,))]
    runs += [evaluated(tmp_path / "c", "anchored", 2, data__mean=(0.6,))]
    assert names_of(runs) == ["anchored, data.mean=(0.5,)", "anchored, data.mean=(0.6,)"]


def test_load_takes_the_latest_evaluated_checkpoint(tmp_path):
    runs = [evaluated(tmp_path / kind, kind) for kind in ("standard", "anchored")]
    evaluated(runs[0], "standard", 3, step=100)
    (runs[1] / "eval/step500-bins15").mkdir()  # without results
    comparison = compared(runs)
    assert [one.step for method in comparison.methods for one in method.runs] == [100, 12]
    assert any("different steps" in note for note in comparison.notes)


def test_load_takes_calibration_bins_that_all_runs_have(tmp_path):
    runs = [evaluated(tmp_path / kind, kind, bins=20) for kind in ("standard", "anchored")]
    evaluated(runs[1], "anchored", bins=15)
    assert {one.num_bins for one in load(runs)} == {20}


def test_compare_takes_the_most_references_in_common(tmp_path):
    runs = [evaluated(tmp_path / "s", "standard"), evaluated(tmp_path / "a", "anchored", references=(1, 5, 10))]
    runs += [evaluated(tmp_path / "m", "masked", references=(1, 5, 20))]
    table = table_of(compared(runs), "clean")
    assert table.num_references == 5
    expected = value_of(runs[2], "clean", 5, "accuracy")
    assert table.entries["accuracy"][MASKED].summary.mean == expected
    assert table_of(compared(runs, (), 1), "clean").num_references == 1


def test_suite_that_a_run_lacks_is_left_out_with_a_note(tmp_path):
    runs = [evaluated(tmp_path / "s", "standard", suites=("clean", "ood")), evaluated(tmp_path / "a", "anchored")]
    comparison = compared(runs)
    assert [table.suite for table in comparison.suites] == ["clean"]
    [note] = comparison.notes
    assert note.startswith("ood is left out:")
    assert f"run python eval.py --workdir {runs[1]} --suites ood" in note


def test_note_on_transduction_asks_no_standard_network_for_it(tmp_path):
    runs = [evaluated(tmp_path / kind, kind) for kind in ("standard", "anchored")]
    result = SuiteResult("clean", 1, (Score("accuracy", 0.5),), {}, FACTS | {"step": 12}, "blt")
    storage.ResultStore(runs[1] / "eval/step12-bins15").add(result)
    comparison = compared(runs)
    assert [table.suite for table in comparison.suites] == ["clean"]
    [note] = comparison.notes
    assert note.startswith(f"clean-blt is left out: '{runs[0]}' is a standard network, which has no references")
    assert "eval.py" not in note


@pytest.mark.parametrize("requested", [None, 10])
def test_transduction_has_one_reference_whatever_is_requested(tmp_path, requested):
    runs = [evaluated(tmp_path / kind, kind) for kind in ("anchored", "masked")]
    for run in runs:
        result = SuiteResult("clean", 1, (Score("accuracy", 0.5),), {}, FACTS | {"step": 12}, "blt")
        storage.ResultStore(run / "eval/step12-bins15").add(result)
    comparison = compared(runs, (), requested)
    assert {table.suite: table.num_references for table in comparison.suites} == {"clean": 10, "clean-blt": 1}
    assert not comparison.notes


def test_standard_network_is_compared_with_every_protocol(tmp_path):
    runs = [evaluated(tmp_path / kind, kind) for kind in ("standard", "anchored")]
    at = "eval/step12-bins15"
    write_results(runs[0] / at, "protocols", FACTS, {0: ({"standard/accuracy": 0.5}, {})})
    of_anchored = {"random1/accuracy": 0.6, "randomK/accuracy": 0.7, "blt/accuracy": 0.8, "draws/0/1/accuracy": 0.6}
    write_results(runs[1] / at, "protocols", FACTS, {10: (of_anchored, {})})
    table = table_of(compared(runs), "protocols")
    assert table.headlines == ["random1/accuracy", "randomK/accuracy", "blt/accuracy"]
    differences = [table.entries[name]["anchored"].over_seeds.mean for name in table.headlines]
    np.testing.assert_allclose(differences, [0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("suite", "option", "others"),
    [
        ("protocols", "blt_references", {"blt_references": 1_000}),
        ("clean-blt", "blt_references", {"blt_references": 0}),
        ("probe", "probe_mask_prob", {"probe_mask_prob": 0.4}),
        ("probe", "probe_mask_prob", {}),
    ],
)
def test_different_options_of_anchored_runs_are_rejected(tmp_path, suite, option, others):
    runs = [evaluated(tmp_path / kind, kind) for kind in ("standard", "anchored", "masked")]
    at, scores = "eval/step12-bins15", ({"accuracy": 0.5}, {})
    for run, num, value in zip(runs, (0, 10, 10), (0, 50, 50), strict=True):
        facts = FACTS | ({"blt_references": value, "blt_bank": 99, "blt_residuals": 9} if "blt" in option else {})
        write_results(run / at, suite, facts | {"options": {option: value}}, {num: scores})
    comparison = compared(runs)
    assert table_of(comparison, suite)  # references do not matter to the standard network
    told = f"{suite}: BLT chooses among 50 of the 99 references of the bank, drawn at random, with 9 residuals."
    assert (told in comparison.notes) == ("blt" in option)
    write_results(runs[2] / at, suite, FACTS | {"options": others}, {10: scores})
    told = rf"{option} is 50 and {others.get(option, 'not recorded')}; evaluate both with the same --{option}"
    with pytest.raises(UserError, match=rf"{suite} of '.*anchored' and of '.*masked' were measured .*: {told}"):
        compared(runs)


def test_load_needs_two_runs(pair):
    with pytest.raises(UserError, match="at least two runs; got 1"):
        load(pair[:1])


def test_load_rejects_a_folder_without_a_run(pair, tmp_path):
    with pytest.raises(UserError, match=r"no run in '.*nothing'"):
        load([*pair, tmp_path / "nothing"])


def test_load_explains_how_to_evaluate_a_run(pair, tmp_path):
    run = begun(tmp_path / "new run", config_of("masked"))
    with pytest.raises(UserError, match=r"not evaluated; run python eval.py --workdir '.*new run' --suites clean"):
        load([*pair, run])


@pytest.mark.parametrize(
    ("limits", "limit", "how"),
    [
        ((50,), 0, "with --limit 50, not on all images; compare with --limit 50,"),
        ((0,), 50, "on all images, not with --limit 50; compare without --limit,"),
        ((20, 30), 50, "with --limit 20 and with --limit 30, not with --limit 50; compare with --limit 20,"),
    ],
)
def test_load_refuses_results_on_other_parts_of_the_images(tmp_path, limits, limit, how):
    other = evaluated(tmp_path / "a", "standard", limit=limit)
    for each in limits:
        run = evaluated(tmp_path / "b", "masked", limit=each)
    command = f"or run python eval.py --workdir {run} --suites clean --num_references 10" + " --limit 50" * bool(limit)
    with pytest.raises(UserError) as error:
        load([other, run], limit)
    assert str(error.value) == f"'{run}' is only evaluated {how} {command}"


def test_commands_for_results_outside_of_a_run_name_both(pair, tmp_path):
    out = (pair[1] / "eval").rename(tmp_path / "new out")
    (out / POINTER).write_text(json.dumps({"workdir": str(pair[1])}))
    run = load([pair[0], out])[1]
    start = f"python eval.py --workdir {pair[1]} --suites"
    assert run.command("ood", 10) == f"{start} ood --num_references 10 --out '{out}'"
    evaluated(pair[0], "standard", limit=50)
    with pytest.raises(UserError) as error:
        load([pair[0], out], 50)
    assert str(error.value).endswith(f"or run {start} clean --num_references 10 --limit 50 --out '{out}'")


def test_compare_refuses_limited_results_of_other_seeds():
    facts = [{"options": {"limit": 50, "seed": seed}} for seed in (0, 0, 1)]
    one, same, other = (SuiteResult("clean", 1, (), {}, of) for of in facts)
    assert not compare_data({"a": one, "b": same}).differ
    with pytest.raises(
        UserError, match=r"were .* different images, with --limit 50 --seed 0 and with --limit 50 --seed 1"
    ):
        compare_data({"a": one, "b": other})


def test_group_by_method_rejects_the_same_run_twice(pair):
    with pytest.raises(UserError, match="are the same run: config and seed 0 are equal; give only one"):
        group_by_method(load([*pair, pair[0]]))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"data__name": "svhn"}, "config.data.name of .* is '', of .* 'svhn'"),
        ({"data__test_split": "train"}, "config.data.test_split"),
    ],
)
def test_load_rejects_different_data(pair, tmp_path, changes, what):
    with pytest.raises(UserError, match=f"different data cannot be compared: {what}"):
        load([*pair, evaluated(tmp_path / "other", "masked", **changes)])


def test_load_rejects_different_classes(pair, tmp_path):
    other = begun(tmp_path / "other", config_of("masked"), ("cat", "dog"))
    with pytest.raises(UserError, match=r"the list of classes of .*, of .* \('cat', 'dog'\)"):
        load([*pair, evaluated(other, "masked")])


def test_compare_rejects_different_labels(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(comparable_runs, "LABELS", LABELS[::-1].copy())
    runs = [*pair, evaluated(tmp_path / "other", "masked")]
    with pytest.raises(UserError, match=r"clean of .* about different test sets: the labels of their examples differ"):
        compared(runs)


def test_compare_pairs_conformal_sets_by_image():
    arrays = {"lac_covered": np.array([True, False]), "lac_size": np.array([2, 0])}
    facts = {"scores": {"lac": "1 - p"}}
    one, other = (SuiteResult("conformal", 1, (), arrays | {"row": np.array(rows)}, facts) for rows in ([0, 3], [1, 2]))
    assert {name: of.tolist() for name, of in example_values(one).items()} == {
        "lac/coverage": [1.0, 0.0],
        "lac/set_size": [2.0, 0.0],
    }
    with pytest.raises(UserError, match="conformal of 'a' and of 'b' are about different test images"):
        compare_data({"a": one, "b": other})


@pytest.mark.parametrize(
    ("fact", "value"),
    [("source", ["generated on the device"]), ("members", CORRUPTIONS[:2]), ("num_examples", 7), ("seed", 3)],
)
def test_compare_rejects_different_corruptions(pair, tmp_path, fact, value):
    other = evaluated(tmp_path / "other", "masked", suites=("clean", "corruptions"), facts={fact: value})
    with pytest.raises(UserError, match=f"corruptions of .* are about different data: {fact} is"):
        compared([*pair, other])


@pytest.mark.parametrize(
    ("contents", "note"),
    [
        ("ab", "clean: the runs were evaluated on different data; differences are left out: '.*': digits test, 60 "),
        ("a-", "clean: the content of the evaluated data is unknown: '.*anchored'"),
        ("aa", ""),
    ],
)
def test_compare_shows_no_differences_across_data(tmp_path, contents, note):
    runs = [evaluated(tmp_path / kind, kind) for kind in ("standard", "anchored")]
    for run, content in zip(runs, contents, strict=True):
        file = next(run.glob("eval/*/clean.json"))
        record = json.loads(file.read_text())
        data = {"name": "digits", "split": "test", "num_examples": 60, "sha256": content * 64}
        for facts in record["facts_of"].values() if content != "-" else ():
            facts["data"] = data
        file.write_text(json.dumps(record))
    comparison = compared(runs)
    assert [bool(re.match(note, each)) for each in comparison.notes] == ([True] if note else [])
    entry = table_of(comparison, "clean").entry("anchored", metric="accuracy")
    assert ({entry.over_seeds, entry.over_examples} == {None}) == (contents == "ab")


def test_compare_accepts_members_in_another_order(pair, tmp_path):
    other = evaluated(
        tmp_path / "other", "masked", suites=("clean", "corruptions"), facts={"members": CORRUPTIONS[::-1]}
    )
    entry = table_of(compared([*pair, other]), "corruptions").entries["accuracy"][MASKED]
    np.testing.assert_allclose(entry.over_examples.mean, entry.over_seeds.mean)


def test_compare_rejects_runs_without_a_common_suite(tmp_path):
    runs = [evaluated(tmp_path / "s", "standard", suites=("ood",)), evaluated(tmp_path / "a", "anchored")]
    with pytest.raises(UserError, match=r"no suite in common; clean is left out: .* was not evaluated on clean"):
        compared(runs)


def test_compare_requires_the_requested_suite(pair):
    with pytest.raises(UserError, match=r"was not evaluated on ood at step 12; run python eval.py .* --suites ood"):
        compared(pair, ("clean", "ood"))


def test_compare_names_the_missing_references(tmp_path, pair):
    runs = [*pair, evaluated(tmp_path / "m", "masked", references=(1, 5))]
    message = "evaluated on clean with 1, 5 references, not with 10; run python eval.py .* --num_references 10"
    with pytest.raises(UserError, match=message):
        compared(runs, ("clean",), 10)
    runs[2] = evaluated(tmp_path / "m2", "masked", references=(5,))
    runs[1] = evaluated(tmp_path / "a2", "anchored", references=(10,))
    with pytest.raises(UserError, match=message.replace("1, 5", "5")):
        compared(runs, ("clean",))


def test_load_rejects_different_calibration_bins(tmp_path):
    runs = [evaluated(tmp_path / "s", "standard"), evaluated(tmp_path / "a", "anchored", bins=20)]
    with pytest.raises(UserError, match=r"no number of calibration bins in common: 15 in '.*'; 20 in '.*'; .*num_bins"):
        load(runs)
