"""Probe: a linear classifier on what the last layer sees, in and out of the distribution it is fitted to."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from anchor_jax import metrics
from anchor_jax.core.errors import UserError
from anchor_jax.data import EvalDataset
from anchor_jax.evaluation.context import EvalContext, Finding
from anchor_jax.evaluation.predictions import METRICS, with_progress
from anchor_jax.runs.predictor import tree_concatenate

_MAX_ITERATIONS = 1_000
_COMPARED = 32  # images


def check(subject: EvalContext) -> None:
    """Refuse sets that are missing, or that differ in their classes."""
    if not subject.options.probe:
        raise UserError("suite 'probe' needs a set to be fitted to; give it as --probe, such as --probe=tfds:cifar100")
    fitted, tested = _sets(subject)
    if len(fitted.label_names) < 2:
        raise UserError(f"'{fitted.name}' has {len(fitted.label_names)} class; a probe needs at least 2")
    if np.array_equal(fitted.first(_COMPARED)[0], tested[0].first(_COMPARED)[0]):
        raise UserError(
            f"a probe would be fitted to and tested on the same images of '{subject.options.probe[0]}'; give a set "
            "that has the splits 'train' and 'test', and name none of them"
        )


def measure(subject: EvalContext, num_references: int) -> Finding:
    """Fit multinomial logistic regression to the split "train" of the first set; test on its "test" and on the others.

    Features are the mean over K references, standardised by those of the fitted set.
    """
    fitted, tested = _sets(subject)
    features, labels = _features(subject, fitted, num_references)
    scaler, linear = StandardScaler(), LogisticRegression(max_iter=_MAX_ITERATIONS)
    missing = len(fitted.label_names) - len(np.unique(labels))
    if missing:
        raise UserError(f"'{fitted.name}' has no examples of {missing} of its classes to fit to; give a set with all")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told among the facts
        linear.fit(scaler.fit_transform(features), labels)
    iterations = int(np.max(linear.n_iter_))

    found = {}
    for stream in tested:
        features, labels = _features(subject, stream, num_references)
        probs = linear.predict_proba(scaler.transform(features)).astype(np.float32)
        of_set = metrics.summary(probs, labels, subject.num_bins)
        found |= {f"{stream.name}/{name}": float(of_set[name]) for name in METRICS}
    members = [stream.name for stream in tested]
    facts = {
        "fitted_to": fitted.name,
        "in_distribution": members[0],
        "members": members,
        "iterations": iterations,
        "converged": iterations < _MAX_ITERATIONS,
        "solver": "scikit-learn LogisticRegression (lbfgs, C=1) on standardised features",
    }
    return Finding(found | {"accuracy": found[f"{members[0]}/accuracy"]}, {}, facts)


def _sets(subject: EvalContext) -> tuple[EvalDataset, list[EvalDataset]]:
    """The set to be fitted to, and those to be tested on, its own first."""
    fitted = subject.open(subject.options.probe[0], default_split="train")
    return fitted, subject.open_all(subject.options.probe, label_names=fitted.label_names)


def _features(subject: EvalContext, stream: EvalDataset, num_references: int) -> tuple[np.ndarray, np.ndarray]:
    batches = with_progress(stream, subject.predictor, f"features of {stream.name}, {num_references} references")
    features, labels = tree_concatenate(subject.predictor.stream_features(batches, num_references))
    if not np.isfinite(features).all():
        raise UserError(f"features of '{stream.name}' are no finite numbers: the checkpoint has diverged")
    return features, labels
