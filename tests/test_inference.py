"""`predict` and `classify` alike: independence of inputs, transformations, gradients and dtypes."""

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from small_network import PARAMS, REFERENCES, H, X, assert_close, classify, mlp, predict

import anchor_jax as aj
from anchor_jax.runtime import mesh as mesh_lib

pytestmark = pytest.mark.min_versions

FUNCTIONS = pytest.mark.parametrize("function", [predict, classify], ids=["predict", "classify"])
PLAIN_FUNCTIONS = pytest.mark.parametrize("function", [aj.predict, aj.classify], ids=["predict", "classify"])


@FUNCTIONS
def test_inference_is_independent_of_other_inputs(function):
    @jax.jit
    def first_prediction(x):
        return [field[0] for field in function(mlp, PARAMS, x, REFERENCES, chunk_size=5)]

    expected = first_prediction(X)
    assert_close(first_prediction(np.concatenate([X[:1], 100 * X[1:]])), expected, rtol=1e-6, atol=1e-6)
    assert_close(first_prediction(X[:1]), expected)


@PLAIN_FUNCTIONS
def test_inference_under_jit_and_vmap(function):
    def of_params(params):
        return function(mlp, params, X, REFERENCES, chunk_size=5)

    double = jax.tree.map(lambda p: 2 * p, PARAMS)
    expected = of_params(PARAMS)
    assert_close(jax.jit(of_params)(PARAMS), expected)
    ensemble = jax.jit(jax.vmap(of_params))(jax.tree.map(lambda *p: np.stack(p), PARAMS, double))
    assert_close([field[0] for field in ensemble], expected)
    assert_close([field[1] for field in ensemble], jax.jit(of_params)(double))


@FUNCTIONS
@pytest.mark.parametrize(("num_devices", "check_vma"), [(1, True), (2, False)])
def test_inference_under_shard_map(function, num_devices, check_vma):
    def evaluate(params, x, references):
        return function(mlp, params, x, references, chunk_size=5)

    mapped = jax.shard_map(
        evaluate,
        mesh=mesh_lib.mesh(num_devices),
        in_specs=(PartitionSpec(), PartitionSpec("data"), PartitionSpec()),
        out_specs=PartitionSpec("data"),
        check_vma=check_vma,
    )
    assert_close(jax.jit(mapped)(PARAMS, X, REFERENCES), evaluate(PARAMS, X, REFERENCES))


@FUNCTIONS
def test_inference_gradients_equal_finite_differences(function):
    @jax.jit
    def of_inputs(x):
        return function(mlp, PARAMS, x, REFERENCES[:6], chunk_size=4)

    jax.test_util.check_grads(of_inputs, (0.3 * X,), order=1, modes=("rev",), rtol=2e-2, atol=2e-2)


@FUNCTIONS
def test_inference_under_strict_promotion(function):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        prediction = function(mlp, PARAMS, X, REFERENCES, chunk_size=5)
    assert_close(prediction, function(mlp, PARAMS, X, REFERENCES))


