"""Invalid arguments of inference and uncertainty: one line that names the argument, raised before any compilation."""

import numpy as np
import pytest
from invalid_arguments import (
    BANK,
    CONFIDENCE,
    FIRST,
    IMAGES,
    LABELS,
    NAN,
    PROBS,
    RAGGED,
    C,
    H,
    X,
    assert_raises,
    assert_raises_before_compilation,
    each_of,
    kind,
    network,
    value,
)

import anchor_jax as aj
from anchor_jax.contrib import pager
from anchor_jax.core import uncertainty

pytestmark = pytest.mark.invalid_arguments

SPLIT = aj.SplitModel(lambda params, inputs: inputs[:, :H], lambda params, features: features[:, :C])


def inference_calls(function):
    """Return invalid calls of `predict` or `classify`."""
    return [
        kind(lambda: function(None, None, X, BANK), "apply_fn must be a function; got None"),
        kind(
            lambda: function(network, None, X.astype(np.uint8), BANK),
            "x must have a floating dtype; got uint8; normalize",
        ),
        kind(lambda: function(network, None, [X], BANK), r"x must be a JAX or NumPy array \[B, ..., C\]; got list"),
        value(lambda: function(network, None, X[0], BANK), r"x must have shape \[B, ..., C\]; got \(5,\)"),
        value(lambda: function(network, None, X[:0], BANK), "x must not be empty"),
        kind(
            lambda: function(network, None, X, BANK.astype(np.uint8)),
            "references must have a floating dtype; got uint8; norm",
        ),
        kind(
            lambda: function(network, None, X, 10),
            r"references must be an array \[K, ...\], not their number or rows; got 10; pass bank\[:10\]",
        ),
        kind(
            lambda: function(network, None, X, LABELS), r"references must be .* rows of a bank, pass bank\[references\]"
        ),
        value(lambda: function(network, None, FIRST, BANK), "x must have its channels last"),
        value(
            lambda: function(network, None, FIRST.transpose(0, 2, 3, 1), FIRST),
            "references must have its channels last",
        ),
        kind(lambda: function(network, None, X, None), "references must be a JAX or NumPy array"),
        value(lambda: function(network, None, X, BANK[:0]), r"references must not be empty; got .*\(0, 5\)"),
        value(
            lambda: function(network, None, X, BANK[:, :4]), r"references \(6, 4\) do not match inputs \(4, 5\): all"
        ),
        value(lambda: function(network, None, X, BANK[:, :1]), r"references \(6, 1\) do not match inputs"),
        value(lambda: function(network, None, X, BANK[0]), r"references \(5,\) do not match inputs \(4, 5\)"),
        value(lambda: function(network, None, X, BANK, chunk_size=0), "chunk_size must be at least 1; got 0"),
        value(lambda: function(SPLIT, None, X, BANK, chunk_size=-3), "chunk_size must be at least 1; got -3"),
        kind(lambda: function(network, None, X, BANK, chunk_size=2.5), "chunk_size must be an integer, .* got 2.5"),
        kind(lambda: function(network, None, X, BANK, chunk_size="2"), "chunk_size must be an integer, .* got '2'"),
        kind(
            lambda: function(network, None, X, aj.EncodedReferences(BANK)),
            "apply_fn must be the SplitModel that encoded the references; got a plain",
        ),
        value(
            lambda: function(SPLIT, None, X, aj.EncodedReferences(BANK[:0])), "references.features must not be empty"
        ),
    ]


