"""The contract of every model family, tested at reduced size."""

import operator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same_bits
from tiny_models import BATCH, NUM_CLASSES, ONE_PER_FAMILY, TINY, assert_close, normal
from tiny_models import tiny_model as create_tiny_model

import anchor_jax as aj
from anchor_jax import models


@pytest.fixture(params=TINY, scope="module")
def tiny_model(request):
    return create_tiny_model(request.param)


def test_tiny_models_cover_every_family():
    assert ONE_PER_FAMILY.keys() == {architecture.family for architecture in models.MODELS.values()}


# dtypes and shapes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_model_dtype_affects_only_activations(tiny_model, dtype):
    model = models.create(tiny_model.name, NUM_CLASSES, dtype=dtype, **tiny_model.options)
    variables = jax.eval_shape(model.init, jax.random.key(0), tiny_model.inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    apply = partial(model.apply, capture_intermediates=True, mutable="intermediates")
    logits, intermediates = jax.eval_shape(apply, variables, tiny_model.inputs)
    assert logits.shape == (BATCH, NUM_CLASSES)
    assert logits.dtype == jnp.float32
    assert jnp.dtype(dtype) in {leaf.dtype for leaf in jax.tree.leaves(intermediates)}


def test_model_input_channels_widen_only_the_first_layer(tiny_model):
    init, key = tiny_model.model.init, jax.random.key(0)
    shapes = [jax.eval_shape(init, key, tiny_model.inputs[..., :channels]) for channels in (3, 6)]
    standard, anchored = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)} for tree in shapes
    )
    widened = {path for path in standard.keys() | anchored.keys() if standard.get(path) != anchored.get(path)}
    (layer,) = jax.eval_shape(partial(init, method="first_layer"), key, tiny_model.inputs)["params"]
    assert widened == {f"['params']['{layer}']['kernel']"}
    (kernel,) = widened
    *_, channels, width = standard[kernel]
    assert anchored[kernel] == (*standard[kernel][:-2], 2 * channels, width)


# randomness


def test_model_init_depends_on_the_key_alone(tiny_model):
    initial, init = tiny_model.initial_variables, tiny_model.init
    assert_same_bits(init(jax.random.key(0), 10 * tiny_model.inputs), initial)
    others = init(jax.random.key(1), tiny_model.inputs)
    is_drawn = jax.tree.map(lambda a, b: ((a != b) | (a == 0) | (a == 1)).all(), initial, others)  # or an identity
    kernels = [drawn for path, drawn in jax.tree.leaves_with_path(is_drawn) if path[-1].key == "kernel"]
    assert all(kernels)
    assert not jax.tree.reduce(operator.and_, jax.tree.map(np.array_equal, initial, others))


def test_model_training_is_deterministic_given_its_keys(tiny_model):
    assert_same_bits(tiny_model.train(0)[0], tiny_model.trained)
    other, _ = tiny_model.train(1)
    assert (other.loss == tiny_model.trained.loss) == (tiny_model.drop_rate == 0)


# training and evaluation


def test_model_train_changes_only_batch_norm_and_drops(tiny_model):
    statistics = tiny_model.variables.get("batch_stats")
    trained, evaluated = tiny_model.trained, tiny_model.evaluated
    assert (statistics is not None) == tiny_model.has_batch_norm
    assert_same_bits(evaluated.statistics, statistics)
    changed = jax.tree.map(lambda before, after: (before != after).any(), statistics, trained.statistics)
    assert all(jax.tree.leaves(changed))
    if tiny_model.has_batch_norm or tiny_model.drop_rate:
        assert not np.allclose(trained.logits, evaluated.logits, rtol=1e-2)
    else:
        assert_close(trained.logits, evaluated.logits)


def test_model_evaluation_is_independent_of_other_examples(tiny_model):
    logits = tiny_model.evaluate(np.concatenate([tiny_model.inputs[:1], 10 * tiny_model.inputs[1:]])).logits
    assert_close(logits[0], tiny_model.evaluated.logits[0])
    assert not np.allclose(logits[1:], tiny_model.evaluated.logits[1:], rtol=1e-2)


def test_model_gradients_are_finite_and_reach_all_parameters(tiny_model):
    for gradient in jax.tree.leaves(tiny_model.trained.gradients):
        assert np.isfinite(gradient).all()
        assert (gradient != 0).any()


def test_model_remat_does_not_change_results(tiny_model):
    shapes = jax.eval_shape(tiny_model.remat_model.init, jax.random.key(0), tiny_model.inputs)
    assert shapes == jax.eval_shape(lambda: tiny_model.initial_variables)
    plain, remat = tiny_model.train(0)
    largest = max(np.abs(gradient).max() for gradient in jax.tree.leaves(plain.gradients))
    assert_close(remat, plain, atol=1e-5 * largest)


def test_model_apply_agrees_under_jit_and_vmap(tiny_model):
    apply, inputs, logits = tiny_model.model.apply, tiny_model.inputs, tiny_model.evaluated.logits
    assert_close(apply(tiny_model.variables, inputs), logits)
    mapped = jax.jit(jax.vmap(apply, in_axes=(None, 0)))(tiny_model.variables, np.stack([inputs[::-1], inputs]))
    assert_close(mapped, np.stack([logits[::-1], logits]))


# parts and references


def test_model_first_layer_is_affine_and_rest_follows_it(tiny_model):
    x, y = tiny_model.inputs, normal(2, *tiny_model.inputs.shape)
    of_x, of_y, of_sum, of_zero = (
        tiny_model.evaluate(inputs).first_layer for inputs in (x, y, x + y, np.zeros_like(x))
    )
    assert_close(of_x + of_y - of_zero, of_sum, atol=1e-4)
    assert_close(tiny_model.evaluated.rest, tiny_model.evaluated.logits, rtol=1e-6)


def test_model_logits_are_affine_in_the_features(tiny_model):
    features, params = tiny_model.evaluated.features, jax.tree.leaves(tiny_model.variables["params"])
    (kernel,) = (leaf for leaf in params if leaf.shape == (features.shape[1], NUM_CLASSES))
    (bias,) = (leaf for leaf in params if leaf.shape == (NUM_CLASSES,))
    assert features.dtype == jnp.float32
    assert_close(features @ kernel + bias, tiny_model.evaluated.logits)


def test_model_predict_equals_separate_calls_per_reference(tiny_model):
    apply, variables = tiny_model.model.apply, tiny_model.variables
    x, references = np.split(normal(3, BATCH + 3, tiny_model.side, tiny_model.side, 3), [BATCH])
    one_call = aj.anchored(lambda _, inputs: tiny_model.evaluate(inputs).logits)
    each = np.stack([one_call(None, x, np.broadcast_to(reference, x.shape)) for reference in references])
    split = aj.SplitModel(*(partial(apply, method=method) for method in ("first_layer", "rest")))
    predict = jax.jit(aj.predict, static_argnames="apply_fn")
    for apply_fn in (apply, split):
        assert_close(predict(apply_fn, variables, x, references), (each.mean(axis=0), each.std(axis=0, ddof=1)))
