"""Objects that hold arrays have short representations that name their fields, dtypes and shapes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import anchor_jax as aj
from anchor_jax.core.short_reprs import described
from anchor_jax.data.train_stream import Batch
from anchor_jax.evaluation.results import Score, SuiteResult
from anchor_jax.export import Metadata
from anchor_jax.export.format import ExportedClassifier
from anchor_jax.runs import state
from anchor_jax.runs.network import CompiledNetwork

NAMES = tuple(f"class number {number}" for number in range(1000))
IMAGES = np.zeros((200, 8, 8, 3), np.uint8)
PROBS = np.full((200, 1000), 1e-3, np.float32)
LABELS = np.zeros(200, np.int32)
SHAPE = (8, 8, 3)


def variables():
    model = aj.models.create("resnet18", 10, width=4)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *SHAPE)))


def network():
    model, normalization = aj.models.create("resnet18", 1000), aj.data.Normalization((0.5,) * 3, (0.5,) * 3)
    return CompiledNetwork(model, normalization, aj.parallel.mesh(1), anchored=True, inputs_at_once=8)


def predictor():
    return aj.Predictor(variables(), IMAGES, NAMES, SHAPE, network(), num_devices=1, batch_size=8)


def metadata():
    return Metadata(NAMES, SHAPE, "resnet18", 100, 10, aj.Classification._fields, ("cpu",), {"jax": "1"})


def anchored(apply_fn=None):
    bank = np.zeros((50, 6, 6, 2), np.float32)
    return aj.Anchored(apply_fn or aj.models.create("mlp", 3).apply, bank, mask_prob=0.25)


def regression():
    x, scale = np.zeros((40, 1), np.float32), aj.regression.Scale(np.zeros(1), np.ones(1))
    return aj.regression.RegressionNetwork(variables(), scale, scale, x, x, aj.regression.Settings(), ())


SPLIT = aj.SplitModel(functools.partial(aj.models.create("mlp", 3).apply, method="first_layer"), len)
# what is made, and what its representation contains
CASES = {
    "Predictor": (predictor, ["references=uint8[200,8,8,3]", "arrays with", "numbers", "ResNet", "... 1000 in all)"]),
    "CompiledNetwork": (network, ["model=ResNet", "num_devices=1", "anchored=True"]),
    "ExportedClassifier": (lambda: ExportedClassifier(metadata(), len), ["num_references=10", "resnet18"]),
    "Metadata": (metadata, ["image_shape=(8, 8, 3)", "('class number 0', "]),
    "Anchored": (anchored, ["apply_fn=MLP.apply", "bank=float32[50,6,6,2]", "mask_prob=0.25"]),
    "Anchored, split": (lambda: anchored(SPLIT), ["SplitModel(first_layer=partial(MLP.apply), rest=len)"]),
    "TrainingInputs": (lambda: aj.TrainingInputs(jnp.zeros((4, 6)), None), ["inputs=float32[4,6], mask=None"]),
    "EncodedReferences": (lambda: aj.EncodedReferences(jnp.zeros((10, 8))), ["features=float32[10,8]"]),
    "Prediction": (lambda: aj.Prediction(PROBS, None), ["mean=float32[200,1000], std=None"]),
    "Classification": (lambda: aj.Classification(*[PROBS] * 5), ["probs=float32[200,1000]"]),
    "VotedClassification": (lambda: aj.inference.single_vote(PROBS), ["Classification(", "agreement=float32[200]"]),
    "Dataset": (lambda: aj.data.Dataset(IMAGES, LABELS, NAMES), ["images=uint8[200,8,8,3]", "1000 in all"]),
    "Batch": (lambda: Batch(IMAGES, LABELS), ["labels=int32[200]"]),
    "RegressionNetwork": (regression, ["bank=float32[40,1]", "inputs=Scale(mean=float64[1]"]),
    "Scale": (lambda: regression().inputs, ["std=float64[1]"]),
    "Regression": (lambda: aj.regression.Regression(PROBS, PROBS, None), ["epistemic=float64[200,1000], noise=None"]),
    "ReliabilityBins": (lambda: aj.metrics.reliability(PROBS, LABELS), ["count=int32[15]"]),
    "PerExampleScores": (lambda: aj.metrics.per_example_scores(PROBS, LABELS), ["nll=float32[200]"]),
    "SuiteResult": (
        lambda: SuiteResult("clean", 10, (Score("nll", 1.0),) * 500, {"spread": PROBS}, {"a": NAMES}),
        ["suite='clean'", "500 in all", "{spread} of 1 array with 200,000 numbers"],
    ),
    "TrainState": (lambda: state.TrainState(LABELS, variables(), {}, (), {}, None), ["step=int32[200]", "arrays"]),
}


@pytest.mark.parametrize("case", CASES)
def test_repr_of_an_object_with_arrays_is_short_and_names_them(case):
    make, contained = CASES[case]
    text = repr(make())
    assert text.startswith(case.partition(",")[0] + "(")
    assert text.endswith(")")
    assert len(text) < 500
    assert "\n" not in text
    for part in contained:
        assert part in text


def test_repr_of_a_loaded_run_is_short(exported):
    for loaded in (aj.load_predictor(exported.workdir), aj.load_exported(exported.file)):
        assert len(repr(loaded)) < 500
        assert "image_shape=(" in repr(loaded)


class Pair(NamedTuple):
    one: Any
    other: Any


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (jax.ShapeDtypeStruct((2, 3), jnp.bfloat16), "bfloat16[2,3]"),
        (jax.random.key(0), "key<fry>[]"),
        (np.float32(0.5), "0.5"),
        ([np.zeros(3), np.zeros(2)], "[float64[3], float64[2]]"),
        ((np.zeros(3),) * 9, "tuple of 9 arrays with 27 numbers"),
        ((), "()"),
        ((1,), "(1,)"),
        ({"a": 1, "b": (2, 3)}, "{'a': 1, 'b': (2, 3)}"),
        (Pair(np.zeros((2, 2)), 1), "Pair of 1 array with 4 numbers"),
        ("x" * 1000, "'" + "x" * 95 + "...'"),
        (b"x" * 2000, "2,000 bytes"),
        (np.zeros, "zeros"),
        (object(), "object"),
    ],
)
def test_described_is_short_for_any_value(value, expected):
    assert described(value) == expected


def test_described_works_on_traced_arrays():
    texts = []
    jax.jit(lambda x: texts.append(repr(aj.Prediction(x, None))))(np.zeros((2, 3), np.float32))
    assert texts == ["Prediction(mean=float32[2,3], std=None)"]
