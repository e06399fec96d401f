"""A model with its bank: every method returns what the functions that it calls return."""

import dataclasses
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits
from small_network import PARAMS, REFERENCES, B, C, H, X, assert_close, classify, mlp, normal, predict

import anchor_jax as aj
from anchor_jax.evaluation.predictions import prediction_rows
from anchor_jax.evaluation.suites.ood import anomaly_scores

pytestmark = pytest.mark.min_versions

KEY = jax.random.key(0)
LABELS = np.arange(B) % C
SPLIT = aj.SplitModel(lambda params, inputs: inputs @ params["in"], lambda params, h: jnp.tanh(h) @ params["out"])
MODEL = aj.Anchored(mlp, REFERENCES, mask_prob=0.5, mask_per="example")
STATIC = {"static_argnames": ("num_references", "chunk_size")}


@pytest.mark.parametrize("options", [{}, {"mask_per": "example"}, {"mask_per": "group", "group_size": 2}])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_anchored_training_inputs_are_those_of_the_functions(options, dtype):
    model, x = aj.Anchored(mlp, REFERENCES, mask_prob=0.5, **options), jnp.asarray(X, dtype)
    inputs, mask = jax.jit(aj.Anchored.training_inputs)(model, KEY, x)
    reference_key, mask_key = jax.random.split(KEY)
    references = aj.sample_references(reference_key, REFERENCES, B).astype(dtype)
    options = {"per": options.get("mask_per", "batch"), "group_size": options.get("group_size")}
    expected = aj.sample_mask(mask_key, B, 0.5, **options)
    assert inputs.dtype == dtype
    assert_same_bits((inputs, mask), (aj.anchor(x, references, expected), expected))


@pytest.mark.parametrize("masked_target", [None, "label", "uniform"])
def test_anchored_loss_is_the_mean_of_its_function(masked_target):
    logits, mask = normal(0, B, C), np.arange(B) % 2 == 0
    model = dataclasses.replace(MODEL, masked_target=masked_target)
    expected = aj.anchored_cross_entropy(logits, LABELS, mask, masked_target=masked_target or "label").mean()
    assert_same_bits(model.loss(logits, LABELS, mask), expected)
    assert_same_bits(model.loss(logits, LABELS), aj.anchored_cross_entropy(logits, LABELS).mean())


def test_anchored_loss_may_be_any_function():
    outputs, targets, mask = normal(0, B, 2), normal(1, B, 2), np.arange(B) % 2 == 0
    squared = dataclasses.replace(MODEL, loss_fn=aj.anchored_squared_error, masked_target="marginal")
    assert_same_bits(squared.loss(outputs, targets, mask), aj.anchored_squared_error(outputs, targets, mask).mean())

    def nll(outputs, targets, mask):
        return aj.anchored_gaussian_nll(outputs["mean"], outputs["variance"], targets, mask)

    likelihood = dataclasses.replace(MODEL, loss_fn=nll)
    moments = {"mean": outputs, "variance": outputs**2}
    assert_same_bits(likelihood.loss(moments, targets, mask), nll(moments, targets, mask).mean())
    smoothed = dataclasses.replace(MODEL, loss_fn=partial(aj.anchored_cross_entropy, label_smoothing=0.1))
    assert smoothed.loss(normal(0, B, C), LABELS) != MODEL.loss(normal(0, B, C), LABELS)


@pytest.mark.parametrize("apply_fn", [mlp, SPLIT])
@pytest.mark.parametrize("num", [1, 10])
def test_anchored_inference_uses_the_first_references(apply_fn, num):
    model = dataclasses.replace(MODEL, apply_fn=apply_fn)
    expected = classify(mlp, PARAMS, X, REFERENCES[:num])
    options = {} if num == 10 else {"num_references": num}
    found = jax.jit(aj.Anchored.classify, **STATIC)(model, PARAMS, X, **options, chunk_size=3)
    assert_close(found, expected)
    found = jax.jit(aj.Anchored.predict, **STATIC)(model, PARAMS, X, **options)
    assert_close(found, predict(mlp, PARAMS, X, REFERENCES[:num]))


def test_anchored_classify_accepts_encoded_references():
    model = dataclasses.replace(MODEL, apply_fn=SPLIT)
    encoded = jax.jit(aj.Anchored.encode, static_argnames="num_references")(model, PARAMS, num_references=5)
    found = jax.jit(aj.Anchored.classify)(model, PARAMS, X, encoded)
    assert_close(found, classify(mlp, PARAMS, X, REFERENCES[:5]))


