"""Mean and spread over K references, compared with loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from small_network import (
    MAX_REFERENCES,
    PARAMS,
    REFERENCES,
    B,
    C,
    H,
    X,
    assert_close,
    mlp,
    normal,
    predict,
    predict_in_loop,
    reference_as_logits,
)

import anchor_jax as aj

pytestmark = pytest.mark.min_versions


@pytest.mark.parametrize("num", [2, 3, MAX_REFERENCES])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_predict_equals_mean_and_std_of_a_loop(num, chunk_size):
    outputs = predict_in_loop(mlp, PARAMS, X, REFERENCES[:num])
    prediction = predict(mlp, PARAMS, X, REFERENCES[:num], chunk_size=chunk_size)
    assert prediction.mean.dtype == prediction.std.dtype == jnp.float32
    assert_close(prediction, (outputs.mean(axis=0), outputs.std(axis=0, ddof=1)))


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_predict_with_flax_convolutional_network(chunk_size):
    class Network(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            hidden = nn.relu(nn.Conv(4, (3, 3))(inputs))
            return nn.Dense(C)(hidden.mean(axis=(1, 2)))

    network, x = Network(), normal(0, 2, 6, 5, 3)
    references = normal(1, 5, 6, 5, 3)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 6, 5, 6)))
    outputs = predict_in_loop(jax.jit(network.apply), variables, x, references)
    prediction = predict(network.apply, variables, x, references, chunk_size=chunk_size)
    assert_close(prediction, (outputs.mean(axis=0), outputs.std(axis=0, ddof=1)))


def test_predict_keeps_outputs_of_any_rank():
    def maps(_, inputs):
        return jnp.sin(inputs)[:, None]

    outputs = predict_in_loop(maps, None, X, REFERENCES)
    prediction = predict(maps, None, X, REFERENCES)
    assert prediction.mean.shape == (B, 1, 2 * H)
    assert_close(prediction, (outputs.mean(axis=0), outputs.std(axis=0, ddof=1)))


@pytest.mark.parametrize("chunk_size", [None, 1, 5])
def test_predict_of_one_reference_has_no_spread(chunk_size):
    prediction = predict(mlp, PARAMS, X, REFERENCES[:1], chunk_size=chunk_size)
    expected = aj.anchored(mlp)(PARAMS, X, jnp.broadcast_to(REFERENCES[0], X.shape))
    np.testing.assert_allclose(prediction.mean, expected, rtol=1e-6)
    assert prediction.std is None


def test_predict_is_independent_of_chunk_size():
    num = 5
    expected = predict(mlp, PARAMS, X, REFERENCES[:num])
    for chunk_size in range(1, num + 3):
        assert_close(predict(mlp, PARAMS, X, REFERENCES[:num], chunk_size=chunk_size), expected)


@settings(deadline=None, max_examples=15)
@given(st.integers(2, MAX_REFERENCES), st.integers(1, MAX_REFERENCES + 2), st.randoms(use_true_random=False))
def test_predict_ignores_chunks_and_order_of_references(num, chunk_size, random):
    order = random.sample(range(num), num)
    outputs = predict_in_loop(mlp, PARAMS, X, REFERENCES[:num])
    prediction = predict(mlp, PARAMS, X, REFERENCES[:num][order], chunk_size=chunk_size)
    assert_close(prediction, (outputs.mean(axis=0), outputs.std(axis=0, ddof=1)))


def test_predict_of_duplicated_references_keeps_the_mean():
    num = 6
    once = predict(mlp, PARAMS, X, REFERENCES[:num])
    twice = predict(mlp, PARAMS, X, np.tile(REFERENCES[:num], (2, 1)), chunk_size=5)
    assert_close(twice, (once.mean, once.std * np.sqrt(2 * (num - 1) / (2 * num - 1))))


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
def test_predict_of_equal_references_has_zero_spread(chunk_size):
    prediction = predict(mlp, PARAMS, X, np.tile(REFERENCES[:1], (7, 1)), chunk_size=chunk_size)
    assert_close(prediction, (mlp(PARAMS, aj.anchor(X, np.tile(REFERENCES[:1], (B, 1)))), np.zeros((B, C))))


@pytest.mark.parametrize("chunk_size", [None, 1, 7])
def test_predict_resolves_spread_far_below_the_mean(chunk_size):
    deviations = np.random.default_rng(4).integers(-64, 65, size=(50, C)) / 512
    outputs = (1e4 + deviations).astype(np.float32)  # exact in float32
    prediction = predict(reference_as_logits, None, np.zeros((1, C), np.float32), outputs, chunk_size=chunk_size)
    np.testing.assert_allclose(prediction.mean[0], outputs.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(prediction.std[0], outputs.std(axis=0, ddof=1, dtype=np.float64), rtol=1e-2)


@pytest.mark.parametrize("unit", [1e-30, 1e-19, 1e20, 1e37])
@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_predict_spread_of_outputs_of_any_size(unit, chunk_size):
    references = unit * np.array([[1, 2], [2, 2], [3, 5]], np.float32)  # float32 does not hold their squares

    def spread(references):
        return predict(reference_as_logits, None, np.zeros((1, 2), np.float32), references, chunk_size=chunk_size).std

    np.testing.assert_allclose(spread(references)[0] / unit, [1, 3**0.5], rtol=1e-6)
    gradient = jax.grad(lambda references: spread(references).sum())
    np.testing.assert_allclose(gradient(references), gradient(references / unit), rtol=1e-5, atol=1e-6)


def temporary_bytes(num, chunk_size):
    shapes = jax.ShapeDtypeStruct((64, H), jnp.float32), jax.ShapeDtypeStruct((num, H), jnp.float32)
    compiled = predict.lower(mlp, PARAMS, *shapes, chunk_size=chunk_size).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_predict_memory_grows_with_chunk_size_only():
    small = temporary_bytes(16, chunk_size=4)
    assert temporary_bytes(256, chunk_size=4) < 1.1 * small
    assert temporary_bytes(16, chunk_size=None) > 2 * small
    assert temporary_bytes(256, chunk_size=None) > 10 * temporary_bytes(16, chunk_size=None)


def test_predict_memory_with_partial_chunk_is_bounded():
    small = temporary_bytes(17, chunk_size=4)
    for num in (257, 4097):
        assert temporary_bytes(num, chunk_size=4) < 1.1 * small  # so the references are not copied


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_predict_gradient_is_mean_of_gradients(chunk_size):
    def mean(params):
        return predict(mlp, params, X, REFERENCES, chunk_size=chunk_size).mean.sum()

    def single_output(params, reference):
        return aj.anchored(mlp)(params, X, jnp.broadcast_to(reference, X.shape)).sum()

    each = jax.jit(jax.vmap(jax.grad(single_output), in_axes=(None, 0)))(PARAMS, REFERENCES)
    assert_close(jax.jit(jax.grad(mean))(PARAMS), jax.tree.map(lambda g: g.mean(axis=0), each), rtol=1e-3)


def test_predict_accepts_numpy_float64_with_jax_references():
    prediction = aj.predict(mlp, PARAMS, X.astype(np.float64), jnp.asarray(REFERENCES))
    assert_close(prediction, predict(mlp, PARAMS, X, REFERENCES))
