"""AUROC, AUPR and FPR at a TPR against scikit-learn and torch-uncertainty; sizes and coverage of sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from anchor_jax import UserError, metrics
from anchor_jax.core.errors import UserTypeError


def drawn(kind, num=997):
    """Return scores and flags; positive examples score higher."""
    rng = np.random.default_rng(0)
    positive = rng.random(num) < 0.3
    scores = rng.normal(size=num) + positive
    return {
        "float32": scores.astype(np.float32),
        "ties": scores.round(),
        "integers": (3 * scores).astype(int),
        "close float64": 1e6 + 1e-6 * scores,  # equal in float32
        "tiny": (1e-41 * scores).astype(np.float32),  # subnormal numbers, which devices treat as 0
        "zeros": np.where(scores > 0, 0.0, -0.0).astype(np.float32),
        "equal": np.zeros(num),
        "infinite": np.where(rng.random(num) < 0.1, np.inf * np.sign(scores), scores),
    }[kind], positive


def sklearn_fpr(scores, positive, tpr):
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    return false[true >= tpr].min()


@pytest.mark.parametrize("kind", ["float32", "ties", "integers", "close float64", "tiny", "zeros", "equal", "infinite"])
def test_detection_metrics_equal_sklearn(kind):
    scores, positive = drawn(kind)
    finite = np.clip(scores, -1e9, 1e9) if kind == "infinite" else scores  # scikit-learn rejects infinite ones
    assert metrics.auroc(jnp.asarray(scores), positive) == metrics.auroc(scores, positive) or kind == "close float64"
    assert metrics.auroc(scores, positive) == pytest.approx(roc_auc_score(positive, finite), abs=1e-6)
    assert metrics.aupr(scores, positive) == pytest.approx(average_precision_score(positive, finite), abs=1e-6)
    for tpr in (0.5, 0.8, 0.95, 1.0):
        found = metrics.fpr_at_tpr(scores, positive.astype(int), tpr)
        assert found == pytest.approx(sklearn_fpr(finite, positive, tpr), abs=1e-7)
    assert metrics.fpr_at_tpr(scores, positive, 0) == 0


def test_fpr_at_tpr_equals_torch_uncertainty():
    """With the values of FPRx(recall_level, pos_label=1) of torch-uncertainty 0.13.0 for these scores, many tied."""
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 30, 200) / 10
    positive = rng.random(200) < 1 / (1 + np.exp(1.5 - scores))
    assert metrics.fpr_at_tpr(scores, positive) == pytest.approx(0.7319587628865979)
    assert metrics.fpr_at_tpr(scores, positive, tpr=0.8) == pytest.approx(0.5670103092783505)


def test_detection_metrics_under_jit_are_nan_for_one_kind():
    scores, positive = drawn("float32", 20)
    for function in (metrics.auroc, metrics.aupr, metrics.fpr_at_tpr):
        np.testing.assert_allclose(jax.jit(function)(scores, positive), function(scores, positive), rtol=1e-6)
        assert np.isnan(jax.jit(function)(scores, np.zeros(20, bool)))


@pytest.mark.invalid_arguments
@pytest.mark.parametrize("function", [metrics.auroc, metrics.aupr, metrics.fpr_at_tpr])
def test_detection_metrics_reject_invalid_arguments(function):
    scores, positive = np.float32([0.1, 0.9, 0.4]), np.array([0, 1, 1])
    for arguments, message in [
        ((positive, scores), "positive must be bool or contain only 0 and 1"),  # exchanged
        ((scores, np.ones(3)), "positive must contain both 0 and 1; got 3 of 1 in 3 values"),
        ((scores, positive[:2]), r"positive must have the shape of scores, \(3,\); got \(2,\)"),
        ((scores[None], positive[None]), r"scores must have shape \[B\], B at least 1; got \(1, 3\)"),
        ((np.float32([0, np.nan, 1]), positive), "scores must not contain NaN"),
    ]:
        with pytest.raises(UserError, match=message):
            function(*arguments)
    with pytest.raises(UserTypeError, match="scores must be an array of real numbers"):
        function(np.array(["a", "b", "c"]), positive)
    with pytest.raises(UserError, match=r"tpr must be in \[0, 1\]; got 95"):
        metrics.fpr_at_tpr(scores, positive, 95)


def test_set_coverage_and_size_of_known_sets():
    sets, labels = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 1, 1]]), np.array([0, 1, 0, 2])
    assert metrics.set_coverage(sets, labels) == 0.5
    assert metrics.set_size(sets.astype(bool)) == 7 / 4
    with pytest.raises(UserError, match="sets must be bool or contain only 0 and 1"):
        metrics.set_size(sets / 2)
    with pytest.raises(UserError, match=r"labels must be in \[0, 2\]; got values from 1 to 3"):
        metrics.set_coverage(sets, labels + 1)


@pytest.mark.parametrize(("as_array", "dtype"), [(np.asarray, np.int32), (jnp.asarray, np.uint32)])
def test_detection_orders_large_integers(as_array, dtype):
    scores, positive = np.array([2**24 + 1, 2**24, 2**24 + 3, 0], dtype), np.array([1, 0, 1, 0])
    found = [metric(as_array(scores), positive) for metric in (metrics.auroc, metrics.aupr)]
    assert found == [1, 1]
    assert metrics.fpr_at_tpr(as_array(scores), positive, 1.0) == 0


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_auroc_keeps_the_order_of_64_bits(dtype):
    with jax.enable_x64(True):
        scores = jnp.asarray(np.array([2**33, 1, 2**40, 2**20], dtype))
        assert metrics.auroc(scores, np.array([1, 0, 1, 0])) == 1
