"""Scores and their names, results on disk, and the import of results of version 0.1."""

import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_results
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor_jax import UserError
from anchor_jax.evaluation import Score, SuiteResult, load_results, storage
from anchor_jax.evaluation.legacy import import_facts, import_scores
from anchor_jax.evaluation.results import SCHEMA, flat_name, to_frame
from anchor_jax.evaluation.storage import ResultStore
from anchor_jax.metrics import specs

FACTS = {"step": 12, "num_bins": 15, "devices": ["cpu"], "versions": {"jax": "0.1"}, "seconds": 1.5, "anchored": True}
FIXTURE = Path(__file__).parent / "fixtures/run_0_1_0.tar.gz"


def clean(values, num_references=1, facts=FACTS, **arrays):
    return SuiteResult("clean", num_references, tuple(Score(*item) for item in values.items()), arrays, facts)


# scores and their names


@pytest.mark.parametrize(
    ("suite", "name", "fields"),
    [
        ("clean", "accuracy", {}),
        ("clean", "mean_logits_ece", {"prediction": "mean_logits"}),
        ("clean", "scaled_nll", {"prediction": "scaled"}),
        ("clean", "temperature", {}),
        ("corruptions", "fog/3/scaled_ece", {"corruption": "fog", "severity": 3, "prediction": "scaled"}),
        ("corruptions", "noise/a/3/ece", {"corruption": "noise/a", "severity": 3}),
        ("corruptions", "fog/ece", {"corruption": "fog"}),
        ("corruptions", "severity5/ece", {"severity": 5}),
        ("corruptions", "mean19/accuracy", {"group": "mean19"}),
        ("corruptions", "mce", {}),
        ("shift", "sketch/top5_accuracy", {"dataset": "sketch"}),
        ("ood", "x/y/energy/auroc", {"dataset": "x/y", "score": "energy"}),
        ("ood", "near/max_softmax/fpr95", {"group": "near", "score": "max_softmax"}),
        ("ood", "energy/auroc", {"score": "energy"}),
        ("protocols", "draws/3/10/accuracy", {"draw": 3, "draw_size": 10}),
        ("protocols", "randomK/seconds_per_1000", {"protocol": "randomK"}),
        ("probe", "digits/accuracy", {"dataset": "digits"}),
        ("weather", "rain", {}),
    ],
)
def test_flat_names_are_those_that_version_0_1_wrote(suite, name, fields):
    (score,) = import_scores(suite, {name: 0.5})
    metric = name.rpartition("/")[2].removeprefix("mean_logits_").removeprefix("scaled_")
    assert score == Score(metric, 0.5, **fields)
    assert flat_name(score) == name


def test_import_facts_renames_the_options():
    assert import_facts({"asked": {"seed": 0}, "step": 1}) == {"options": {"seed": 0}, "step": 1}


def test_suite_result_finds_scores_by_their_fields():
    scores = (Score("ece", 0.1), Score("ece", 0.2, severity=3), Score("ece", 0.3, prediction="scaled"))
    result = SuiteResult("corruptions", 10, scores, protocol="blt")
    assert result.name == "corruptions-blt"
    assert result.value("ece") == 0.1
    assert result.value("ece", severity=3) == 0.2
    assert result.value("ece", prediction="scaled") == 0.3
    assert result.value("ece", severity=4) is None
    assert result.metrics == {"ece": 0.1, "severity3/ece": 0.2, "scaled_ece": 0.3}
    with pytest.raises(TypeError, match="sevrity"):
        result.value("ece", sevrity=3)


def test_suite_result_rejects_scores_with_the_same_name():
    twice = SuiteResult("clean", 1, (Score("ece", 0.1), Score("ece", 0.2)))
    with pytest.raises(ValueError, match="scores of 'clean' must differ in their names"):
        _ = twice.metrics


