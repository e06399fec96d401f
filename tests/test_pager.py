"""PAGER: scores compared with loops and closed forms."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anchor_jax.contrib import pager

RNG = np.random.default_rng(0)
B, K, C, D = 5, 7, 3, 2
X, REFERENCES = (RNG.normal(size=(num, C)).astype(np.float32) for num in (B, K))
TARGETS = RNG.normal(size=(K, D)).astype(np.float32)
PARAMS = {"a": RNG.normal(size=(2 * C, 8)).astype(np.float32), "b": RNG.normal(size=(8, D)).astype(np.float32)}


def network(params, inputs):
    return jnp.tanh(inputs @ params["a"]) @ params["b"]


@pytest.mark.parametrize("chunk_size", [None, 3, 100])
def test_nonconformity_equals_loop_over_references(chunk_size):
    expected = np.zeros(B)
    for row, x in enumerate(X):
        for reference, target in zip(REFERENCES, TARGETS, strict=True):
            output = np.tanh(np.concatenate([x, reference - x]) @ PARAMS["a"]) @ PARAMS["b"]
            expected[row] = max(expected[row], np.abs(target - output).sum())
    score = jax.jit(pager.nonconformity, static_argnames=("apply_fn", "chunk_size"))
    ours = score(network, PARAMS, X, REFERENCES, TARGETS, chunk_size=chunk_size)
    assert (ours.shape, ours.dtype) == ((B,), jnp.float32)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_nonconformity_of_exact_predictions_is_zero():
    def exact(params, inputs):
        return 3 * inputs.sum(axis=1)

    references = REFERENCES[:, :1]
    scores = pager.nonconformity(exact, None, X[:, :1], references, 3 * references[:, 0])
    np.testing.assert_allclose(scores, np.zeros(B), atol=1e-5)


# Score 2. The network is linear, f([x̄, r - x̄]) = a·x̄ + b·(r - x̄), so that y - f = e - (a - b)·(x̄ - x), where e is the
# error at x


def linear(params, inputs):
    a, b = params
    references, residuals = jnp.split(inputs, 2, axis=-1)
    return (references @ a + residuals @ b).reshape(len(inputs), -1).sum(axis=1)


def linear_errors(params, x):
    """Return e of every input and reference, `[B, K]`."""
    a, b = params
    flat = REFERENCES.reshape(K, *x.shape[1:])
    return TARGETS[:, 0] - np.stack([[(row @ a + (r - row) @ b).sum() for r in flat] for row in x])


def refined(params, x, **options):
    references = REFERENCES.reshape(K, *x.shape[1:])
    return pager.refined_nonconformity(linear, params, x, references, TARGETS[:, 0], **options)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_refined_nonconformity_is_distance_to_the_root(chunk_size):
    params, x = (np.float32([2.0]), np.float32([0.5])), X[:, :1]
    ours = pager.refined_nonconformity(
        linear, params, x, REFERENCES[:, :1], TARGETS[:, 0], steps=300, chunk_size=chunk_size
    )
    roots = (TARGETS[:, 0] - 0.5 * REFERENCES[:, 0]) / (2.0 - 0.5)
    assert (ours.shape, ours.dtype) == ((B,), jnp.float32)
    np.testing.assert_allclose(ours, np.abs(x - roots).max(axis=1), atol=2e-3)


@pytest.mark.parametrize("shape", [(C,), (1, C)], ids=str)
@pytest.mark.parametrize("weight", [0.1, 0.5, 3.0])
def test_refined_nonconformity_has_closed_form_with_square(weight, shape):
    params, x = (np.float32([2.0, -1.0, 0.5]), np.float32([0.5, 0.25, -0.5])), X.reshape(B, *shape)

    def square(moved, x):
        return jnp.sum((moved - x).reshape(B, -1) ** 2, axis=1)

    # argmin of |e - g·δ| + λ‖δ‖²: the nearest root, or where the slopes balance
    slope = np.linalg.norm(params[0] - params[1])
    expected = np.minimum(np.abs(linear_errors(params, x)) / slope, slope / (2 * weight)).max(axis=1)
    ours = jax.jit(partial(refined, params, regularizer=square, weight=weight, steps=400))(x)
    np.testing.assert_allclose(ours, expected, atol=5e-3)


def keeps_reference(params, inputs):
    return jnp.split(inputs, 2, axis=-1)[0]


@pytest.mark.parametrize(("weight", "moves"), [(0.1, True), (0.7, True), (0.8, False), (5.0, False)])
def test_refined_nonconformity_with_cyclic_reconstruction(weight, moves):
    params, x = (np.float32([2.0]), np.float32([0.5])), X[:, :1]
    # an autoencoder that returns the reference has R = 2|x̄ - x|, which holds x from λ = |a - b| / 2 on
    regularizer = partial(pager.cyclic_reconstruction, keeps_reference, None)
    ours = pager.refined_nonconformity(
        linear, params, x, REFERENCES[:, :1], TARGETS[:, 0], regularizer=regularizer, weight=weight, steps=300
    )
    roots = (TARGETS[:, 0] - 0.5 * REFERENCES[:, 0]) / (2.0 - 0.5)
    np.testing.assert_allclose(ours, moves * np.abs(x - roots).max(axis=1), atol=5e-3)


@pytest.mark.parametrize("start", [np.nan, np.inf])
def test_refined_nonconformity_of_failed_predictions_is_not_finite(start):
    x = np.float32([[0.0], [1.0]])

    def fails(params, inputs):
        return jnp.where(inputs[:, 0] < 0.5, start, inputs[:, 0])

    scores = pager.refined_nonconformity(fails, None, x, x[:1], np.float32([1.0]))
    np.testing.assert_array_equal(np.isfinite(scores), [False, True])


def test_cyclic_reconstruction_equals_numpy():
    rng = np.random.default_rng(1)
    moved, x = rng.normal(size=(2, B, 2, C)).astype(np.float32)
    weights = rng.normal(size=(2 * C, C)).astype(np.float32)

    def error(inputs, references):
        outputs = np.tanh(np.concatenate([references, inputs - references], axis=-1) @ weights)
        return np.sqrt(((inputs - outputs) ** 2).sum(axis=(1, 2)))

    ours = pager.cyclic_reconstruction(lambda weights, inputs: jnp.tanh(inputs @ weights), weights, moved, x)
    assert (ours.shape, ours.dtype) == ((B,), jnp.float32)
    np.testing.assert_allclose(ours, error(x, moved) + error(moved, x), rtol=1e-5)


def test_cyclic_reconstruction_perfect_has_gradient_zero():
    def perfect(params, inputs):
        return sum(jnp.split(inputs, 2, axis=-1))

    gradient = jax.grad(lambda moved: pager.cyclic_reconstruction(perfect, None, moved, 0 * X).sum())(X)
    np.testing.assert_array_equal(gradient, np.zeros((B, C)))


@pytest.mark.parametrize("score", [pager.nonconformity, partial(pager.refined_nonconformity, steps=2)])
def test_scores_take_float64_and_chunks_of_array_libraries(score):
    size, wide = jnp.int32(3), [array.astype(np.float64) for array in (X, REFERENCES, TARGETS)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as that JAX truncates float64
        found = jax.jit(lambda x: score(network, PARAMS, x, *wide[1:], chunk_size=size))(X)
        np.testing.assert_allclose(score(network, PARAMS, *wide), found, rtol=1e-5)
