"""Evaluation during training."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jax.sharding import Mesh

from anchor_jax import metrics
from anchor_jax.config import EvaluationConfig
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.data import Dataset, EvalDataset, eval_dataset, open_test
from anchor_jax.runs import checkpoint
from anchor_jax.runs.load import create_predictor
from anchor_jax.runs.predictor import Predictor, tree_concatenate
from anchor_jax.runs.record import Run
from anchor_jax.runs.state import TrainState, eval_variables
from anchor_jax.runtime import mesh as mesh_lib


@short_repr
@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Evaluates training states on the validation set or, if the run has none, on the test set.

    Attributes:
      dataset: named "validation" or "test".
      predictor: of the run; its variables are replaced by those of each state.
      config: `config.evaluation`.
      mesh: the devices.
    """

    dataset: EvalDataset
    predictor: Predictor
    config: EvaluationConfig
    mesh: Mesh

    def run(
        self, state: TrainState, then: Callable[[np.ndarray, np.ndarray], object] = lambda *_: None
    ) -> dict[str, float]:
        """Compute the metrics of a state, see `metrics.summary`; only a NaN accuracy if a prediction is not finite.

        Args:
          state: of the training.
          then: called with the probabilities `[N, C]` and the labels `[N]`, if all are finite.
        """
        variables = mesh_lib.replicate(eval_variables(state), self.mesh)  # gathers those that are sharded
        predictor = dataclasses.replace(self.predictor, variables=variables)
        predictions = predictor.stream(
            self.dataset.batches(predictor.size_for(self.dataset.num_examples)),
            self.config.num_references,
            then=lambda votes, labels: (votes.classification.probs, labels),
        )
        probs, labels = tree_concatenate(predictions)
        if not np.isfinite(probs).all():
            return {checkpoint.METRIC: math.nan}
        then(probs, labels)
        return {name: float(score) for name, score in metrics.summary(probs, labels, self.config.num_bins).items()}


def create_evaluator(run: Run, held_out: Dataset | None, mesh: Mesh) -> Evaluator:
    """Open the evaluation set of a run and compile its predictor.

    Args:
      run: the run.
      held_out: its validation set; None evaluates on the test set.
      mesh: the devices.
    """
    return Evaluator(_eval_dataset(run, held_out), create_predictor(run, {}, mesh), run.config.evaluation, mesh)


def _eval_dataset(run: Run, held_out: Dataset | None) -> EvalDataset:
    """Return images that are decoded once for all evaluations; those of a streaming run may not fit in memory."""
    channels = run.image_shape[-1]
    if held_out is not None:
        return eval_dataset(held_out, "validation", channels=channels)
    test_set = run.config.data, run.label_names, run.image_shape
    return open_test(*test_set, keep_bytes=0 if run.config.data.streaming else math.inf)
