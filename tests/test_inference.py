"""K references and bilinear transduction against loops in NumPy, and the released tempering in PyTorch."""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
import scipy.special
import scipy.stats
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.sharding import PartitionSpec

import anchor_jax as aj
from anchor_jax import models
from anchor_jax.runtime import mesh as mesh_lib

pytestmark = pytest.mark.min_versions

B, H, C = 4, 5, 3  # inputs, their features, classes
MOST = 12  # references


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X, REFERENCES = normal(0, B, H), normal(1, MOST, H)
PARAMS = {"in": normal(2, 2 * H, 8), "out": normal(3, 8, C)}

# compiled, since each call outside of jit compiles its loop anew; all of jit, vmap and neither are compared below
predict = jax.jit(aj.predict, static_argnames=("apply_fn", "chunk_size"))
classify = jax.jit(aj.classify, static_argnames=("apply_fn", "chunk_size", "temper"))
transduce = jax.jit(aj.transductive_references)


def mlp(params, inputs):
    return jnp.tanh(inputs @ params["in"]) @ params["out"]


def reference_itself(_, inputs):
    """A network whose logits are its reference: so any logits can be had."""
    return jnp.split(inputs, 2, axis=-1)[0]


def looped(apply_fn, params, x, references):
    """Outputs float64 `[K, B, ...]`: one reference after the other, anchored in NumPy."""
    outputs = []
    for reference in references:
        shown = np.broadcast_to(reference, x.shape)
        outputs.append(np.asarray(apply_fn(params, np.concatenate([shown, x - shown], axis=-1))))
    return np.stack(outputs).astype(np.float64)


def of_logits(logits):
    """The classification of logits `[K, C]`, as that of one input."""
    return classify(reference_itself, None, np.zeros((1, logits.shape[1]), np.float32), logits)


def assert_close(one, other, rtol=1e-4, atol=1e-5):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


# predict


@pytest.mark.parametrize("num", [2, 3, MOST])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_predict_is_the_mean_and_unbiased_spread_of_a_loop(num, chunk_size):
    outputs = looped(mlp, PARAMS, X, REFERENCES[:num])
    prediction = predict(mlp, PARAMS, X, REFERENCES[:num], chunk_size=chunk_size)
    assert prediction.mean.dtype == prediction.std.dtype == jnp.float32
    assert_close(prediction, (outputs.mean(axis=0), outputs.std(axis=0, ddof=1)))


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_predict_with_a_convolutional_network_of_flax(chunk_size):
    class Network(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            hidden = nn.relu(nn.Conv(4, (3, 3))(inputs))
            return nn.Dense(C)(hidden.mean(axis=(1, 2)))

    network, x = Network(), normal(0, 2, 6, 5, 3)
    references = normal(1, 5, 6, 5, 3)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 6, 5, 6)))
    outputs = looped(jax.jit(network.apply), variables, x, references)
    prediction = predict(network.apply, variables, x, references, chunk_size=chunk_size)
    assert_close(prediction, (outputs.mean(axis=0), outputs.std(axis=0, ddof=1)))


def test_predict_keeps_outputs_of_any_rank():
    def maps(_, inputs):
        return jnp.sin(inputs)[:, None]

    outputs = looped(maps, None, X, REFERENCES)
    prediction = predict(maps, None, X, REFERENCES)
    assert prediction.mean.shape == (B, 1, 2 * H)
    assert_close(prediction, (outputs.mean(axis=0), outputs.std(axis=0, ddof=1)))


@pytest.mark.parametrize("chunk_size", [None, 1, 5])
def test_one_reference_is_the_anchored_call_and_has_no_spread(chunk_size):
    prediction = predict(mlp, PARAMS, X, REFERENCES[:1], chunk_size=chunk_size)
    expected = aj.anchored(mlp)(PARAMS, X, jnp.broadcast_to(REFERENCES[0], X.shape))
    np.testing.assert_allclose(prediction.mean, expected, rtol=1e-6)
    assert prediction.std is None


def test_every_chunk_size_gives_the_same():
    num = 5
    expected = predict(mlp, PARAMS, X, REFERENCES[:num])
    for chunk_size in range(1, num + 3):
        assert_close(predict(mlp, PARAMS, X, REFERENCES[:num], chunk_size=chunk_size), expected)


