"""Conformal sets and intervals against MAPIE, crepes and torch-uncertainty, and their coverage over many splits."""

from functools import partial

import crepes
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores import APSConformityScore
from sklearn.base import BaseEstimator, ClassifierMixin

import anchor_jax as aj
from anchor_jax import UserError, conformal, metrics

NUM, CLASSES, SPLITS = 500, 6, 100


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its probabilities."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x):
        return x

    def predict(self, x):
        return x.argmax(axis=1)


def draw(key, num=NUM):
    """Return probabilities, labels that are not drawn from them, and a difficulty that says where they are wrong."""
    keys = jax.random.split(key, 3)
    logits = 2 * jax.random.normal(keys[0], (num, CLASSES))
    difficulty = jax.random.uniform(keys[1], (num,), minval=0.1)
    labels = jnp.argmax(logits + 2 * difficulty[:, None] * jax.random.gumbel(keys[2], logits.shape), axis=1)
    return jax.nn.softmax(3 * logits), labels, difficulty


def on_host(seed):
    return [np.asarray(part) for part in draw(jax.random.key(seed))]


def within_binomial_error(coverages, coverage):
    """Assert that the coverage of each split, and their mean, is as far from the expected one as chance allows."""
    expected = conformal.rank(NUM, coverage) / (NUM + 1)
    deviation = np.sqrt(expected * (1 - expected) * 2 / NUM)  # of the calibration and of the test examples
    assert coverages.shape == (SPLITS,)
    assert np.abs(coverages - expected).max() < 4.5 * deviation
    assert abs(coverages.mean() - expected) < 3.5 * deviation / np.sqrt(SPLITS)


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
def test_sets_have_the_target_coverage_over_100_splits(method):
    @jax.jit
    @jax.vmap
    def coverages_of(key):
        keys = jax.random.split(key, 4)
        (probs, labels, hard), (new_probs, new_labels, new_hard) = draw(keys[0]), draw(keys[1])
        random = (None, None) if method == "lac" else keys[2:]
        plain = conformal.fit_sets(probs, labels, 0.9, method=method, key=random[0])
        normalized = conformal.fit_sets(probs, labels, 0.9, method=method, key=random[0], difficulty=hard)
        both = plain(new_probs, key=random[1]), normalized(new_probs, new_hard, key=random[1])
        return [metrics.set_coverage(sets, new_labels) for sets in both]

    for coverages in coverages_of(jax.random.split(jax.random.key(0), SPLITS)):
        within_binomial_error(np.asarray(coverages), 0.9)


def test_intervals_have_the_target_coverage_over_100_splits():
    def regression(key):
        keys = jax.random.split(key, 3)
        means, std = jax.random.normal(keys[0], (NUM,)), jax.random.uniform(keys[1], (NUM,), minval=0.1)
        return means, std, means + std * jax.random.normal(keys[2], (NUM,)) ** 3

    @jax.jit
    @jax.vmap
    def coverages_of(key):
        (means, std, targets), (new_means, new_std, new_targets) = map(regression, jax.random.split(key))
        plain = conformal.fit_intervals(means, targets, coverage=0.9)
        normalized = conformal.fit_intervals(means, targets, std, coverage=0.9)
        both = plain(new_means), normalized(new_means, new_std)
        return [jnp.mean((low <= new_targets) & (new_targets <= high)) for low, high in both]

    for coverages in coverages_of(jax.random.split(jax.random.key(1), SPLITS)):
        within_binomial_error(np.asarray(coverages), 0.9)


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.95])
def test_lac_sets_equal_mapie_and_crepes(coverage):
    (probs, labels, _), (new_probs, _, _) = on_host(0), on_host(1)
    found = conformal.fit_sets(probs, labels, coverage)(new_probs)
    theirs = SplitConformalClassifier(Given().fit(probs, labels), confidence_level=coverage, conformity_score="lac")
    _, sets = theirs.conformalize(probs, labels).predict_set(new_probs)
    np.testing.assert_array_equal(found, sets[:, :, 0])
    scores = np.asarray(conformal.class_scores(probs))[np.arange(NUM), labels]
    fitted = crepes.ConformalClassifier().fit(scores)
    sets = fitted.predict_set(np.asarray(conformal.class_scores(new_probs)), confidence=coverage, smoothing=False)
    np.testing.assert_array_equal(found, sets)


