"""Landscape: accuracy and loss on a plane through the parameters (Li et al. 2018, arXiv 1712.09913)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax import metrics
from anchor_jax.core.errors import UserError
from anchor_jax.data import Dataset, eval_dataset
from anchor_jax.evaluation.context import EvalContext, Finding
from anchor_jax.evaluation.predictions import with_progress
from anchor_jax.runs.predictor import tree_concatenate

_EXAMPLES = 1_000
_POINTS = 11  # along each direction, odd so that the trained network is among them
_REACH = 1.0


def measure(subject: EvalContext, num_references: int) -> Finding:
    """Accuracy and mean negative log likelihood where the parameters are moved along two random directions.

    Each direction is filter-normalised: every filter of it is as long as that of the network. Biases, scales and the
    statistics of BatchNorm stay where they are. The examples are spread evenly over the test set.
    """
    num = subject.test.num_examples
    images, labels = subject.test.take(np.unique(np.linspace(0, num - 1, min(num, _EXAMPLES)).astype(int)))
    few = eval_dataset(Dataset(images, labels, subject.run.label_names), "landscape")
    params = subject.predictor.variables["params"]
    keys = jax.random.split(jax.random.key(subject.options.seed))
    one, other = (filter_normalised_direction(key, params) for key in keys)

    steps = np.linspace(-_REACH, _REACH, _POINTS, dtype=np.float32)
    accuracy, loss = np.empty((2, _POINTS, _POINTS), np.float32)
    for i, alpha in enumerate(steps):
        for j, beta in enumerate(steps):
            variables = subject.predictor.variables | {"params": _moved(params, one, other, alpha, beta)}
            there = dataclasses.replace(subject.predictor, variables=variables)
            batches = with_progress(few, there, f"point {i * _POINTS + j + 1} of {_POINTS**2}")
            correct, nll = tree_concatenate(there.stream(batches, num_references, then=_outcomes))
            accuracy[i, j], loss[i, j] = np.mean(correct), np.mean(nll)
    centre = _POINTS // 2
    if not np.isfinite(loss[centre, centre]):
        raise UserError("predictions are no finite numbers: the checkpoint has diverged; evaluate an earlier one")
    arrays = {"alphas": steps, "betas": steps, "accuracy": accuracy, "loss": loss}
    facts = {"num_examples": len(labels), "seed": subject.options.seed, "directions": "filter-normalised, random"}
    return Finding({"accuracy": float(accuracy[centre, centre])}, arrays, facts)


def filter_normalised_direction(key: jax.Array, params: Any) -> Any:
    """A random direction in the parameters: each filter, the last axis of a kernel, has the norm of the parameters'.

    Parameters of one axis (biases, scales) have the direction 0, as in the authors' code.
    """
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))

    def direction(key, leaf):
        if leaf.ndim < 2:
            return jnp.zeros_like(leaf)
        noise, axes = jax.random.normal(key, leaf.shape, leaf.dtype), tuple(range(leaf.ndim - 1))

        def norm(a):
            return jnp.sqrt(jnp.sum(a**2, axis=axes, keepdims=True))

        return noise * norm(leaf) / norm(noise)

    return jax.tree.unflatten(structure, map(direction, keys, leaves))


@jax.jit
def _outcomes(poll, labels):
    """Right or not, and loss; a prediction that is no number is not right, and its loss is infinite."""
    probs = poll.classification.probs
    outcomes, finite = metrics.per_example_scores(probs, labels), jnp.all(jnp.isfinite(probs), axis=-1)
    return outcomes.correct & finite, jnp.where(finite, outcomes.nll, jnp.inf)


@jax.jit
def _moved(params, one, other, alpha, beta):
    return jax.tree.map(lambda p, d, e: p + alpha * d + beta * e, params, one, other)