@settings(deadline=None, max_examples=15)
@given(st.integers(2, MOST), st.integers(1, MOST + 2), st.randoms(use_true_random=False))
def test_neither_chunks_nor_the_order_of_references_matter(num, chunk_size, random):
    order = random.sample(range(num), num)
    outputs = looped(mlp, PARAMS, X, REFERENCES[:num])
    prediction = predict(mlp, PARAMS, X, REFERENCES[:num][order], chunk_size=chunk_size)
    assert_close(prediction, (outputs.mean(axis=0), outputs.std(axis=0, ddof=1)))


def test_duplicated_references_keep_the_mean_and_shrink_the_unbiased_spread():
    num = 6
    once = predict(mlp, PARAMS, X, REFERENCES[:num])
    twice = predict(mlp, PARAMS, X, np.tile(REFERENCES[:num], (2, 1)), chunk_size=5)
    assert_close(twice, (once.mean, once.std * np.sqrt(2 * (num - 1) / (2 * num - 1))))


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
def test_equal_references_have_no_spread(chunk_size):
    prediction = predict(mlp, PARAMS, X, np.tile(REFERENCES[:1], (7, 1)), chunk_size=chunk_size)
    assert_close(prediction, (mlp(PARAMS, aj.anchor(X, np.tile(REFERENCES[:1], (B, 1)))), np.zeros((B, C))))