def test_aps_and_raps_scores_equal_mapie_and_torch_uncertainty():
    probs, labels, _ = on_host(2)
    sums, ranks = APSConformityScore.get_true_label_cumsum_proba(labels, probs, np.arange(CLASSES))
    rows = np.arange(NUM)
    np.testing.assert_allclose(conformal.class_scores(probs, method="aps")[rows, labels], sums[:, 0], rtol=1e-5)
    raps = conformal.class_scores(probs, method="raps", penalty=0.2, free_classes=2)[rows, labels]
    np.testing.assert_allclose(raps, sums[:, 0] + 0.2 * np.maximum(0, ranks - 2), rtol=1e-5)
    # ConformalClsAPS and ConformalClsRAPS(penalty=0.1, regularization_rank=1) of torch-uncertainty 0.13.0, not random
    probs = jax.nn.softmax(jnp.array([[2.0, 1.0, 0.5, -1.0], [0.1, 0.0, 0.3, 0.2]]))
    expected = np.array([[0.60946, 0.83367, 0.96966, 1.0], [0.78616, 1.0, 0.28865, 0.54983]])
    np.testing.assert_allclose(conformal.class_scores(probs, method="aps"), expected, atol=1e-5)
    expected = np.array([[0.60946, 0.93367, 1.16966, 1.3], [0.98616, 1.3, 0.28865, 0.64983]])
    np.testing.assert_allclose(
        conformal.class_scores(probs, method="raps", penalty=0.1, free_classes=1), expected, atol=1e-5
    )


def test_random_scores_lie_below_by_a_part_of_the_class():
    probs, _, _ = on_host(3)
    less = conformal.class_scores(probs, method="aps") - conformal.class_scores(
        probs, method="aps", key=jax.random.key(0)
    )
    part = (less / probs).max(axis=1, where=probs > 0.1, initial=0)
    assert 0 <= part.min() < 0.05
    assert 0.95 < part.max() < 1.001
    np.testing.assert_allclose(less, part[:, None] * probs, atol=1e-5)  # one draw per example


@pytest.mark.parametrize("coverage", [0.6, 0.9])
def test_intervals_equal_crepes(coverage):
    rng = np.random.default_rng(0)
    means, new_means = rng.normal(size=(2, NUM)) + 1.75e9  # far from zero, as times in seconds are
    std, new_std = rng.uniform(0.1, 1, (2, NUM))
    targets = means + std * rng.normal(size=NUM)
    for difficulty, new_difficulty in ((None, None), (std, new_std)):
        found = conformal.fit_intervals(means, targets, difficulty, coverage=coverage)(new_means, new_difficulty)
        theirs = crepes.ConformalRegressor().fit(targets - means, difficulty)
        expected = theirs.predict_int(new_means, new_difficulty, confidence=coverage)
        np.testing.assert_allclose(np.stack(found, 1) - new_means[:, None], expected - new_means[:, None], rtol=1e-5)
        assert found.low.dtype == np.float64


def test_intervals_have_one_width_for_each_output():
    rng = np.random.default_rng(0)
    answer = aj.regression.Regression(rng.normal(size=(30, 2)), epistemic=rng.uniform(1, 2, (30, 2)))
    targets = answer.mean + answer.std * rng.normal(size=(30, 2)) * [0.1, 3]
    fitted = conformal.fit_intervals(answer.mean, targets, answer.epistemic, coverage=0.8)
    low, high = fitted(answer.mean, answer.epistemic)
    np.testing.assert_allclose((high - low) / answer.std / 2, np.tile(fitted.threshold, (30, 1)), rtol=1e-6)
    slack = 1e-5
    np.testing.assert_array_equal(((low - slack <= targets) & (targets <= high + slack)).sum(axis=0), [25, 25])


