"""Class probabilities over K references, compared with NumPy, SciPy and the released tempering in PyTorch."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_network import (
    MAX_REFERENCES,
    PARAMS,
    REFERENCES,
    B,
    C,
    H,
    X,
    assert_close,
    classify,
    classify_logits,
    mlp,
    predict_in_loop,
)

import anchor_jax as aj

pytestmark = pytest.mark.min_versions


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_classify_equals_numpy(chunk_size):
    logits = predict_in_loop(mlp, PARAMS, X, REFERENCES)
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


@pytest.mark.parametrize(("num", "chunk_size"), [(2, None), (MAX_REFERENCES, 5)])
def test_classify_duq_matches_released_imagenet_wrapper(num, chunk_size):
    torch = pytest.importorskip("torch")
    logits = torch.tensor(predict_in_loop(mlp, PARAMS, X, REFERENCES[:num]))
    spread = logits.sigmoid().std(dim=0)  # over K outputs, unbiased
    expected = logits.mean(dim=0) / (1 + spread.mean(dim=1, keepdim=True).exp())
    classification = classify(mlp, PARAMS, X, REFERENCES[:num], chunk_size=chunk_size, temper="duq")
    plain = classify(mlp, PARAMS, X, REFERENCES[:num])
    assert_close(classification.logits, expected.numpy())
    assert_close(classification.probs, expected.softmax(dim=1).numpy())
    assert_close(classification.entropy, scipy.stats.entropy(expected.softmax(dim=1).numpy(), axis=1))
    assert_close(classification.probs_std, plain.probs_std)
    assert_close(classification.mutual_information, plain.mutual_information)


@pytest.mark.parametrize("temper", [None, "duq"])
def test_classify_of_one_reference_is_untempered(temper):
    classification = classify(mlp, PARAMS, X, REFERENCES[:1], temper=temper)
    logits = predict_in_loop(mlp, PARAMS, X, REFERENCES[:1])[0]
    probs = scipy.special.softmax(logits, axis=-1)
    assert classification.probs_std is None
    np.testing.assert_array_equal(classification.mutual_information, np.zeros(B))
    assert_close(classification.logits, logits)
    assert_close(classification.probs, probs)
    assert_close(classification.entropy, scipy.stats.entropy(probs, axis=-1))


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_classify_with_votes_counts_the_largest_agreement(chunk_size):
    votes = predict_in_loop(mlp, PARAMS, X, REFERENCES).argmax(axis=-1)
    expected = np.array([np.bincount(classes).max() for classes in votes.T]) / MAX_REFERENCES
    assert len(set(expected)) > 1
    voted = aj.inference.classify_with_votes(mlp, PARAMS, X, REFERENCES, chunk_size=chunk_size)
    assert_close(voted.agreement, expected)
    assert_close(voted.classification, classify(mlp, PARAMS, X, REFERENCES))


def test_single_vote_equals_one_reference():
    logits = predict_in_loop(mlp, PARAMS, X, REFERENCES[:1])[0].astype(np.float32)
    assert_close(aj.inference.single_vote(logits), aj.inference.classify_with_votes(mlp, PARAMS, X, REFERENCES[:1]))


def test_classify_full_disagreement_is_ln_2():
    disagreement, agreement = 1e4 * np.eye(2, dtype=np.float32), 1e4 * np.eye(2, dtype=np.float32)[[0, 0]]
    std, ln_2 = np.sqrt(0.5), np.log(2)
    for logits, expected in [
        (disagreement, ([5e3, 5e3], [0.5, 0.5], [std, std], ln_2, ln_2)),
        (agreement, ([1e4, 0.0], [1.0, 0.0], [0.0, 0.0], 0.0, 0.0)),
    ]:
        for field, value in zip(classify_logits(logits), expected, strict=True):
            np.testing.assert_allclose(field[0], value, rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(arrays(np.float32, (7, C), elements=st.floats(-1e4, 1e4, width=32)))
def test_classify_is_in_range_for_any_logits(logits):
    logits, probs, probs_std, entropy, mutual_information = classify_logits(logits)
    assert np.all(np.isfinite(logits))
    np.testing.assert_allclose(probs.sum(axis=-1), [1.0], rtol=1e-5)
    assert np.all((np.asarray(probs_std) >= 0) & (np.asarray(probs_std) <= 0.71))
    assert -1e-6 <= entropy[0] <= np.log(C) + 1e-5
    assert 0 <= mutual_information[0] <= entropy[0] + 1e-6


def test_classify_exports_with_symbolic_batch_size():
    (size,) = jax.export.symbolic_shape("size")
    exported = jax.export.export(jax.jit(lambda x: classify(mlp, PARAMS, x, REFERENCES).probs))(
        jax.ShapeDtypeStruct((size, H), jnp.float32)
    )
    assert_close(exported.call(X), classify(mlp, PARAMS, X, REFERENCES).probs)
