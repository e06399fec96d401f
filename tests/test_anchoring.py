"""The anchored transform compared with the arithmetic of the released wrapper, and the distribution of samples."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.sharding import PartitionSpec

import anchor_jax as aj
from anchor_jax.runtime import mesh as mesh_lib

sample_references = jax.jit(aj.sample_references, static_argnames="num")
SHAPES = [(5, 8, 6, 3), (5, 7), (5, 1), (4, 3, 2, 3, 2)]  # NHWC, vectors, one channel, video


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def released(x, references, mask):
    """Return the network input of `create_anchored_batch` in the released wrapper: NCHW, concatenated on axis 1.

    Its mask crops the reference to nothing and pads it with zeros; the residual uses the complete reference.
    """
    residuals = x - references
    visible = [np.zeros_like(r) if masked else r for r, masked in zip(references, mask, strict=True)]
    return np.concatenate([np.stack(visible), residuals], axis=1)


# anchor


@pytest.mark.parametrize("mask", [[False] * 5, [True] * 5, [True, False, False, True, False]])
def test_anchor_images_match_released_wrapper(mask):
    x, references = normal(2, 5, 3, 8, 6)
    expected = released(x, references, mask).transpose(0, 2, 3, 1)
    ours = aj.anchor(x.transpose(0, 2, 3, 1), references.transpose(0, 2, 3, 1), np.array(mask))
    np.testing.assert_array_equal(ours, expected)


def test_anchor_vectors_match_released_wrapper():
    (x, references), mask = normal(2, 5, 7), np.array([True, False, False, True, False])
    np.testing.assert_array_equal(aj.anchor(x, references, mask), released(x, references, mask))


def test_anchor_known_values():
    x, references = jnp.array([[5.0, 7.0], [5.0, 7.0]]), jnp.array([[1.0, 2.0], [1.0, 2.0]])
    anchored = aj.anchor(x, references, jnp.array([False, True]))
    np.testing.assert_array_equal(anchored, [[1, 2, 4, 5], [0, 0, 4, 5]])


@pytest.mark.parametrize("shape", SHAPES)
def test_anchor_concatenates_reference_and_residual_of_any_rank(shape):
    x, references = normal(2, *shape)
    anchored = aj.anchor(x, references)
    assert anchored.shape == (*shape[:-1], 2 * shape[-1])
    np.testing.assert_array_equal(anchored[..., : shape[-1]], references)
    np.testing.assert_array_equal(anchored[..., shape[-1] :], x - references)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True])
def test_anchor_accepts_single_example(shape, masked):
    x, references = normal(2, *shape)
    batch = aj.anchor(x, references, np.full(shape[0], masked))
    np.testing.assert_array_equal(aj.anchor(x[2], references[2], np.array(masked)), batch[2])


@st.composite
def batches(draw):
    """Draw inputs and references of small integers, which float32 subtracts exactly, and a mask."""
    shape = draw(st.sampled_from([(3, 2, 2, 3), (5, 2), (4, 1)]))
    integers = arrays(np.float32, shape, elements=st.integers(-1000, 1000).map(float))
    return draw(integers), draw(integers), draw(arrays(bool, shape[:1]))


@settings(deadline=None, max_examples=25)
@given(batches())
def test_anchor_reference_plus_residual_is_the_input(batch):
    x, references, _ = batch
    visible, residuals = np.split(np.asarray(aj.anchor(x, references)), 2, axis=-1)
    np.testing.assert_array_equal(visible + residuals, x)


@settings(deadline=None, max_examples=25)
@given(batches())
def test_anchor_mask_zeroes_only_masked_references(batch):
    x, references, mask = batch
    visible, residuals = np.split(np.asarray(aj.anchor(x, references, mask)), 2, axis=-1)
    np.testing.assert_array_equal(residuals, x - references)
    np.testing.assert_array_equal(visible[mask], np.zeros_like(references[mask]))
    np.testing.assert_array_equal(visible[~mask], references[~mask])


def test_anchor_without_mask_equals_all_false_mask():
    x, references = normal(2, 5, 8, 6, 3)
    np.testing.assert_array_equal(aj.anchor(x, references), aj.anchor(x, references, np.zeros(5, bool)))


def test_anchor_masks_non_finite_references():
    visible = aj.anchor(jnp.ones((1, 2)), jnp.full((1, 2), jnp.nan), jnp.array([True]))[:, :2]
    np.testing.assert_array_equal(visible, np.zeros((1, 2)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_anchor_keeps_dtype_under_strict_promotion(dtype):
    x, references = jnp.asarray(normal(2, 5, 4, 4, 3), dtype)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        anchored = jax.jit(aj.anchor)(x, references, np.array([True, False, False, True, False]))
    assert anchored.dtype == dtype
    np.testing.assert_array_equal(anchored[..., 3:], x - references)


def test_anchor_under_jit_and_vmap():
    (x, references), mask = normal(2, 5, 8, 6, 3), np.array([True, False, False, True, False])
    expected = aj.anchor(x, references, mask)
    np.testing.assert_array_equal(jax.jit(aj.anchor)(x, references, mask), expected)
    np.testing.assert_array_equal(jax.vmap(aj.anchor)(x, references, mask), expected)
    over_references = jax.vmap(aj.anchor, in_axes=(None, 0, None))(x, np.stack([references, x]), mask)
    np.testing.assert_array_equal(over_references, np.stack([expected, aj.anchor(x, x, mask)]))


@pytest.mark.parametrize("num_devices", [1, 5])
@pytest.mark.parametrize("check_vma", [False, True])
def test_anchor_under_shard_map(num_devices, check_vma):
    (x, references), mask = normal(2, 5, 8, 6, 3), np.array([True, False, False, True, False])
    mapped = jax.shard_map(
        aj.anchor,
        mesh=mesh_lib.mesh(num_devices),
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec("data"),
        check_vma=check_vma,
    )
    np.testing.assert_array_equal(jax.jit(mapped)(x, references, mask), aj.anchor(x, references, mask))


def test_anchor_gradients_match_analytic_ones():
    (x, references), weights = normal(2, 3, 2, 4), normal(3, 2, 8)
    mask = np.array([True, False, True])

    def weighted(x, references):
        return jnp.sum(weights * aj.anchor(x, references, mask))

    x_grad, references_grad = jax.grad(weighted, argnums=(0, 1))(x, references)
    reference_weights, residual_weights = np.split(weights, 2, axis=-1)
    expected = np.where(mask[:, None, None], 0, reference_weights) - residual_weights
    np.testing.assert_array_equal(x_grad, residual_weights)
    np.testing.assert_allclose(references_grad, expected, rtol=1e-6)


# anchored


def test_anchored_passes_anchored_inputs_and_other_arguments():
    (x, references), mask = normal(2, 5, 7), np.array([True, False, False, True, False])

    def apply(params, inputs, *args, **kwargs):
        return params, inputs, args, kwargs

    params, inputs, args, kwargs = aj.anchored(apply)("params", x, references, 1, "two", mask=mask, train=True)
    assert (params, args, kwargs) == ("params", (1, "two"), {"train": True})
    np.testing.assert_array_equal(inputs, aj.anchor(x, references, mask))
    _, inputs, args, kwargs = aj.anchored(apply)("params", x, references)
    assert (args, kwargs) == ((), {})
    np.testing.assert_array_equal(inputs, aj.anchor(x, references))


def test_anchored_is_differentiable_in_params():
    (x, references), weights = normal(2, 5, 7), normal(14)

    def loss(weights):
        return jnp.sum(aj.anchored(lambda weights, inputs: inputs @ weights)(weights, x, references))

    gradient = jax.jit(jax.grad(loss))(weights)
    np.testing.assert_allclose(gradient, np.concatenate([references, x - references], axis=1).sum(axis=0), rtol=1e-4)


# sample_references


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(np.asarray, np.uint8), (jnp.asarray, np.uint8), (jnp.asarray, np.float32), (jnp.asarray, jnp.bfloat16)],
)
def test_sample_references_returns_rows_of_the_bank(kind, dtype):
    bank = kind(np.arange(6)[:, None, None, None] * np.ones((2, 3, 4)), dtype=dtype)
    sampled = aj.sample_references(jax.random.key(0), bank, 50)
    assert (sampled.shape, sampled.dtype) == ((50, 2, 3, 4), dtype)
    rows = np.asarray(sampled, np.float32).reshape(50, -1)
    np.testing.assert_array_equal(rows, rows[:, :1] * np.ones(24))
    assert set(rows[:, 0]) == set(range(6))  # all rows occur in 50 samples, so some repeat


def test_sample_references_is_uniform_and_independent():
    bank, num = jnp.arange(8), 4000
    sampled = np.asarray(sample_references(jax.random.key(1), bank, num))
    assert scipy.stats.chisquare(np.bincount(sampled, minlength=8)).pvalue > 0.01
    pairs = np.bincount(8 * sampled[::2] + sampled[1::2], minlength=64)  # about 31 of each
    assert scipy.stats.chisquare(pairs).pvalue > 0.01


def test_sample_references_without_replacement_is_uniform():
    keys = jax.random.split(jax.random.key(3), 6000)
    permutations = np.asarray(jax.vmap(lambda key: aj.sample_references(key, jnp.arange(3), 3, replace=False))(keys))
    np.testing.assert_array_equal(np.sort(permutations, axis=1), np.tile(np.arange(3), (6000, 1)))
    _, counts = np.unique(permutations, axis=0, return_counts=True)
    assert len(counts) == 6
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    half = np.asarray(aj.sample_references(jax.random.key(4), np.arange(1000), 500, replace=False))
    assert len(set(half.tolist())) == 500


def test_sample_references_depends_only_on_the_key():
    bank = jnp.arange(1000)
    one, again, other = (sample_references(jax.random.key(seed), bank, 100) for seed in (2, 2, 3))
    np.testing.assert_array_equal(one, again)
    assert np.mean(np.equal(one, other)) < 0.1


def test_sample_references_from_bank_of_one():
    np.testing.assert_array_equal(sample_references(jax.random.key(0), jnp.full((1, 2), 7.0), 3), np.full((3, 2), 7))


# sample_mask


@partial(jax.jit, static_argnames="per")
def masks(prob, per):
    """Sample the masks of 2000 batches of 4 examples, `[2000, 4]`."""
    keys = jax.random.split(jax.random.key(4), 2000)
    return jax.vmap(lambda key: aj.sample_mask(key, 4, prob, per))(keys)


@pytest.mark.parametrize("per", ["batch", "example"])
@pytest.mark.parametrize("prob", [0.0, 0.2, 0.5, 1.0])
def test_sample_mask_has_requested_probability(per, prob):
    sampled = np.asarray(masks(prob, per))
    assert (sampled.shape, sampled.dtype) == ((2000, 4), bool)
    for example in sampled.T:
        assert scipy.stats.binomtest(int(example.sum()), len(example), prob).pvalue > 0.01


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sample_mask_takes_a_probability_in_half_precision(dtype):
    prob = jnp.asarray(0.002, dtype)
    found = aj.sample_mask(jax.random.key(0), 4000, prob, "example")
    np.testing.assert_array_equal(found, aj.sample_mask(jax.random.key(0), 4000, float(prob), "example"))


def test_sample_mask_per_batch_is_shared_by_the_batch():
    sampled = masks(0.5, "batch")
    np.testing.assert_array_equal(sampled, sampled[:, :1] * np.ones(4, bool))
    np.testing.assert_array_equal(
        aj.sample_mask(jax.random.key(5), 9, 0.5), aj.sample_mask(jax.random.key(5), 9, 0.5, "batch")
    )


def test_sample_mask_per_example_is_independent():
    sampled = masks(0.5, "example")
    patterns = np.bincount(sampled @ np.array([1, 2, 4, 8]), minlength=16)  # about 125 of each
    assert scipy.stats.chisquare(patterns).pvalue > 0.01


def test_sample_mask_per_group_is_shared_by_each_group():
    draw = jax.vmap(lambda key: aj.sample_mask(key, 8, 0.3, "group", group_size=4))
    sampled = np.asarray(draw(jax.random.split(jax.random.key(4), 2000))).reshape(2000, 2, 4)
    np.testing.assert_array_equal(sampled, np.broadcast_to(sampled[..., :1], sampled.shape))
    patterns = np.bincount(sampled[..., 0] @ np.array([1, 2]), minlength=4)
    assert scipy.stats.chisquare(patterns, 2000 * np.array([0.49, 0.21, 0.21, 0.09])).pvalue > 0.01
    key = jax.random.key(5)
    of_one = aj.sample_mask(key, 9, 0.5, "group", group_size=1)
    np.testing.assert_array_equal(of_one, aj.sample_mask(key, 9, 0.5, "example"))


@pytest.mark.parametrize("per", ["batch", "example"])
def test_sample_mask_accepts_traced_probability(per):
    key, probs = jax.random.key(6), np.array([0.0, 0.3, 0.7, 1.0], np.float32)
    traced = jax.jit(jax.vmap(lambda prob: aj.sample_mask(key, 50, prob, per)))(probs)
    np.testing.assert_array_equal(traced, [aj.sample_mask(key, 50, prob, per) for prob in probs])


# anchored_kernel


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_anchored_kernel_repeats_the_kernel(dtype):
    kernel = jnp.asarray(normal(2, 3, 4, 5), dtype)
    widened = jax.jit(aj.anchored_kernel)(kernel)
    assert widened.dtype == dtype
    np.testing.assert_array_equal(widened, np.concatenate([kernel, kernel], axis=2))


def test_anchored_kernel_of_flattened_images_is_same_function():
    x, references = normal(2, 4, 3, 3, 2)
    kernel = normal(18, 5)
    flat = aj.anchor(x, references).reshape(4, -1)
    np.testing.assert_allclose(
        flat @ aj.anchored_kernel(kernel, channels=2), x.reshape(4, -1) @ kernel, rtol=1e-4, atol=1e-4
    )
    outputs_first = aj.anchored_kernel(kernel.T, axis=1, channels=2)
    np.testing.assert_array_equal(outputs_first, aj.anchored_kernel(kernel, channels=2).T)