def test_to_frame_has_one_typed_row_per_score():
    scores = (Score("ece", 0.1, corruption="fog", severity=3), Score("accuracy", 0.5, protocol="blt", draw=0))
    frame = to_frame([SuiteResult("corruptions", 10, scores, facts=FACTS)])
    assert frame.dtypes.astype(str).to_dict() == SCHEMA
    row = frame.iloc[0].dropna().to_dict()
    assert row == {
        **{"step": 12, "num_bins": 15, "suite": "corruptions", "protocol": "random", "num_references": 10},
        **{"corruption": "fog", "severity": 3, "prediction": "mean_probs", "metric": "ece", "value": 0.1},
    }
    assert frame.loc[1, "protocol"] == "blt"
    assert frame.loc[1, "draw"] == 0
    assert to_frame([]).dtypes.astype(str).to_dict() == SCHEMA


def test_metric_specs_have_formats_for_their_values():
    for name, spec in specs.SPECS.items():
        assert spec.name == name
        assert float(spec.text(0.25).replace(",", "")) == pytest.approx(25 if spec.is_fraction else 0.25, abs=0.3)
    assert specs.get("unheard_of").title == "unheard of"
    assert specs.get("ece").text(-0.01, signed=True) == "\N{MINUS SIGN}1.00"


# results on disk


def test_stored_results_come_back(tmp_path):
    arrays = {"in/energy": np.float32([1, 2]), "images": np.zeros((1, 2, 2, 3), np.uint8), "correct": np.array([True])}
    scores = (Score("a", 0.1, dataset="x/y", score="s"), Score("n", np.float32(0.5), draw=1, draw_size=2))
    store = ResultStore(tmp_path / "eval/step1-bins15")
    first = SuiteResult("ood", 10, scores, arrays, FACTS)
    second = SuiteResult("ood", 0, (Score("a", 1 / 3),), {}, FACTS)
    third = SuiteResult("ood", 1, (Score("a", 1 / 3),), {}, FACTS, protocol="blt")
    for result in (first, second, third):
        assert store.add(result) is None
    back = storage.read(store.folder)
    assert list(back) == ["ood", "ood-blt"]
    assert list(back["ood"]) == [0, 10]
    assert back["ood"][0] == second
    assert back["ood-blt"][1] == third
    assert (back["ood"][10].scores, back["ood"][10].facts) == (scores, FACTS)
    assert back["ood"][10].arrays.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(back["ood"][10].arrays[name], values, strict=True)
    with pytest.raises(KeyError, match="nothing"):
        back["ood"][10].arrays["nothing"]
    assert store.results.keys() == back.keys()
    assert store.results["ood"].keys() == back["ood"].keys()


finite = st.floats(allow_nan=False, allow_infinity=False)
fields = st.fixed_dictionaries(
    {"metric": st.text()},
    optional={"dataset": st.text(), "corruption": st.text(), "severity": st.integers(1, 5), "score": st.text()},
)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.integers(0, 10_000), st.lists(st.tuples(fields, finite), min_size=1), min_size=1, max_size=4))
def test_stored_scores_are_exact(tmp_path_factory, numbers):
    store = ResultStore(tmp_path_factory.mktemp("numbers"))
    for num, of_num in numbers.items():
        scores = {flat_name(score): score for score in (Score(value=value, **of) for of, value in of_num)}
        store.add(SuiteResult("clean", num, tuple(scores.values())))
    back = storage.read(store.folder)["clean"]
    assert {num: of.metrics for num, of in back.items()} == {
        num: of.metrics for num, of in store.results["clean"].items()
    }
    assert list(back) == sorted(numbers)


def test_read_of_a_missing_folder_is_empty(tmp_path):
    assert storage.read(tmp_path / "not there") == {}
    ResultStore(tmp_path).add(clean({"a": 1.0}))
    (tmp_path / "report.json").write_text("{")
    assert list(storage.read(tmp_path)) == ["clean"]