@pytest.mark.parametrize("num", [1, 4])
def test_anchored_scores_are_those_of_the_ood_suite(num):
    voted = jax.jit(aj.inference.classify_with_votes, static_argnums=0)(mlp, PARAMS, X, REFERENCES[:num])
    table = anomaly_scores(prediction_rows(None, voted, jnp.asarray(LABELS)))
    scores = jax.jit(aj.Anchored.scores, **STATIC)(MODEL, PARAMS, X, num_references=num)
    for name, score in scores.items():
        np.testing.assert_allclose(score, table[name], rtol=1e-4, atol=1e-6)
    assert table.keys() - scores.keys() == ({"mutual_information", "spread", "agreement"} if num == 1 else set())
    assert scores.keys() - aj.inference.anomaly_scores(voted.classification).keys() <= {"agreement"}


def test_anchored_is_a_pytree_of_its_bank():
    leaves, structure = jax.tree.flatten(MODEL)
    assert_same_bits(leaves, [REFERENCES])
    doubled = jax.tree.map(lambda leaf: 2 * leaf, MODEL)
    assert_same_bits(doubled.bank, 2 * REFERENCES)
    assert jax.tree.structure(doubled) == structure == jax.tree.structure(aj.Anchored(**fields(MODEL)))
    assert jax.tree.structure(dataclasses.replace(MODEL, mask_prob=0.4)) != structure
    assert jax.tree.map(lambda _: None, MODEL).bank is None  # JAX passes placeholders


def fields(model):
    return {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}


def test_anchored_step_compiles_once_for_all_banks():
    traced = []

    @jax.jit
    def step(model, key):
        traced.append(1)
        return model.training_inputs(key, X)

    banks = REFERENCES, REFERENCES + 1
    one, other = (step(dataclasses.replace(MODEL, mask_prob=0, bank=bank), KEY).inputs for bank in banks)
    np.testing.assert_allclose(other - one, [[1.0] * H + [-1.0] * H] * B, atol=1e-5)
    assert len(traced) == 1


@pytest.mark.parametrize(
    ("make", "num"),
    [
        (lambda _: {"loss_fn": partial(aj.anchored_cross_entropy, label_smoothing=0.1)}, 1),
        (lambda _: {"apply_fn": partial(mlp), "loss_fn": jax.tree_util.Partial(aj.anchored_cross_entropy)}, 1),
        (lambda _: {"apply_fn": aj.SplitModel(partial(SPLIT.first_layer), partial(SPLIT.rest))}, 1),
        (lambda call: {"loss_fn": partial(aj.anchored_cross_entropy, label_smoothing=0.1 * call)}, 2),
        (lambda _: {"loss_fn": partial(aj.anchored_cross_entropy, label_smoothing=np.zeros(()))}, 2),  # not hashable
    ],
)
def test_anchored_of_new_partials_compiles_once(make, num):
    traced = []

    @jax.jit
    def step(model, params):
        traced.append(1)
        return model.loss(model.predict(params, X, 2).mean, LABELS)

    losses = [step(dataclasses.replace(MODEL, **make(call)), PARAMS) for call in (0, 1)]
    assert len(traced) == num
    expected = dataclasses.replace(MODEL, **make(1))
    np.testing.assert_allclose(losses[1], expected.loss(expected.predict(PARAMS, X, 2).mean, LABELS), rtol=1e-5)


BIG = normal(0, 60_000, H)


def test_bank_that_is_a_constant_of_a_program_is_warned_of():
    model = dataclasses.replace(MODEL, bank=BIG)
    step = jax.jit(lambda key: model.training_inputs(key, X).inputs)
    with pytest.warns(UserWarning, match=r"bank \(1 MiB\) becomes a constant .* make it an argument"):
        text = step.lower(KEY).as_text()
    assert len(text) > BIG.nbytes
    with warnings.catch_warnings(action="error"):
        jax.grad(lambda x: model.training_inputs(KEY, x).inputs.sum())(X)  # no program
        jax.jit(aj.sample_references, static_argnums=2).lower(KEY, BIG, 4)
        inference = jax.jit(lambda params, x: model.classify(params, x, 4)).lower(PARAMS, X).as_text()
    assert len(inference) < BIG.nbytes / 4  # only the references


@pytest.mark.parametrize("masked", [(True, True), (True, False), (False, False)])
def test_keep_statistics_selects_bit_by_bit(masked):
    old = {"mean": jnp.array([0.1, jnp.nan]), "count": jnp.array(3), "first": jnp.array(True), "key": KEY}
    new = {"mean": jnp.array([0.2, 0.3]), "count": jnp.array(4), "first": jnp.array(False), "key": jax.random.key(1)}
    kept = jax.jit(aj.keep_statistics)(old, new, jnp.array(masked))
    expected = old if all(masked) else new
    assert_same_bits(*(jax.tree.map(raw, tree) for tree in (kept, expected)))


def raw(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


@pytest.mark.parametrize(("mask_prob", "expected"), [(0.5, 0.0), (1, 1.0)])
def test_statistics_have_other_batches_unless_all_are_masked(mask_prob, expected):
    model = dataclasses.replace(MODEL, mask_prob=mask_prob)
    assert model.keep_statistics(jnp.zeros(()), jnp.ones(()), np.ones(B, bool)) == expected
