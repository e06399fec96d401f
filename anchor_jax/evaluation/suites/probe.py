"""Probe: a linear classifier on the features of the network, in and out of the distribution that it is fitted to."""

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from anchor_jax import metrics
from anchor_jax.core.errors import UserError
from anchor_jax.data import EvalDataset
from anchor_jax.evaluation.context import EvalContext
from anchor_jax.evaluation.options import SeedOption, option
from anchor_jax.evaluation.predictions import METRICS
from anchor_jax.evaluation.presentation import Figure, Table
from anchor_jax.evaluation.progress import with_progress
from anchor_jax.evaluation.results import Results, Score, SuiteResult, make_scores
from anchor_jax.evaluation.suite import Suite
from anchor_jax.evaluation.suites import common
from anchor_jax.runs.predictor import tree_concatenate

_MAX_ITERATIONS = 1_000
_NUM_COMPARED = 32  # images of the training and the test split


@dataclasses.dataclass(frozen=True)
class ProbeOptions(SeedOption):
    """The datasets of the linear probe, and how it is fitted."""

    probe: tuple[str, ...] = option((), "Datasets of 'probe': the first trains and tests it, the others test it.")
    probe_mask_prob: float = option(
        0.4,
        "Probability of masking the reference of an image that the probe of an anchored network is fitted to; as in "
        "the paper.",
    )


class PreparedProbe(NamedTuple):
    """The opened datasets."""

    context: EvalContext
    options: ProbeOptions
    fitted: EvalDataset
    tested: list[EvalDataset]  # the test split of the fitted dataset first