def test_store_keeps_other_numbers_of_references(tmp_path):
    store = ResultStore(tmp_path)
    store.add(clean({"x": 1.0}, 1, {"members": ["a"]}, v=np.ones(1)))
    store.add(clean({"x": 2.0}, 2, {"members": ["a"]}, v=np.ones(1)))
    ResultStore(tmp_path).add(clean({"y": 3.0}, 2, {"members": ["b"]}, v=np.zeros(2)))
    back = storage.read(tmp_path)["clean"]
    assert {num: of.metrics for num, of in back.items()} == {1: {"x": 1.0}, 2: {"y": 3.0}}
    assert {num: of.facts for num, of in back.items()} == {1: {"members": ["a"]}, 2: {"members": ["b"]}}
    assert json.loads((tmp_path / "clean.json").read_text())["facts"] == {"members": ["b"]}
    assert [len(of.arrays["v"]) for of in back.values()] == [1, 2]
    ResultStore(tmp_path).add(clean({"x": 1.0}, 1))
    assert storage.read(tmp_path)["clean"][1].arrays == {}


def test_store_moves_results_with_other_options(tmp_path):
    store = ResultStore(tmp_path)
    for num in (1, 2):
        store.add(clean({"x": 1.0}, num, {"options": {"seed": 0}}, v=np.ones(1)))
    assert store.add(clean({"x": 2.0}, 2, {"options": {"seed": 1}})) == tmp_path / "earlier/1"
    assert store.results["clean"].keys() == storage.read(tmp_path)["clean"].keys() == {2}
    assert storage.read(tmp_path / "earlier/1")["clean"].keys() == {1, 2}
    assert len(storage.read(tmp_path / "earlier/1")["clean"][2].arrays["v"]) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_store_rejects_scores_that_are_not_finite(tmp_path, value):
    bad = SuiteResult("clean", 10, (Score("nll", value, corruption="fog", severity=3),), {"v": np.ones(1)})
    message = r"scores must be finite; got fog/3/nll = -?(nan|inf) of clean with 10 references"
    with pytest.raises(ValueError, match=message):
        ResultStore(tmp_path).add(bad)
    assert list(tmp_path.iterdir()) == []


def test_store_rejects_facts_that_are_not_json(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        ResultStore(tmp_path).add(clean({"x": 1.0}, 1, {"when": {1, 2}}, v=np.ones(1)))
    assert list(tmp_path.iterdir()) == []


def test_store_keeps_earlier_files_if_writing_fails(tmp_path, monkeypatch):
    ResultStore(tmp_path).add(clean({"x": 1.0}, v=np.ones(1)))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(file, **arrays):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match=r"cannot write to '.*' \(No space left on device\); free some space"):
        ResultStore(tmp_path).add(clean({"x": 2.0}, v=np.zeros(1)))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_store_rejects_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="cannot write to"):
        ResultStore(tmp_path / "taken").add(clean({"a": 1.0}, v=np.ones(1)))


def test_summaries_are_the_same_frame(tmp_path):
    store = ResultStore(tmp_path / "eval/step12-bins15")
    store.add(SuiteResult("ood", 10, (Score("auroc", 0.1, dataset="x", score="s"),), facts=FACTS))
    store.add(clean({"accuracy": 1 / 3}))
    store.write_summaries()
    frame = to_frame([store.results["clean"][1], store.results["ood"][10]])
    for folder in (tmp_path / "eval", store.folder):
        pd.testing.assert_frame_equal(pd.read_parquet(folder / "results.parquet"), frame)
        from_csv = pd.read_csv(folder / "results.csv").astype(SCHEMA)
        pd.testing.assert_frame_equal(from_csv, frame, check_exact=True)
    metrics = json.loads((tmp_path / "eval/metrics.json").read_text())
    assert metrics == {"clean": {"1": {"accuracy": 1 / 3}}, "ood": {"10": {"x/s/auroc": 0.1}}}
    pd.testing.assert_frame_equal(load_results(tmp_path), frame)