@pytest.mark.parametrize("chunk_size", [None, 1, 7])
def test_a_spread_far_smaller_than_the_mean_is_kept(chunk_size):
    outputs = (1e4 + np.random.default_rng(4).integers(-64, 65, size=(50, C)) / 512).astype(
        np.float32
    )  # exact in float32
    prediction = predict(reference_itself, None, np.zeros((1, C), np.float32), outputs, chunk_size=chunk_size)
    np.testing.assert_allclose(prediction.mean[0], outputs.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(prediction.std[0], outputs.std(axis=0, ddof=1, dtype=np.float64), rtol=1e-2)


def temporary_bytes(num, chunk_size):
    shapes = jax.ShapeDtypeStruct((64, H), jnp.float32), jax.ShapeDtypeStruct((num, H), jnp.float32)
    compiled = predict.lower(mlp, PARAMS, *shapes, chunk_size=chunk_size).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_number_of_references_but_with_the_chunk():
    few = temporary_bytes(16, chunk_size=4)
    assert temporary_bytes(256, chunk_size=4) < 1.1 * few
    assert temporary_bytes(16, chunk_size=None) > 2 * few
    assert temporary_bytes(256, chunk_size=None) > 10 * temporary_bytes(16, chunk_size=None)


def test_memory_does_not_grow_when_the_last_chunk_is_not_full_either():
    few = temporary_bytes(17, chunk_size=4)
    for num in (257, 4097):
        assert temporary_bytes(num, chunk_size=4) < 1.1 * few  # not even by a copy of the references


# classify


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_classify_equals_numpy(chunk_size):
    logits = looped(mlp, PARAMS, X, REFERENCES)
    probs = scipy.special.softmax(logits, axis=-1)
    entropy = scipy.stats.entropy(probs.mean(axis=0), axis=-1)
    expected = aj.Classification(
        logits=logits.mean(axis=0),
        probs=probs.mean(axis=0),
        probs_std=probs.std(axis=0, ddof=1),
        entropy=entropy,
        mutual_information=entropy - scipy.stats.entropy(probs, axis=-1).mean(axis=0),
    )
    classification = classify(mlp, PARAMS, X, REFERENCES, chunk_size=chunk_size)
    assert {field.dtype for field in classification} == {jnp.dtype(jnp.float32)}
    assert np.all(expected.mutual_information > 0.01)
    assert_close(classification, expected)


@pytest.mark.parametrize(("num", "chunk_size"), [(2, None), (MOST, 5)])
def test_duq_tempers_as_the_released_imagenet_wrapper(num, chunk_size):
    torch = pytest.importorskip("torch")
    logits = torch.tensor(looped(mlp, PARAMS, X, REFERENCES[:num]))
    spread = logits.sigmoid().std(dim=0)  # of K outputs, unbiased
    expected = logits.mean(dim=0) / (1 + spread.mean(dim=1, keepdim=True).exp())
    classification = classify(mlp, PARAMS, X, REFERENCES[:num], chunk_size=chunk_size, temper="duq")
    plain = classify(mlp, PARAMS, X, REFERENCES[:num])
    assert_close(classification.logits, expected.numpy())
    assert_close(classification.probs, expected.softmax(dim=1).numpy())
    assert_close(classification.entropy, scipy.stats.entropy(expected.softmax(dim=1).numpy(), axis=1))
    assert_close(classification.probs_std, plain.probs_std)
    assert_close(classification.mutual_information, plain.mutual_information)


@pytest.mark.parametrize("temper", [None, "duq"])
def test_one_reference_is_classified_untempered_and_without_spread(temper):
    classification = classify(mlp, PARAMS, X, REFERENCES[:1], temper=temper)
    logits = looped(mlp, PARAMS, X, REFERENCES[:1])[0]
    probs = scipy.special.softmax(logits, axis=-1)
    assert classification.probs_std is None
    np.testing.assert_array_equal(classification.mutual_information, np.zeros(B))
    assert_close(classification.logits, logits)
    assert_close(classification.probs, probs)
    assert_close(classification.entropy, scipy.stats.entropy(probs, axis=-1))


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_poll_counts_the_references_that_say_the_most_said_class(chunk_size):
    said = looped(mlp, PARAMS, X, REFERENCES).argmax(axis=-1)
    expected = np.array([np.bincount(classes).max() for classes in said.T]) / MOST
    assert len(set(expected)) > 1
    poll = aj.inference.classify_with_votes(mlp, PARAMS, X, REFERENCES, chunk_size=chunk_size)
    assert_close(poll.agreement, expected)
    assert_close(poll.classification, classify(mlp, PARAMS, X, REFERENCES))


def test_poll_of_one_pass_is_that_of_one_reference():
    logits = looped(mlp, PARAMS, X, REFERENCES[:1])[0].astype(np.float32)
    assert_close(aj.inference.single_vote(logits), aj.inference.classify_with_votes(mlp, PARAMS, X, REFERENCES[:1]))


def test_full_disagreement_is_ln_2_and_agreement_0():
    one_of_each, twice_the_first = 1e4 * np.eye(2, dtype=np.float32), 1e4 * np.eye(2, dtype=np.float32)[[0, 0]]
    half, all_of_it = np.sqrt(0.5), np.log(2)
    for logits, expected in [
        (one_of_each, ([5e3, 5e3], [0.5, 0.5], [half, half], all_of_it, all_of_it)),
        (twice_the_first, ([1e4, 0.0], [1.0, 0.0], [0.0, 0.0], 0.0, 0.0)),
    ]:
        for field, value in zip(of_logits(logits), expected, strict=True):
            np.testing.assert_allclose(field[0], value, rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(arrays(np.float32, (7, C), elements=st.floats(-1e4, 1e4, width=32)))
def test_ranges_hold_for_any_logits(logits):
    logits, probs, probs_std, entropy, mutual_information = of_logits(logits)
    assert np.all(np.isfinite(logits))
    np.testing.assert_allclose(probs.sum(axis=-1), [1.0], rtol=1e-5)
    assert np.all((np.asarray(probs_std) >= 0) & (np.asarray(probs_std) <= 0.71))
    assert -1e-6 <= entropy[0] <= np.log(C) + 1e-5
    assert 0 <= mutual_information[0] <= entropy[0] + 1e-6


# both


FUNCTIONS = pytest.mark.parametrize("function", [predict, classify], ids=["predict", "classify"])
PLAIN_FUNCTIONS = pytest.mark.parametrize("function", [aj.predict, aj.classify], ids=["predict", "classify"])


@FUNCTIONS
def test_a_prediction_does_not_depend_on_its_neighbours(function):
    @jax.jit
    def of_first(x):
        return [field[0] for field in function(mlp, PARAMS, x, REFERENCES, chunk_size=5)]

    expected = of_first(X)
    assert_close(of_first(np.concatenate([X[:1], 100 * X[1:]])), expected, rtol=1e-6, atol=1e-6)
    assert_close(of_first(X[:1]), expected)


@PLAIN_FUNCTIONS
def test_same_under_jit_and_vmap(function):
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
def test_same_under_shard_map(function, num_devices, check_vma):
    def of_part(params, x, references):
        return function(mlp, params, x, references, chunk_size=5)

    mapped = jax.shard_map(
        of_part,
        mesh=mesh_lib.mesh(num_devices),
        in_specs=(PartitionSpec(), PartitionSpec("data"), PartitionSpec()),
        out_specs=PartitionSpec("data"),
        check_vma=check_vma,
    )
    assert_close(jax.jit(mapped)(PARAMS, X, REFERENCES), of_part(PARAMS, X, REFERENCES))


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_the_gradient_of_the_mean_is_the_mean_of_the_gradients(chunk_size):
    def mean(params):
        return predict(mlp, params, X, REFERENCES, chunk_size=chunk_size).mean.sum()

    def of_one(params, reference):
        return aj.anchored(mlp)(params, X, jnp.broadcast_to(reference, X.shape)).sum()

    each = jax.jit(jax.vmap(jax.grad(of_one), in_axes=(None, 0)))(PARAMS, REFERENCES)
    assert_close(jax.jit(jax.grad(mean))(PARAMS), jax.tree.map(lambda g: g.mean(axis=0), each), rtol=1e-3)


@FUNCTIONS
def test_gradients_equal_finite_differences(function):
    @jax.jit
    def of_inputs(x):
        return function(mlp, PARAMS, x, REFERENCES[:6], chunk_size=4)

    jax.test_util.check_grads(of_inputs, (0.3 * X,), order=1, modes=("rev",), rtol=2e-2, atol=2e-2)


@FUNCTIONS
def test_strict_promotion_of_dtypes_and_ranks(function):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        prediction = function(mlp, PARAMS, X, REFERENCES, chunk_size=5)
    assert_close(prediction, function(mlp, PARAMS, X, REFERENCES))


@FUNCTIONS
def test_half_precision_reaches_the_network_and_results_are_float32(function):
    seen = []

    def network(params, inputs):
        seen.append(inputs.dtype)
        return mlp(jax.tree.map(lambda p: jnp.asarray(p, inputs.dtype), params), inputs)

    prediction = function(network, PARAMS, jnp.asarray(X, jnp.bfloat16), REFERENCES)
    assert set(seen) == {jnp.dtype(jnp.bfloat16)}
    assert {field.dtype for field in prediction} == {jnp.dtype(jnp.float32)}
    assert_close(prediction[0], function(mlp, PARAMS, X, REFERENCES)[0], rtol=0.1, atol=0.1)


@FUNCTIONS
def test_results_are_float32_in_64_bit_mode(function):
    expected = function(mlp, PARAMS, X, REFERENCES, chunk_size=5)
    with jax.enable_x64(True):
        double = [a.astype(np.float64) for a in (X, REFERENCES)]
        prediction = function(mlp, PARAMS, *double, chunk_size=5)
    assert {field.dtype for field in prediction} == {jnp.dtype(jnp.float32)}
    assert_close(prediction, expected)


def test_float64_of_numpy_meets_references_of_jax():
    prediction = aj.predict(mlp, PARAMS, X.astype(np.float64), jnp.asarray(REFERENCES))
    assert_close(prediction, predict(mlp, PARAMS, X, REFERENCES))


def test_a_batch_of_any_size_can_be_exported():
    (size,) = jax.export.symbolic_shape("size")
    exported = jax.export.export(jax.jit(lambda x: classify(mlp, PARAMS, x, REFERENCES).probs))(
        jax.ShapeDtypeStruct((size, H), jnp.float32)
    )
    assert_close(exported.call(X), classify(mlp, PARAMS, X, REFERENCES).probs)


@FUNCTIONS
def test_gradients_are_finite_where_references_agree(function):
    @jax.jit
    def spread(params):
        prediction = function(lambda params, inputs: inputs[:, H:] * 0 + params, params, X, REFERENCES[:3])
        return sum(jnp.sum(field) for field in prediction)

    assert np.isfinite(jax.grad(spread)(jnp.arange(1.0, H + 1))).all()


# split models


SPLIT = aj.SplitModel(
    first_layer=lambda params, inputs: inputs @ params["in"] + 0.5,
    rest=lambda params, features: jnp.tanh(features) @ params["out"],
)


def whole(params, inputs):
    return jnp.tanh(inputs @ params["in"] + 0.5) @ params["out"]


@FUNCTIONS
@pytest.mark.parametrize("num", [1, 2, MOST])
@pytest.mark.parametrize("chunk_size", [None, 5])
def test_split_model_agrees_with_the_whole_one(function, num, chunk_size):
    function = jax.jit(function, static_argnames=("apply_fn", "chunk_size"))
    expected = function(whole, PARAMS, X, REFERENCES[:num], chunk_size=chunk_size)
    assert_close(function(SPLIT, PARAMS, X, REFERENCES[:num], chunk_size=chunk_size), expected)
    encoded = aj.encode_references(SPLIT, PARAMS, REFERENCES[:num])
    assert_close(function(SPLIT, PARAMS, X, encoded, chunk_size=chunk_size), expected)
    assert_close(SPLIT(PARAMS, np.tile(X, 2)), whole(PARAMS, np.tile(X, 2)))


def test_split_model_in_half_precision_is_about_as_near_the_truth():
    x, references = normal(0, B, 8, 8, 2), normal(1, 6, 8, 8, 2)
    variables = models.create("resnet18", C, width=8).init(jax.random.key(0), np.tile(x, 2))

    def logits_of(dtype, split):
        apply = models.create("resnet18", C, width=8, dtype=dtype).apply
        network = aj.SplitModel(*(partial(apply, method=name) for name in ("first_layer", "rest"))) if split else apply
        return classify(network, variables, x, references).logits

    truth = logits_of("float32", split=False)
    error = {split: np.abs(logits_of("bfloat16", split) - truth).mean() for split in (False, True)}
    assert 0 < error[True] < 2 * error[False]


def test_split_model_shows_its_first_layer_every_input_and_every_reference_once():
    seen = []

    def first_layer(params, inputs):
        seen.append(len(inputs))
        return SPLIT.first_layer(params, inputs)

    aj.predict(aj.SplitModel(first_layer, SPLIT.rest), PARAMS, X, REFERENCES, chunk_size=5)
    assert sorted(seen) == [1, B, MOST]  # one for the bias
    seen.clear()
    encoded = aj.encode_references(SPLIT, PARAMS, REFERENCES)
    aj.predict(aj.SplitModel(first_layer, SPLIT.rest), PARAMS, X, encoded)
    assert seen == [B]


def test_split_model_same_under_shard_map():
    def of_part(params, x, encoded):
        return aj.classify(SPLIT, params, x, encoded, chunk_size=5)

    encoded = aj.encode_references(SPLIT, PARAMS, REFERENCES)
    specs = PartitionSpec(), PartitionSpec("data"), PartitionSpec()
    mapped = jax.shard_map(of_part, mesh=mesh_lib.mesh(2), in_specs=specs, out_specs=PartitionSpec("data"))
    assert_close(jax.jit(mapped)(PARAMS, X, encoded), classify(whole, PARAMS, X, REFERENCES))


def test_memory_of_a_split_model_does_not_grow_with_the_number_of_encoded_references():
    def temporary(num):
        shapes = jax.ShapeDtypeStruct((64, H), jnp.float32), jax.ShapeDtypeStruct((num, 8), jnp.float32)
        compiled = predict.lower(SPLIT, PARAMS, shapes[0], aj.inference.EncodedReferences(shapes[1]), chunk_size=4)
        return compiled.compile().memory_analysis().temp_size_in_bytes

    assert temporary(256) < 1.1 * temporary(16)


# transductive_references


def distances(x, bank, residuals):
    """The least `‖x - r - d‖²` over residuals, float64 `[B, M]`: B·M·D of them."""
    x, bank, residuals = (a.reshape(len(a), -1).astype(np.float64) for a in (x, bank, residuals))
    differences = x[:, None, None] - bank[:, None] - residuals
    return np.sum(differences**2, axis=-1).min(axis=-1)


@pytest.mark.parametrize("shape", [(1,), (7,), (4, 3, 3), (2, 3, 2, 2)])
@pytest.mark.parametrize("transduce", [aj.transductive_references, transduce], ids=["plain", "jit"])
def test_transduction_finds_what_a_search_over_all_pairs_finds(shape, transduce):
    x, bank, residuals = (normal(num, num, *shape) for num in (5, 9, 35))
    expected = bank[distances(x, bank, residuals).argmin(axis=1)]
    np.testing.assert_array_equal(transduce(x, bank, residuals), expected)


@settings(deadline=None, max_examples=25)
@given(*(arrays(np.float32, (num, 2), elements=st.integers(-20, 20).map(float)) for num in (3, 4, 5)))
def test_transduction_takes_the_first_of_the_nearest_rows(x, bank, residuals):
    expected = bank[distances(x, bank, residuals).argmin(axis=1)]  # exact in float32, ties among them
    np.testing.assert_array_equal(transduce(x, bank, residuals), expected)


def test_transduction_takes_the_reference_whose_residual_was_seen_not_the_nearest_one():
    bank, residuals = np.array([[0.0], [10.0]], np.float32), np.array([[-9.0], [-8.5]], np.float32)
    np.testing.assert_array_equal(aj.transductive_references(np.array([[1.0]], np.float32), bank, residuals), [[10.0]])


def test_transduction_says_which_rows_of_the_bank():
    x, bank, residuals = normal(7, 6, 4), normal(8, 9, 4), normal(9, 5, 4)
    rows = aj.inference.transductive_rows(x, bank, residuals)
    assert rows.dtype == jnp.int32
    np.testing.assert_array_equal(bank[np.asarray(rows)], transduce(x, bank, residuals))


def test_transduction_serves_predictions_of_one_reference_an_input():
    references = aj.transductive_references(X, REFERENCES, REFERENCES[:6] - REFERENCES[6:])
    outputs = aj.anchored(mlp)(PARAMS, X, references)
    assert outputs.shape == (B, C)


def test_transduction_of_one_input_does_not_depend_on_its_neighbours():
    residuals = REFERENCES[:6] - REFERENCES[6:]
    together = aj.transductive_references(X, REFERENCES, residuals)
    np.testing.assert_array_equal(aj.transductive_references(X[2:3], REFERENCES, residuals)[0], together[2])


def test_transduction_same_under_shard_map_and_strict_promotion():
    residuals = REFERENCES[:6] - REFERENCES[6:]
    expected = aj.transductive_references(X, REFERENCES, residuals)
    mapped = jax.shard_map(
        aj.transductive_references,
        mesh=mesh_lib.mesh(2),
        in_specs=(PartitionSpec("data"), PartitionSpec(), PartitionSpec()),
        out_specs=PartitionSpec("data"),
    )
    np.testing.assert_array_equal(jax.jit(mapped)(X, REFERENCES, residuals), expected)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        np.testing.assert_array_equal(aj.transductive_references(X, REFERENCES, residuals), expected)


def test_transduction_takes_a_bank_of_numpy_into_a_compiled_function():
    residuals = REFERENCES[:6] - REFERENCES[6:]
    within = jax.jit(lambda x: aj.transductive_references(x, REFERENCES, residuals))
    np.testing.assert_array_equal(within(X), transduce(X, REFERENCES, residuals))


def test_transduction_keeps_the_dtype_of_the_bank():
    bank = jnp.asarray(REFERENCES, jnp.bfloat16)
    assert aj.transductive_references(jnp.asarray(X, jnp.bfloat16), bank, bank).dtype == jnp.bfloat16


def test_transduction_holds_no_pair_of_reference_and_residual_for_every_input():
    def temporary(num_inputs):
        shapes = [jax.ShapeDtypeStruct((num, 8), jnp.float32) for num in (num_inputs, 300, 200)]
        return transduce.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    an_input = (temporary(400) - temporary(200)) / 200
    assert an_input < 4 * 4 * (300 + 200)  # bytes: a few rows of references and residuals, far from 300 · 200 of pairs
