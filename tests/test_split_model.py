"""Split models and encoded references, compared with the complete model."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from small_network import MAX_REFERENCES, PARAMS, REFERENCES, B, C, H, X, assert_close, classify, normal, predict

import anchor_jax as aj
from anchor_jax import models
from anchor_jax.runtime import mesh as mesh_lib

pytestmark = pytest.mark.min_versions

FUNCTIONS = pytest.mark.parametrize("function", [predict, classify], ids=["predict", "classify"])

SPLIT = aj.SplitModel(
    first_layer=lambda params, inputs: inputs @ params["in"] + 0.5,
    rest=lambda params, features: jnp.tanh(features) @ params["out"],
)


def complete_model(params, inputs):
    return jnp.tanh(inputs @ params["in"] + 0.5) @ params["out"]


@FUNCTIONS
@pytest.mark.parametrize("num", [1, 2, MAX_REFERENCES])
@pytest.mark.parametrize("chunk_size", [None, 5])
def test_split_model_agrees_with_complete_model(function, num, chunk_size):
    function = jax.jit(function, static_argnames=("apply_fn", "chunk_size"))
    expected = function(complete_model, PARAMS, X, REFERENCES[:num], chunk_size=chunk_size)
    assert_close(function(SPLIT, PARAMS, X, REFERENCES[:num], chunk_size=chunk_size), expected)
    encoded = aj.encode_references(SPLIT, PARAMS, REFERENCES[:num])
    assert_close(function(SPLIT, PARAMS, X, encoded, chunk_size=chunk_size), expected)
    assert_close(SPLIT(PARAMS, np.tile(X, 2)), complete_model(PARAMS, np.tile(X, 2)))


@FUNCTIONS
def test_encoded_references_may_show_others(function):
    own, shown = REFERENCES[:3], REFERENCES[3:6]

    def exchanged(params, inputs):  # the same by hand: exchange the reference, keep the residual
        reference, residual = jnp.split(inputs, 2, axis=-1)
        which = jnp.argmin(jnp.abs(own - reference[:1]).sum(-1))
        other = jnp.broadcast_to(jnp.asarray(shown)[which], residual.shape)
        return complete_model(params, jnp.concatenate([other, residual], -1))

    encoded = aj.encode_references(SPLIT, PARAMS, own, shown=shown)
    assert_close(function(SPLIT, PARAMS, X, encoded), function(exchanged, PARAMS, X, own))
    assert_close(aj.encode_references(SPLIT, PARAMS, own, shown=own), aj.encode_references(SPLIT, PARAMS, own))


def test_split_model_in_half_precision_is_about_as_accurate():
    x, references = normal(0, B, 8, 8, 2), normal(1, 6, 8, 8, 2)
    variables = models.create("resnet18", C, width=8).init(jax.random.key(0), np.tile(x, 2))

    def logits_of(dtype, split):
        apply = models.create("resnet18", C, width=8, dtype=dtype).apply
        network = aj.SplitModel(*(partial(apply, method=name) for name in ("first_layer", "rest"))) if split else apply
        return classify(network, variables, x, references).logits

    expected = logits_of("float32", split=False)
    error = {split: np.abs(logits_of("bfloat16", split) - expected).mean() for split in (False, True)}
    assert 0 < error[True] < 2 * error[False]


def test_split_model_evaluates_first_layer_once_per_row():
    seen = []

    def first_layer(params, inputs):
        seen.append(len(inputs))
        return SPLIT.first_layer(params, inputs)

    aj.predict(aj.SplitModel(first_layer, SPLIT.rest), PARAMS, X, REFERENCES, chunk_size=5)
    assert sorted(seen) == [1, B, MAX_REFERENCES]  # one row for the bias
    seen.clear()
    encoded = aj.encode_references(SPLIT, PARAMS, REFERENCES)
    aj.predict(aj.SplitModel(first_layer, SPLIT.rest), PARAMS, X, encoded)
    assert seen == [B]


def test_split_model_under_shard_map():
    def evaluate(params, x, encoded):
        return aj.classify(SPLIT, params, x, encoded, chunk_size=5)

    encoded = aj.encode_references(SPLIT, PARAMS, REFERENCES)
    specs = PartitionSpec(), PartitionSpec("data"), PartitionSpec()
    mapped = jax.shard_map(evaluate, mesh=mesh_lib.mesh(2), in_specs=specs, out_specs=PartitionSpec("data"))
    assert_close(jax.jit(mapped)(PARAMS, X, encoded), classify(complete_model, PARAMS, X, REFERENCES))


def test_split_model_memory_is_independent_of_references():
    def temporary_bytes(num):
        shapes = jax.ShapeDtypeStruct((64, H), jnp.float32), jax.ShapeDtypeStruct((num, 8), jnp.float32)
        compiled = predict.lower(SPLIT, PARAMS, shapes[0], aj.inference.EncodedReferences(shapes[1]), chunk_size=4)
        return compiled.compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(256) < 1.1 * temporary_bytes(16)