class Probe(Suite[PreparedProbe]):
    """Fit logistic regression on frozen features, and test it on several datasets."""

    name = "probe"
    title = "Linear probe"
    question = "How good are the features for another task, with a linear classifier on top?"
    reading = (
        "The network is frozen. The linear layer is fitted on one dataset and tested on each of them. That of an "
        "anchored network is trained anchored, too: each image has one random reference, which may be masked."
    )
    options = ProbeOptions

    def prepare(self, context: EvalContext) -> PreparedProbe:
        """Open the datasets.

        Raises:
          UserError: there are none, their classes differ, a class has no example, or training and test images are the
            same.
        """
        options = context.options_of(ProbeOptions)
        specs = options.probe
        if not specs:
            raise UserError("suite 'probe' needs a dataset to fit; give it as --probe, such as --probe=tfds:cifar100")
        fitted = context.open(specs[0], default_split="train")
        tested = context.open_all(specs, label_names=fitted.label_names)
        if len(fitted.label_names) < 2:
            raise UserError(f"'{fitted.name}' has {len(fitted.label_names)} class; a probe needs at least 2")
        if np.array_equal(fitted.first(_NUM_COMPARED)[0], tested[0].first(_NUM_COMPARED)[0]):
            raise UserError(
                f"the probe would be fitted and tested on the same images of '{specs[0]}'; give a dataset with the "
                "splits 'train' and 'test', without naming a split"
            )
        if missing := len(fitted.label_names) - len(np.unique(fitted.labels())):
            raise UserError(f"'{fitted.name}' has no examples of {missing} of its classes; give a dataset with all")
        return PreparedProbe(context, options, fitted, tested)

    def datasets(self, context: EvalContext, prepared: PreparedProbe) -> list[EvalDataset]:
        """Return the dataset that the probe is fitted to, and those that it is tested on."""
        return [prepared.fitted, *prepared.tested]

    def num_predictions(self, prepared: PreparedProbe, num_references: int) -> int:
        """Return the number of fitted images, each with one reference, and of tested ones, once per reference."""
        num_tested = sum(stream.num_examples for stream in prepared.tested)
        return prepared.fitted.num_examples + max(num_references, 1) * num_tested

    def measure(self, prepared: PreparedProbe, num_references: int) -> SuiteResult:
        """Fit multinomial logistic regression to the split "train" of the first dataset, and score all test sets.

        It is fitted to features with one of the saved references for each image, masked at random, and tested on means
        over K references, whose logits are the means of the logits. Features are standardized with the statistics of
        the fitted dataset.
        """
        context, options, fitted, tested = prepared
        features, labels = _fitted_features(context, options, fitted)
        scaler, linear = StandardScaler(), LogisticRegression(max_iter=_MAX_ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # reported in the facts
            linear.fit(scaler.fit_transform(features), labels)
        iterations = int(np.max(linear.n_iter_))

        scores: list[Score] = []
        for stream in tested:
            features, labels = _features(context, stream, num_references)
            probs = linear.predict_proba(scaler.transform(features)).astype(np.float32)
            summary = metrics.summary(probs, labels, context.num_bins)
            scores += make_scores({name: summary[name] for name in METRICS}, dataset=stream.name)
        in_distribution = tested[0].name
        scores.append(
            Score("accuracy", next(s.value for s in scores if (s.metric, s.dataset) == ("accuracy", in_distribution)))
        )
        facts = {
            "fitted_to": fitted.name,
            "in_distribution": in_distribution,
            "members": [stream.name for stream in tested],
            "iterations": iterations,
            "converged": iterations < _MAX_ITERATIONS,
            "solver": "scikit-learn LogisticRegression (lbfgs, C=1) on standardized features",
        }
        facts |= {"mask_prob": options.probe_mask_prob} if num_references else {}
        return SuiteResult(self.name, num_references, tuple(scores), {}, facts)

    def tables(self, results: Results) -> list[Table]:
        """Return the accuracy on all datasets, and all metrics of each."""
        result = common.newest(results)
        columns = [common.Quantity(name, "accuracy", {"dataset": name}) for name in common.members(result)]
        return [
            *common.by_references("Accuracy", results, columns, notes=_notes(result)),
            *common.by_dataset(result, common.quantities()),
        ]

    def figures(self, results: Results, clean: Results) -> list[Figure]:
        """Return the accuracy on each dataset."""
        suffixes = {common.newest(results).facts.get("in_distribution", ""): " (in distribution)"}
        caption = "One bar per number of references that the features are averaged over."
        return common.accuracy_bars(results, "Accuracy of the probe", caption, "accuracy of the linear probe", suffixes)


def _notes(result: SuiteResult) -> list[str]:
    prob = result.facts.get("mask_prob")
    if prob is None:  # of a standard network, or of an earlier version
        return []
    return [f"Fitted with one random reference per image, masked with probability {prob:g}; the label is the target."]


def _fitted_features(context: EvalContext, options: ProbeOptions, stream: EvalDataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the features that the probe is fitted to, with one of the saved references per image."""
    references = context.predictor.references
    if references is None:
        return _features(context, stream, 0)
    rng, num = np.random.default_rng(options.seed), stream.num_examples
    rows, mask = rng.integers(len(references), size=num), rng.random(num) < options.probe_mask_prob

    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        start = 0
        for images, labels in with_progress(stream, context.predictor, f"features of {stream.name}", 1):
            part = slice(start, start + len(images))
            yield images, references[rows[part]], mask[part], labels
            start += len(images)

    return _concatenated(context.predictor.stream_pair_features(batches()), stream)


def _features(context: EvalContext, stream: EvalDataset, num_references: int) -> tuple[np.ndarray, np.ndarray]:
    batches = with_progress(stream, context.predictor, f"features of {stream.name}", num_references)
    return _concatenated(context.predictor.stream_features(batches, num_references), stream)


def _concatenated(parts: Iterator[Any], stream: EvalDataset) -> tuple[np.ndarray, np.ndarray]:
    features, labels = tree_concatenate(parts)
    if not np.isfinite(features).all():
        raise UserError(f"features of '{stream.name}' are NaN or infinite: the checkpoint has diverged")
    return features, labels
