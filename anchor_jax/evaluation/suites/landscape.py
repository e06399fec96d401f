"""Landscape: accuracy and loss on a plane in parameter space (Li et al. 2018, arXiv 1712.09913)."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax import metrics
from anchor_jax.core.errors import UserError
from anchor_jax.data import Dataset, EvalDataset, eval_dataset
from anchor_jax.evaluation.context import EvalContext
from anchor_jax.evaluation.options import SeedOption
from anchor_jax.evaluation.presentation import ContourPanel, Contours, Figure, Table
from anchor_jax.evaluation.progress import with_progress
from anchor_jax.evaluation.results import Results, Score, SuiteResult
from anchor_jax.evaluation.suite import Suite
from anchor_jax.evaluation.suites import common
from anchor_jax.runs.predictor import tree_concatenate

_NUM_EXAMPLES = 1_000
_NUM_POINTS = 11  # along each direction; odd, so that the trained parameters are one of them
_REACH = 1.0


class PreparedLandscape(NamedTuple):
    """Some test images, and two directions in parameter space."""

    context: EvalContext
    examples: EvalDataset
    directions: tuple[Any, Any]


class Landscape(Suite[PreparedLandscape]):
    """Evaluate parameters moved along two random directions."""

    name = "landscape"
    title = "Landscape"
    question = "How fast does accuracy drop as the parameters move away from where training ended?"
    reading = "The two random directions are scaled filter by filter, which makes models comparable."
    options = SeedOption

    def prepare(self, context: EvalContext) -> PreparedLandscape:
        """Read examples that are spread evenly over the test set, and draw the directions."""
        num = context.test.num_examples
        images, labels = context.test.take(np.unique(np.linspace(0, num - 1, min(num, _NUM_EXAMPLES)).astype(int)))
        examples = eval_dataset(
            Dataset(images, labels, context.run.label_names), "landscape", channels=images.shape[-1]
        )
        params = context.predictor.variables["params"]
        first, second = jax.random.split(jax.random.key(context.options.seed))
        directions = filter_normalized_direction(first, params), filter_normalized_direction(second, params)
        return PreparedLandscape(context, examples, directions)

    def num_predictions(self, prepared: PreparedLandscape, num_references: int) -> int:
        """Return the number of images at all points, once per reference."""
        return max(num_references, 1) * _NUM_POINTS**2 * prepared.examples.num_examples

    def measure(self, prepared: PreparedLandscape, num_references: int) -> SuiteResult:
        """Measure accuracy and mean negative log-likelihood at each point of the plane.

        Biases, scales and the statistics of BatchNorm stay fixed.
        """
        context, examples, directions = prepared
        predictor = context.predictor
        steps = np.linspace(-_REACH, _REACH, _NUM_POINTS, dtype=np.float32)
        accuracy, loss = np.empty((2, _NUM_POINTS, _NUM_POINTS), np.float32)
        for i, alpha in enumerate(steps):
            for j, beta in enumerate(steps):
                moved = _moved(predictor.variables["params"], *directions, alpha, beta)
                there = dataclasses.replace(predictor, variables=predictor.variables | {"params": moved})
                batches = with_progress(examples, there, examples.name, num_references)
                correct, nll = tree_concatenate(there.stream(batches, num_references, then=_correct_and_nll))
                accuracy[i, j], loss[i, j] = np.mean(correct), np.mean(nll)
        center = _NUM_POINTS // 2
        if not np.isfinite(loss[center, center]):
            raise UserError("predictions are NaN or infinite: the checkpoint has diverged; evaluate an earlier one")
        arrays = {"alphas": steps, "betas": steps, "accuracy": accuracy, "loss": loss}
        facts = {
            "num_examples": examples.num_examples,
            "seed": context.options.seed,
            "directions": "filter-normalized, random",
        }
        scores = (Score("accuracy", accuracy[center, center]),)
        return SuiteResult(self.name, num_references, scores, arrays, facts)

    def tables(self, results: Results) -> list[Table]:
        """Return the accuracy of the trained parameters."""
        num = common.newest(results).facts["num_examples"]
        caption = f"At the center, for {num:,} images of the test set"
        return common.by_references(caption, results, common.quantities(("accuracy",)))

    def figures(self, results: Results, clean: Results) -> list[Figure]:
        """Return contours of accuracy and loss."""
        result = common.newest(results)
        if not {"alphas", "betas", "accuracy", "loss"} <= result.arrays.keys():
            return []
        panels = [
            ContourPanel("accuracy", result.arrays["accuracy"], higher_is_better=True, is_fraction=True),
            ContourPanel("loss (nats)", result.arrays["loss"], higher_is_better=False, is_fraction=False),
        ]
        caption = (
            f"{common.with_references(result)}: the cross is the trained model; a step of 1 is as long as each filter "
            "itself. A wide, even plateau is a flat optimum."
        )
        plot = Contours(result.arrays["alphas"], result.arrays["betas"], panels)
        return [Figure("contours", "Around the trained parameters", caption, plot)]


def filter_normalized_direction(key: jax.Array, params: Any) -> Any:
    """Draw a direction in parameter space: each filter, the last axis of a kernel, has the norm of the parameters'.

    Parameters with one axis (biases, scales) have the direction 0, as in the authors' code.
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
def _correct_and_nll(voted, labels):
    """NaN predictions count as wrong, with infinite loss."""
    probs = voted.classification.probs
    scores, finite = metrics.per_example_scores(probs, labels), jnp.all(jnp.isfinite(probs), axis=-1)
    return scores.correct & finite, jnp.where(finite, scores.nll, jnp.inf)


@jax.jit
def _moved(params, first, second, alpha, beta):
    return jax.tree.map(lambda p, d, e: p + alpha * d + beta * e, params, first, second)
