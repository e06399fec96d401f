"""Invalid arguments of metrics: one line that names the argument, raised before anything is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from invalid_arguments import (
    CONFIDENCE,
    CORRECT,
    NAN,
    RAGGED,
    X,
    assert_raises_before_compilation,
    each_of,
    kind,
    value,
)

from anchor_jax import metrics

pytestmark = pytest.mark.invalid_arguments

PROBS = np.float32([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6], [0.9, 0.05, 0.05]])
LABELS = np.array([0, 1, 2, 1])
SCORES = metrics.per_example_scores(PROBS, LABELS)


@pytest.mark.parametrize(
    ("probs", "labels", "error", "message"),
    [
        (PROBS[0], LABELS, ValueError, r"probs must have shape \[B, C\], B and C at least 1; got \(3,\)"),
        (
            PROBS[:0],
            LABELS[:0],
            ValueError,
            r"probs must have shape \[B, C\], B and C at least 1; got \(0, 3\)",
        ),
        (PROBS > 0.5, LABELS, TypeError, "probs must have a floating dtype; got bool"),
        (PROBS, LABELS[:3], ValueError, r"labels must have shape \(4,\), one per row of probs; got \(3,\)"),
        (PROBS, np.eye(3, dtype=int)[LABELS], ValueError, r"labels must have shape \(4,\).* got \(4, 3\)"),
        (PROBS, LABELS.astype(np.float32), TypeError, "labels must be integers; got float32"),
        (PROBS * np.nan, LABELS, ValueError, "probs must not contain NaN; got 12 NaN in 12 values"),
        (5 - 10 * PROBS, LABELS, ValueError, r"probs must be in \[0, 1\]; got values from -"),
        (PROBS, np.array([0, 1, 2, 3]), ValueError, r"labels must be in \[0, 2\]; got values from 0 to 3"),
        (PROBS, np.array([0, 1, 2, -1]), ValueError, r"labels must be in \[0, 2\]; got values from -1 to 2"),
    ],
)
@pytest.mark.parametrize(
    "metric", [metrics.nll, metrics.brier, metrics.reliability, metrics.per_example_scores, metrics.summary]
)
def test_metrics_check_predictions(metric, probs, labels, error, message):
    with pytest.raises(error, match=message):
        metric(probs, labels)


def test_accuracies_name_their_own_argument():
    with pytest.raises(ValueError, match="probs_or_logits must not contain NaN"):
        metrics.accuracy(PROBS * np.nan, LABELS)
    with pytest.raises(ValueError, match=r"^scores must not contain NaN"):
        metrics.top_k_accuracy(PROBS * np.nan, LABELS, 1)


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (0, ValueError, "k must be at least 1; got 0"),
        (4, ValueError, "k must be at most 3, the number of classes; got 4"),
        (1.0, TypeError, "k must be an integer, static under jit; got 1.0"),
    ],
)
def test_top_k_accuracy_checks_k(k, error, message):
    with pytest.raises(error, match=message):
        metrics.top_k_accuracy(PROBS, LABELS, k)


def test_summary_checks_shapes_under_jit():
    with pytest.raises(ValueError, match=r"labels must have shape \(4,\)"):
        jax.jit(metrics.summary)(PROBS, LABELS[:3])


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_nll_checks_constants_under_jit(kind):
    labels, wrong = kind(LABELS), kind(LABELS + 3)
    of_probs = jax.jit(lambda probs: metrics.nll(probs, labels))
    np.testing.assert_allclose(of_probs(PROBS), metrics.nll(PROBS, LABELS), rtol=1e-6)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 2\]; got values from 3"):
        jax.jit(lambda probs: metrics.nll(probs, wrong))(PROBS)


def test_accuracy_rejects_labels_beyond_32_bits():
    with pytest.raises(ValueError, match=r"labels must be in \[0, 2\]; got values from"):
        metrics.accuracy(PROBS, LABELS.astype(np.int64) + 2**32)


@pytest.mark.parametrize("function", [metrics.reliability, metrics.summary])
def test_metrics_check_num_bins(function):
    with pytest.raises(ValueError, match="num_bins must be at least 1; got 0"):
        function(PROBS, LABELS, num_bins=0)
    with pytest.raises(TypeError, match=r"num_bins must be an integer, static under jit; got 15\.0"):
        function(PROBS, LABELS, num_bins=15.0)
    with pytest.raises(TypeError, match="num_bins must be an integer, static under jit"):
        jax.jit(function)(PROBS, LABELS, num_bins=15)


@pytest.mark.parametrize(
    ("column", "values", "error", "message"),
    [
        ("confidence", PROBS, ValueError, r"confidence must have shape \[B\], B at least 1; got \(4, 3\)"),
        ("confidence", 2 + PROBS[:, 0], ValueError, r"confidence must be in \[0, 1\]; got values from 2"),
        ("correct", LABELS[:3], ValueError, r"correct must have the shape of confidence, \(4,\); got \(3,\)"),
        ("in_top5", np.ones(3, bool), ValueError, r"in_top5 must have the shape of confidence, \(4,\); got \(3,\)"),
        ("in_top5", np.full(4, 2), ValueError, "in_top5 must be bool or contain only 0 and 1"),
        ("nll", PROBS[:, 0] * np.nan, ValueError, "nll must not contain NaN; got 4 NaN in 4 values"),
        ("nll", PROBS[:, 0] - 2, ValueError, r"nll must be in \[0, inf\]; got values from -"),
        ("brier", PROBS[:1, 0], ValueError, r"brier must have the shape of confidence, \(4,\); got \(1,\)"),
        ("brier", LABELS, TypeError, "brier must have a floating dtype; got int"),
    ],
)
def test_summarize_checks_columns(column, values, error, message):
    with pytest.raises(error, match=message):
        metrics.summarize(SCORES._replace(**{column: values}))


def test_summarize_finds_nan_of_jitted_scores():
    scores = jax.jit(metrics.per_example_scores)(np.where(np.eye(4, 3, dtype=bool), np.float32(np.nan), PROBS), LABELS)
    with pytest.raises(ValueError, match="confidence must not contain NaN; got 3 NaN in 4 values"):
        metrics.summarize(scores)


LONG_DOUBLE = kind(
    lambda: metrics.rmse(X, X.astype(np.longdouble)),
    r"targets must have at most 64 bits per number; got float128; use astype\(float64\)",
)
CLASSIFICATION = [
    kind(lambda: metrics.accuracy("probs", LABELS), "probs_or_logits must be an array of real numbers; got <U5"),
    kind(lambda: metrics.accuracy(None, LABELS), "probs_or_logits must be an array of real numbers; got object"),
    kind(lambda: metrics.nll(RAGGED, [0, 1]), "probs must be an array of numbers; got list"),
    kind(lambda: metrics.nll(PROBS + 0j, LABELS), "probs must be an array of real numbers; got complex64"),
    kind(lambda: metrics.brier(PROBS, None), "labels must be an array of real numbers; got object"),
    kind(lambda: metrics.brier(PROBS, LABELS.astype(object)), "labels must be an array of real numbers; got object"),
    kind(lambda: metrics.summary(PROBS, ["a", "b"]), "labels must be an array of real numbers; got <U1"),
    kind(lambda: metrics.nll(np.ma.array(PROBS), LABELS), "probs must be a plain array; got MaskedArray"),
    *([LONG_DOUBLE] if np.finfo(np.longdouble).bits > 64 else []),  # some platforms have none
    kind(
        lambda: jax.jit(lambda x: metrics.rmse(list(x), X[:, 0]))(X[:, 0]),
        "means must be an array of numbers; got list",
    ),
    kind(
        lambda: metrics.nll(PROBS.astype(">f4"), LABELS),
        r"probs must be in the byte order of this machine; got >f4; use astype\(float32\)",
    ),
    kind(lambda: metrics.top_k_accuracy(PROBS, LABELS, True), "k must be an integer, static under jit; got True"),
    kind(lambda: metrics.reliability(PROBS, LABELS, "15"), "num_bins must be an integer, .* got '15'"),
    kind(lambda: metrics.smooth_ece(None, CORRECT), "confidence must be an array of real numbers; got object"),
    kind(lambda: metrics.aurc(CONFIDENCE, "right"), "correct must be an array of real numbers; got <U5"),
    kind(lambda: metrics.risk_coverage(RAGGED, CORRECT), "confidence must be an array of numbers; got list"),
    kind(
        lambda: metrics.calibration_error((1, 2, 3)),
        "bins must have type ReliabilityBins, as returned by reliability_bins; got tuple",
    ),
    kind(
        lambda: metrics.summarize(PROBS),
        "scores must have type PerExampleScores, as returned by metrics.per_example_scores; got float32 of",
    ),
]

REGRESSION = [
    kind(lambda: metrics.rmse(LABELS, LABELS), "means must have a floating dtype; got int64"),
    value(lambda: metrics.rmse(X, X[0]), r"targets must have the shape of means, \(4, 5\); got \(5,\)"),
    value(lambda: metrics.rmse(X[:0], X[:0]), r"means must have shape \[B, ...\], B at least 1; got \(0, 5\)"),
    value(lambda: metrics.rmse(X * NAN, X), "means must not contain NaN"),
    value(lambda: metrics.gaussian_nll(X, 0 * X, X), "stds must be above 0; got 0"),
    value(lambda: metrics.gaussian_nll(X, np.full(X.shape, 1e-40), X), "stds must be at least 1.2e-38, .*; got 1e-40"),
    value(lambda: metrics.gaussian_nll(X, -X, X), r"stds must be in \[0, inf\]; got values from -1"),
    value(lambda: metrics.gaussian_nll(X, X[:, :1], X), r"stds must have the shape of means, \(4, 5\); got \(4, 1\)"),
    value(lambda: metrics.interval_coverage(X, X, X, X[0] + 1), r"levels must be in \[0, 1\]; got values from 2"),
    value(
        lambda: metrics.interval_coverage(X, X, X, np.float32(0.5)), r"levels must have shape \[L\], L at least 1; got"
    ),
    value(lambda: metrics.coverage_error(X, X, X, 0), "num_levels must be at least 1; got 0"),
]


@each_of([*CLASSIFICATION, *REGRESSION])
def test_metrics_raise_before_compilation(invalid, caplog):
    assert_raises_before_compilation(invalid, caplog)
