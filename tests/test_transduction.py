"""Bilinear transduction, compared with a search over all pairs in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.sharding import PartitionSpec
from small_network import PARAMS, REFERENCES, B, C, X, mlp, normal

import anchor_jax as aj
from anchor_jax.runtime import mesh as mesh_lib

pytestmark = pytest.mark.min_versions

transduce = jax.jit(aj.transductive_references)


def distances(x, bank, residuals):
    """Return the minimum of `‖x - r - d‖²` over residuals, float64 `[B, M]`, from all B·M·D triples."""
    x, bank, residuals = (a.reshape(len(a), -1).astype(np.float64) for a in (x, bank, residuals))
    differences = x[:, None, None] - bank[:, None] - residuals
    return np.sum(differences**2, axis=-1).min(axis=-1)


@pytest.mark.parametrize("shape", [(1,), (7,), (4, 3, 3), (2, 3, 2, 2)])
@pytest.mark.parametrize("transduce", [aj.transductive_references, transduce], ids=["plain", "jit"])
def test_transduction_equals_search_over_all_pairs(shape, transduce):
    x, bank, residuals = (normal(num, num, *shape) for num in (5, 9, 35))
    expected = bank[distances(x, bank, residuals).argmin(axis=1)]
    np.testing.assert_array_equal(transduce(x, bank, residuals), expected)


@settings(deadline=None, max_examples=25)
@given(*(arrays(np.float32, (num, 2), elements=st.integers(-20, 20).map(float)) for num in (3, 4, 5)))
def test_transduction_takes_the_first_of_ties(x, bank, residuals):
    expected = bank[distances(x, bank, residuals).argmin(axis=1)]  # exact in float32, with ties
    np.testing.assert_array_equal(transduce(x, bank, residuals), expected)


def test_transduction_prefers_seen_residual_to_near_reference():
    bank, residuals = np.array([[0.0], [10.0]], np.float32), np.array([[-9.0], [-8.5]], np.float32)
    np.testing.assert_array_equal(aj.transductive_references(np.array([[1.0]], np.float32), bank, residuals), [[10.0]])


def test_transductive_rows_are_those_of_the_references():
    x, bank, residuals = normal(7, 6, 4), normal(8, 9, 4), normal(9, 5, 4)
    rows = aj.inference.transductive_rows(x, bank, residuals)
    assert rows.dtype == jnp.int32
    np.testing.assert_array_equal(bank[np.asarray(rows)], transduce(x, bank, residuals))


def test_transduction_references_work_with_anchored():
    references = aj.transductive_references(X, REFERENCES, REFERENCES[:6] - REFERENCES[6:])
    outputs = aj.anchored(mlp)(PARAMS, X, references)
    assert outputs.shape == (B, C)


def test_transduction_is_independent_of_other_inputs():
    residuals = REFERENCES[:6] - REFERENCES[6:]
    batch = aj.transductive_references(X, REFERENCES, residuals)
    np.testing.assert_array_equal(aj.transductive_references(X[2:3], REFERENCES, residuals)[0], batch[2])


def test_transduction_under_shard_map_and_strict_promotion():
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


def test_transduction_accepts_numpy_bank_under_jit():
    residuals = REFERENCES[:6] - REFERENCES[6:]
    jitted = jax.jit(lambda x: aj.transductive_references(x, REFERENCES, residuals))
    np.testing.assert_array_equal(jitted(X), transduce(X, REFERENCES, residuals))


def test_transduction_keeps_dtype_of_the_bank():
    bank = jnp.asarray(REFERENCES, jnp.bfloat16)
    assert aj.transductive_references(jnp.asarray(X, jnp.bfloat16), bank, bank).dtype == jnp.bfloat16


def test_transduction_memory_holds_no_triples():
    def temporary_bytes(num_inputs):
        shapes = [jax.ShapeDtypeStruct((num, 8), jnp.float32) for num in (num_inputs, 300, 200)]
        return transduce.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    bytes_per_input = (temporary_bytes(400) - temporary_bytes(200)) / 200
    assert bytes_per_input < 4 * 4 * (300 + 200)  # a few rows of references and residuals, not all 300 · 200 pairs


@pytest.mark.parametrize(("dtype", "origin"), [(np.float32, 1000), (np.float64, 1.75e9)])
def test_transduction_keeps_digits_far_from_zero(dtype, origin):
    x, bank, residuals = (
        normal(1, 20, 30).astype(dtype) + origin,
        normal(2, 30, 30).astype(dtype) + origin,
        normal(3, 40, 30),
    )
    rows = distances(x, bank, residuals).argmin(axis=1)
    np.testing.assert_array_equal(aj.inference.transductive_rows(x, bank, residuals), rows)


def test_transduction_outside_of_jit_compiles_once(caplog):
    inputs = [normal(seed, 5, 2) for seed in range(3)]
    aj.transductive_references(*inputs)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        aj.transductive_references(*inputs)
    assert not caplog.messages