# corrupt files


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "indices"),
        ('{"suite": "clean", "facts": {}}', "'results'"),
        ('{"suite": "clean", "facts": {}, "results": {}}', "holds no results of 'clean'"),
        ('{"suite": "shift", "facts": {}, "results": {"1": {"a": 1}}}', "holds no results of 'clean'"),
        ('{"suite": "clean", "facts": {}, "results": {"one": {"a": 1}}}', "invalid literal"),
        ('{"suite": "clean", "facts": {}, "results": {"1": {"a": "x"}}}', "could not convert"),
        ('{"suite": "clean", "facts": {}, "results": {"1": {"a": NaN}}}', "holds NaN"),
        ('{"suite": "clean", "facts": {}, "results": {"1": {"a": 1}}, "facts_of": {"2": {}}}', "holds no results"),
        ('{"suite": "clean", "facts": {}, "results": {"1": {"a": 1}}, "scores": {}}', "'a'"),
        ('{"suite": "clean", "facts": {}, "results": {"1": {"a": 1}}, "scores": {"a": {"metric": 1}}}', "for a"),
        ('{"suite": "clean", "facts": {}, "results": {"1": {"a": 1}}, "scores": {"a": {"metric": "b"}}}', "the name a"),
        ("\xff", "decode"),
    ],
)
def test_read_rejects_corrupt_scores_in_one_line(tmp_path, text, reason):
    (tmp_path / "clean.json").write_text(text, encoding="latin-1")
    for read in (storage.read, ResultStore):
        with pytest.raises(UserError, match=r"clean\.json' is corrupt \(.*\); move it away$") as raised:
            read(tmp_path)
        assert reason in str(raised.value)
        assert "\n" not in str(raised.value)
    assert (tmp_path / "clean.json").read_text(encoding="latin-1") == text
    assert len(list(tmp_path.iterdir())) == 1


def test_read_rejects_corrupt_arrays_in_one_line(tmp_path):
    ResultStore(tmp_path).add(clean({"x": 1.0}, v=np.arange(500), w=np.ones(3)))
    file = tmp_path / "clean-references1.npz"
    complete = file.read_bytes()
    for corrupt in (b"", b"nothing of the kind", complete[: len(complete) // 2]):
        file.write_bytes(corrupt)
        with pytest.raises(UserError, match=r"clean-references1\.npz' is corrupt \(.*\); move it away$"):
            storage.read(tmp_path)
    middle = complete.index(np.arange(500).tobytes()) + 80
    file.write_bytes(complete[:middle] + b"\xff\xff" + complete[middle + 2 :])
    arrays = storage.read(tmp_path)["clean"][1].arrays  # an array is read on access
    np.testing.assert_array_equal(arrays["w"], 1)
    with pytest.raises(UserError, match=r"clean-references1\.npz' is corrupt \(Bad CRC.*\); move it away$"):
        arrays["v"]


# version 0.1


def test_results_of_version_0_1_are_read_and_merged(tmp_path):
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    expected = json.loads((tmp_path / "run/eval/metrics.json").read_text())
    store = ResultStore(next((tmp_path / "run/eval").glob("step*")))
    assert {name: {str(num): of.metrics for num, of in by.items()} for name, by in store.results.items()} == expected
    frame = load_results(tmp_path / "run")
    assert set(frame["suite"]) == {"clean", "corruptions", "ood", "protocols"}
    by_corruption = frame[(frame["suite"] == "corruptions") & frame["corruption"].notna() & frame["severity"].notna()]
    assert len(by_corruption) == 2 * 10 * 5 * 6
    assert frame["metric"].isin(list(specs.SPECS)).all()
    assert not frame["metric"].str.contains("/").any()

    newer = SuiteResult("clean", 2, (Score("accuracy", 0.5),), facts=store.results["clean"][1].facts)
    assert store.add(newer) is None
    back = storage.read(store.folder)["clean"]
    assert list(back) == [1, 2, 4]
    assert back[4].metrics == expected["clean"]["4"]
    assert back[4].column("entropy") is not None


def test_write_results_names_scores_like_a_suite(tmp_path):
    write_results(tmp_path, "corruptions", FACTS, {1: ({"fog/3/ece": 0.5}, {})})
    assert storage.read(tmp_path)["corruptions"][1].value("ece", corruption="fog", severity=3) == 0.5
