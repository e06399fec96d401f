"""Temperature scaling after training (Guo et al. 2017, arXiv 1706.04599)."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize_scalar

from anchor_jax import metrics
from anchor_jax.core.errors import UserError
from anchor_jax.data import Dataset, EvalDataset, eval_dataset
from anchor_jax.evaluation.progress import with_progress
from anchor_jax.runs.predictor import Predictor, tree_concatenate
from anchor_jax.training.source import TrainSource


def require_held_out(train: tuple[TrainSource, Dataset | None]) -> EvalDataset:
    """Return the part of the training set that the run held out.

    Args:
      train: training set of the run, and the part held out.

    Raises:
      UserError: the run held out nothing.
    """
    _, held_out = train
    if held_out is None:
        raise UserError(
            "temperature scaling needs training data that the run held out, and this run held out none; train with "
            "--config.data.validation_fraction=0.1, or omit --temperature_scaling"
        )
    return eval_dataset(held_out, "held-out training data", channels=held_out.images.shape[-1])


def fit_temperature(predictor: Predictor, held_out: EvalDataset, num_references: int) -> float:
    """Return the temperature T for which `softmax(mean logits / T)` fits the held-out data best."""
    batches = with_progress(held_out, predictor, held_out.name, num_references)

    def logits_and_labels(voted, labels):
        return voted.classification.logits, labels

    return best_temperature(*tree_concatenate(predictor.stream(batches, num_references, then=logits_and_labels)))


def best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the T in [0.01, 100] that minimizes the negative log-likelihood of `softmax(logits / T)`.

    Args:
      logits: floating `[N, C]`.
      labels: integer `[N]`.
    """
    on_device = jnp.asarray(logits), jnp.asarray(labels)

    def loss(log_temperature):
        return float(_loss(*on_device, log_temperature))

    # convex in 1/T, so it has one minimum in T too
    fitted = minimize_scalar(loss, bounds=(np.log(0.01), np.log(100)), method="bounded")
    return float(np.exp(fitted.x))


@jax.jit
def _loss(logits, labels, log_temperature):
    return metrics.nll(jax.nn.softmax(logits / jnp.exp(log_temperature)), labels)