@pytest.mark.parametrize(
    ("num", "coverage", "rank"),
    [(9, 0.7, 7), (9, 0.9, 9), (10, 0.9, 10), (99, 0.99, 99), (1000, 0.9, 901), (1, 0.5, 1), (5, 0.01, 1)],
)
def test_quantile_is_the_corrected_rank(num, coverage, rank):
    assert conformal.rank(num, coverage) == rank
    scores = np.random.default_rng(0).permutation(num).astype(np.float32)
    assert conformal.quantile(scores, coverage) == rank - 1
    np.testing.assert_array_equal(conformal.quantile(scores, (coverage, coverage)), [rank - 1] * 2)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_quantile_takes_coverages_of_narrow_dtypes(dtype, as_array):
    coverages = as_array(jnp.array([0.8, 0.6, 0.1], dtype))
    assert [conformal.rank(9, coverage) for coverage in coverages] == [8, 6, 1]
    np.testing.assert_array_equal(conformal.quantile(np.arange(9.0), coverages), [7, 5, 0])


PROBS, LABELS = np.full((20, 2), 0.5, np.float32), np.arange(20) % 2


@pytest.mark.invalid_arguments
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(conformal.fit_sets, PROBS[:8], LABELS[:8]), "coverage of 0.9 needs at least 9 calibration .*; got 8"),
        (partial(conformal.fit_sets, PROBS, LABELS, 1), "coverage must be above 0 and below 1; got 1"),
        (partial(conformal.fit_sets, PROBS, LABELS, 90), r"coverage must be in \[0, 1\]; got 90"),
        (partial(conformal.fit_sets, PROBS * 5, LABELS), r"probs must be in \[0, 1\]; got values from 2.5 to 2.5"),
        (partial(conformal.fit_sets, PROBS, LABELS + 1), r"labels must be in \[0, 1\]"),
        (partial(conformal.fit_sets, PROBS, LABELS, method="thr"), "method must be 'lac' or 'aps' or 'raps'"),
        (partial(conformal.fit_sets, PROBS, LABELS, key=jax.random.key(0)), "key must be None for method 'lac'"),
        (
            partial(conformal.class_scores, PROBS, difficulty=LABELS[:4].astype(float)),
            r"difficulty must have shape \(20,\) or \(20, 2\), as the predictions have; got \(4,\)",
        ),
        (
            partial(conformal.class_scores, PROBS, difficulty=np.zeros(20)),
            r"difficulty \+ offset must be above 0; got 0; give an offset",
        ),
        (
            partial(conformal.fit_sets(PROBS, LABELS), PROBS, np.ones(20)),
            "difficulty must be None, as fit_sets got none; got float64",
        ),
        (
            partial(conformal.fit_sets(PROBS, LABELS, difficulty=np.ones(20)), PROBS),
            "difficulty must be given, as it was to fit_sets; got None",
        ),
        (
            partial(conformal.fit_sets(PROBS, LABELS, method="aps", key=jax.random.key(0)), PROBS),
            "key must be given, as it was to fit_sets; got None",
        ),
        (
            partial(conformal.fit_intervals, PROBS[:, 0], PROBS),
            r"targets must have the shape of means, \(20,\); got \(20, 2\)",
        ),
        (
            partial(conformal.fit_intervals, PROBS[:, 0], PROBS[:, 1], -PROBS[:, 0]),
            r"difficulty must be in \[0, inf\]; got values from -0.5",
        ),
        (
            partial(conformal.class_scores, PROBS, difficulty=np.full(20, -5e-4), offset=1e-3),
            r"difficulty must be in \[0, inf\]; got values from -0.0005",
        ),
        (
            partial(conformal.fit_intervals(PROBS, PROBS, PROBS), PROBS),
            "difficulty must be given, as it was to fit_intervals; got None",
        ),
    ],
)
def test_conformal_rejects_invalid_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_infinite_penalty_allows_free_classes_only():
    probs = np.tile(np.float32([0.5, 0.375, 0.125]), (9, 1))
    scores = conformal.class_scores(probs, method="raps", penalty=np.inf, free_classes=2)
    np.testing.assert_allclose(scores[0], [0.5, 0.875, np.inf])


def test_conformal_sets_are_exported_for_any_batch_size():
    sets = conformal.ConformalSets(np.float32(1.5), "raps", normalized=True)
    probs, _, difficulty = draw(jax.random.key(0), 7)
    (num,) = jax.export.symbolic_shape("num")
    shapes = [jax.ShapeDtypeStruct((num, *array.shape[1:]), array.dtype) for array in (probs, difficulty)]
    program = jax.export.export(jax.jit(sets))(*shapes)
    np.testing.assert_array_equal(program.call(probs, difficulty), sets(probs, difficulty))