INFERENCE = [
    *inference_calls(aj.predict),
    *inference_calls(aj.classify),
    value(lambda: aj.classify(network, None, X, BANK, temper="platt"), "temper must be None or 'duq'; got 'platt'"),
    value(lambda: aj.classify(network, None, X, BANK, temper=X), "temper must be None or 'duq'; got float32 of shape"),
    kind(lambda: aj.SplitModel(None, network), "first_layer must be a function; got None"),
    kind(lambda: aj.SplitModel(network, "rest"), "rest must be a function; got 'rest'"),
    kind(lambda: aj.encode_references(network, None, BANK), "model must have type SplitModel, .* got function"),
    kind(
        lambda: aj.encode_references(SPLIT, None, BANK.astype(int)),
        "references must have a floating dtype; got int64; normal",
    ),
    value(lambda: aj.encode_references(SPLIT, None, BANK[:0]), "references must not be empty"),
    value(
        lambda: aj.encode_references(SPLIT, None, BANK, shown=BANK[:2]),
        r"shown \(2, 5\) must have the shape of the references \(6, 5\)",
    ),
    kind(lambda: aj.transductive_references(IMAGES, BANK, BANK), "x must have a floating dtype; got uint8; normalize"),
    kind(lambda: aj.transductive_references(X, list(BANK), BANK), "bank must be a JAX or NumPy array"),
    kind(lambda: aj.transductive_references(X, BANK, None), "residuals must be a JAX or NumPy array"),
    value(lambda: aj.transductive_references(X[:0], BANK, BANK), r"x must not be empty; got shape \(0, 5\)"),
    value(lambda: aj.transductive_references(X, BANK[:0], BANK), r"bank must not be empty; got shape"),
    value(lambda: aj.transductive_references(X, BANK, BANK[:0]), r"residuals must not be empty; got shape"),
    value(
        lambda: aj.transductive_references(X, BANK[:, :4], BANK),
        r"x, bank and residuals must agree in all but the first axis; got shapes \(4, 5\), \(6, 4\) and \(6, 5\)",
    ),
    value(lambda: aj.transductive_references(X, BANK, BANK[:, :1]), r"x, bank and residuals must agree .* \(6, 1\)"),
    value(lambda: aj.transductive_references(X, BANK[0], BANK), r"x, bank and residuals must agree .* \(5,\)"),
    kind(lambda: uncertainty.predictive_entropy(RAGGED), "probs must be a JAX or NumPy array"),
    kind(lambda: uncertainty.predictive_entropy(LABELS), "probs must have a floating dtype; got int64"),
    value(lambda: uncertainty.predictive_entropy(np.float32(1)), r"probs must have shape \[..., C\]; got \(\)"),
    value(lambda: uncertainty.predictive_entropy(PROBS * 5), r"probs must be in \[0, 1\]; got values from 1.6"),
    value(lambda: uncertainty.predictive_entropy(PROBS * NAN), "probs must not contain NaN; got 24 NaN in 24 values"),
    value(lambda: uncertainty.expected_entropy(PROBS[0, 0]), r"probs must have shape \[K, ..., C\]; got \(3,\)"),
    value(lambda: uncertainty.mutual_information(PROBS[0, 0]), r"probs must have shape \[K, ..., C\]; got \(3,\)"),
    value(lambda: uncertainty.mutual_information(PROBS[:0]), r"probs must not be empty; got shape \(0, 4, 3\)"),
    value(lambda: uncertainty.probability_spread(PROBS[:1]), r"probs must have at least 2 references, .*\(1, 4, 3\)"),
    value(lambda: uncertainty.probability_spread(PROBS[:0]), "probs must not be empty"),
    kind(lambda: uncertainty.energy("logits"), "logits must be a JAX or NumPy array"),
    value(lambda: uncertainty.energy(np.float32(1)), r"logits must have shape \[..., C\]; got \(\)"),
    value(
        lambda: uncertainty.information_gain(CONFIDENCE, CONFIDENCE[:1]),
        r"predictive and expected must have the same shape; got \(4,\) and \(1,\)",
    ),
]

INVALID_OUTPUTS = [
    kind(
        lambda: aj.predict(lambda params, inputs: (inputs, {}), None, X, BANK),
        r"output of apply_fn must be a JAX or NumPy array \[B, ...\]; got tuple",
    ),
    value(
        lambda: aj.predict(lambda params, inputs: inputs.sum(), None, X, BANK),
        r"output of apply_fn must have shape \[B, ...\]; got \(\)",
    ),
    value(
        lambda: aj.classify(lambda params, inputs: inputs[:2], None, X, BANK),
        r"output of apply_fn must have one row for each of 4 inputs; got shape \(2, 10\)",
    ),
    value(
        lambda: aj.classify(lambda params, inputs: inputs[:, 0], None, X, BANK),
        r"output of apply_fn must be logits \[B, C\]; got shape \(4,\)",
    ),
    kind(
        lambda: aj.encode_references(aj.SplitModel(lambda params, inputs: [inputs], network), None, BANK),
        r"output of first_layer must be a JAX or NumPy array \[B, ...\]; got list",
    ),
    value(
        lambda: pager.nonconformity(network, None, X, X, X[:, 0]),
        r"output of apply_fn must have shape \(4,\); got \(4, 3\)",
    ),
    value(
        lambda: pager.refined_nonconformity(network, None, X, X, BANK[:4, :3], regularizer=lambda moved, x: moved),
        r"output of regularizer must have shape \(4,\); got \(4, 5\)",
    ),
    value(
        lambda: pager.cyclic_reconstruction(network, None, X, X),
        r"output of apply_fn must have the shape of its input, \(4, 5\); got \(4, 3\)",
    ),
    value(
        lambda: aj.predict(SPLIT, None, X, aj.EncodedReferences(BANK[:, :4])),
        r"encoded references \(6, 4\) do not match the features of the inputs \(4, 5\)",
    ),
]


@each_of(INFERENCE)
def test_inference_raises_before_compilation(invalid, caplog):
    assert_raises_before_compilation(invalid, caplog)


@each_of(INVALID_OUTPUTS)
def test_inference_checks_outputs_of_the_network(invalid):
    assert_raises(invalid)
