"""What a result is stored under: options, data and network."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from conftest import write_results
from digits import context_of

from anchor_jax import data
from anchor_jax.evaluation import Score, SuiteResult, question, storage
from anchor_jax.evaluation.options import TemperatureOption, TransductionOption
from anchor_jax.reporting.report import write_page

DATA = {"name": "digits", "split": "test", "num_examples": 360, "sha256": "a" * 64}
FACTS = {
    **{"step": 1, "num_bins": 15, "options": {"seed": 0}, "data": DATA},
    **{"network": {"variables": "a", "references": "b", "dtype": "float32"}, "num_examples": 360, "test_set": "a"},
}


def clean(facts, num=1, accuracy=0.5):
    return SuiteResult("clean", num, (Score("accuracy", accuracy),), {"v": np.ones(1)}, facts)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"options": {"seed": 1}}, "with other options"),
        ({"data": DATA | {"sha256": "b" * 64}}, "on other data (digits test, 360 examples, sha256 bbbbbbbbbbbb)"),
        ({"data": DATA | {"sha256": None}}, "on other data (digits test, 360 examples, unknown content)"),
        ({"data": None}, "on unknown data"),
        ({"network": FACTS["network"] | {"variables": "c", "dtype": "bfloat16"}}, "with other weights, dtype"),
        ({"network": None}, "with unknown weights"),
    ],
)
def test_results_of_another_question_move_away(tmp_path, capsys, change, reason):
    store = storage.ResultStore(tmp_path)
    store.add(clean(FACTS | change))
    for name in ("report.html", "report.json", "pictures/clean-a.png", "pictures/ood-a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    storage.add_and_tell(store, clean(FACTS, 10))
    moved = tmp_path / "earlier/1"
    assert capsys.readouterr().out == f"clean: earlier results, measured {reason}, were moved to {moved}\n"
    assert storage.read(tmp_path)["clean"].keys() == {10}
    assert sorted(str(file.relative_to(moved)) for file in moved.rglob("*.*")) == [
        *("clean-references1.npz", "clean.json", "pictures/clean-a.png", "report.html", "report.json")
    ]


def test_results_of_the_same_question_stay(tmp_path, capsys):
    renamed = FACTS | {"data": DATA | {"name": "moved", "split": "test[:360]"}}
    store = storage.ResultStore(tmp_path / "eval/step1-bins15")
    for result in (clean(FACTS), clean(renamed, 10), clean(FACTS)):
        storage.add_and_tell(store, result)
    assert not capsys.readouterr().out
    storage.add_and_tell(store, clean(FACTS, accuracy=0.75))
    assert "the earlier result, 1 reference, was replaced; it answered the same question" in capsys.readouterr().out
    store.write_summaries()
    for folder in (tmp_path / "eval", store.folder):
        clean_metrics = {"1": {"accuracy": 0.75}, "10": {"accuracy": 0.5}}
        assert json.loads((folder / "metrics.json").read_text()) == {"clean": clean_metrics}
        assert json.loads((folder / "data.json").read_text()) == {"clean": renamed["data"]}
    assert set(storage.load_results(tmp_path)["data"]) == {"a" * 12}


def test_network_facts_tell_networks_apart(digits_run):
    context = context_of(digits_run)

    def facts_of(options=TemperatureOption, context=context, **config):
        changed = context.run.config.copy_and_resolve_references()
        changed.update_from_flattened_dict(config)
        run = dataclasses.replace(context.run, config=changed)
        return question.network_facts(dataclasses.replace(context, run=run), options)

    predictor = context.predictor
    other_weights = jax.tree.map(lambda leaf: leaf + 1, predictor.variables)
    variants = [
        facts_of(),
        facts_of(TransductionOption),
        facts_of(TransductionOption, **{"anchoring.bank_size": 50}),
        facts_of(**{"model.dtype": "bfloat16"}),
        facts_of(**{"data.mean": (0.25,)}),
        facts_of(**{"data.interpolation": "bilinear"}),
        facts_of(**{"data.orientation": "stored"}),
        facts_of(context=dataclasses.replace(context, members={"kind": "dropout"})),
    ]
    for change in ({"variables": other_weights}, {"references": predictor.references[:5]}):
        variants.append(
            facts_of(context=dataclasses.replace(context, predictor=dataclasses.replace(predictor, **change)))
        )
    assert len({json.dumps(each) for each in variants}) == len(variants)
    assert facts_of() == json.loads(json.dumps(variants[0]))


def test_data_facts_list_several_sets(digits_run):
    context = context_of(digits_run)
    single = question.data_facts(context, [context.test])
    assert single == DATA | {"sha256": context.test.content()}
    other = data.open_dataset("photographs", image_shape=(8, 8, 1))
    both = question.data_facts(context, [context.test, other])
    assert both["sets"][0] == single
    assert (both["name"], both["split"]) == ("digits, photographs", "test, -")
    assert both["num_examples"] == 360 + other.num_examples
    assert len({both["sha256"], single["sha256"], other.content()}) == 3


def test_page_compares_only_what_is_on_the_same_data(tmp_path):
    metrics = {f"fog/{severity}/{name}": 0.5 for severity in range(1, 6) for name in ("accuracy", "ece")}
    of_corruptions = {"members": ["fog"], "averages": {}, "severities": [1, 2, 3, 4, 5], "source": ["x"]}
    write_results(tmp_path, "corruptions", FACTS | of_corruptions, {1: (metrics | {"accuracy": 0.5}, {})})
    results = storage.read(tmp_path) | {"clean": {}}
    pages = []
    for test_set in ("a", "b"):
        rows = {1: clean(FACTS | {"test_set": test_set}), 10: clean(FACTS | {"test_set": test_set}, 10, 0.75)}
        pages.append(write_page(tmp_path, results | {"clean": rows}, {}).read_text())
    rows[10] = clean(FACTS | {"data": DATA | {"sha256": "c"}}, 10, 0.75)
    pages.append(write_page(tmp_path, {"clean": rows}, {}).read_text())
    same, other, mixed = pages
    assert "different test sets" not in same
    assert "<b>75.00</b>" in same
    assert "The suites were measured on different test sets" in other
    assert "data differ" in mixed
    assert "<b>75.00</b>" not in mixed