@FUNCTIONS
def test_inference_in_half_precision_returns_float32(function):
    seen = []

    def network(params, inputs):
        seen.append(inputs.dtype)
        return mlp(jax.tree.map(lambda p: jnp.asarray(p, inputs.dtype), params), inputs)

    prediction = function(network, PARAMS, jnp.asarray(X, jnp.bfloat16), REFERENCES)
    assert set(seen) == {jnp.dtype(jnp.bfloat16)}
    assert {field.dtype for field in prediction} == {jnp.dtype(jnp.float32)}
    assert_close(prediction[0], function(mlp, PARAMS, X, REFERENCES)[0], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dtype", ["bfloat16", "int32"])
@pytest.mark.parametrize("function", [aj.inference.predict_ensemble, aj.inference.classify_ensemble])
def test_ensembles_of_narrow_outputs_are_averaged_in_float32(function, dtype):
    def of(dtype, chunk_size):
        members = jnp.arange(5).astype(dtype)
        return function(lambda member: member * jnp.ones((2, 3), dtype), members, chunk_size=chunk_size)

    found, whole, expected = jax.jit(lambda: (of(dtype, 2), of(dtype, None), of("float32", None)))()
    assert {leaf.dtype for leaf in jax.tree.leaves((found, whole))} == {jnp.dtype(jnp.float32)}
    assert_close((found, whole), (expected, expected), rtol=1e-6, atol=1e-6)


def test_single_vote_of_half_precision_is_in_float32():
    logits = jnp.asarray(X, jnp.bfloat16)
    found = aj.inference.single_vote(logits)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    assert_close(found, aj.inference.single_vote(logits.astype("f4")), rtol=1e-6)


def test_chunks_leave_excluded_classes_excluded():
    def network(params, inputs):  # excludes class 1 always, and class 0 with some references only
        logits = mlp(params, inputs).at[:, 1].set(-jnp.inf)
        return logits.at[0, 0].set(jnp.where(inputs[0, 0] > 0, -jnp.inf, 0.5))

    chunks, whole = (classify(network, PARAMS, X, REFERENCES[:4], chunk_size=size, temper="duq") for size in (1, None))
    assert np.isneginf(chunks.logits[:, 1]).all()
    assert np.isneginf(chunks.logits[0, 0])
    assert_close(chunks, whole)


@pytest.mark.parametrize(
    ("num", "chunk_size", "message"),
    [(3, 0, "chunk_size must be at least 1; got 0"), (0, None, "number of members must be at least 1; got 0")],
)
def test_ensemble_rejects_no_members_at_once(num, chunk_size, message):
    with pytest.raises(aj.UserError, match=message):
        aj.inference.predict_ensemble(lambda member: member * X, np.ones(num, np.float32), chunk_size=chunk_size)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_ensemble_members_may_be_stacked_parameters(chunk_size):
    anchored = np.concatenate([X, X], axis=1)
    networks = [jax.tree.map(lambda leaf, scale=scale: scale * leaf, PARAMS) for scale in (0.5, 1.0, 2.0)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *networks)
    found = aj.inference.classify_ensemble(lambda params: mlp(params, anchored), stacked, chunk_size=chunk_size)
    expected = np.mean([jax.nn.softmax(mlp(params, anchored)) for params in networks], axis=0)
    np.testing.assert_allclose(found.classification.probs, expected, atol=1e-6)


@pytest.mark.parametrize("members", [[1.0, 2.0], {}, {"a": np.ones(3), "b": np.ones((2, 3))}])
def test_ensemble_members_without_a_common_axis_are_refused(members):
    with pytest.raises(
        aj.UserError, match=r"members must be an array \[K, ...\] or a tree of such arrays; got \d lengths"
    ):
        aj.inference.predict_ensemble(lambda member: member * X, members)


@pytest.mark.parametrize("size", [np.int64(5), jnp.int32(5)], ids=["numpy", "jax"])
def test_chunk_size_may_be_of_an_array_library(size):
    found = jax.jit(lambda x: aj.predict(mlp, PARAMS, x, REFERENCES, chunk_size=size))(X)
    assert_close(found, aj.predict(mlp, PARAMS, X, REFERENCES))


@FUNCTIONS
def test_inference_in_64_bit_mode_returns_float32(function):
    expected = function(mlp, PARAMS, X, REFERENCES, chunk_size=5)
    with jax.enable_x64(True):
        double = [a.astype(np.float64) for a in (X, REFERENCES)]
        prediction = function(mlp, PARAMS, *double, chunk_size=5)
    assert {field.dtype for field in prediction} == {jnp.dtype(jnp.float32)}
    assert_close(prediction, expected)


@FUNCTIONS
def test_inference_gradients_are_finite_for_equal_outputs(function):
    @jax.jit
    def spread(params):
        prediction = function(lambda params, inputs: inputs[:, H:] * 0 + params, params, X, REFERENCES[:3])
        return sum(jnp.sum(field) for field in prediction)

    assert np.isfinite(jax.grad(spread)(jnp.arange(1.0, H + 1))).all()
