"""Predictions on a dataset as a table with one row per example."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anchor_jax import metrics
from anchor_jax.core.errors import UserError
from anchor_jax.core.inference import VotedClassification, anomaly_scores
from anchor_jax.core.short_reprs import short_repr
from anchor_jax.data import EvalDataset
from anchor_jax.evaluation.progress import with_progress
from anchor_jax.evaluation.results import Prediction, Score, make_scores
from anchor_jax.runs.network import References
from anchor_jax.runs.predictor import Predictor, tree_concatenate

Column = jax.Array | np.ndarray

# metrics of many datasets, and of predictions other than the mean of the softmaxes, for which there are more
METRICS = ("accuracy", "nll", "brier", "ece", "rms_ece", "smooth_ece")


@short_repr
class PredictionTable(NamedTuple):
    """One row per example, in the order of the data; NumPy arrays `[N]` on the host."""

    label: Column  # int32
    predicted: Column  # int32
    mean_probs: metrics.PerExampleScores  # of the mean of the softmaxes, which is the prediction
    mean_logits: metrics.PerExampleScores  # of the softmax of the mean logits, the prediction of the released code
    scaled: metrics.PerExampleScores | None  # of the softmax of the mean logits divided by the temperature
    entropy: Column  # float32, nats
    mutual_information: Column  # float32, nats
    spread: Column  # float32, standard deviation of the probabilities over references, mean over classes; 0 for one
    agreement: Column  # float32, largest fraction of references that predict the same class
    max_logit: Column  # float32, of the mean logits
    energy: Column  # float32, of the mean logits
    probs: Column | None = None  # float32 [N, C], the mean of the softmaxes; only if they are to be written


def predict_dataset(
    predictor: Predictor,
    stream: EvalDataset,
    num_references: int,
    *,
    classes: tuple[int, ...] | None = None,
    temperature: float | None = None,
    keep_probs: bool = False,
    encoded: References = None,
) -> PredictionTable:
    """Predict every example of a dataset once.

    Args:
      predictor: of the run.
      stream: labeled images of the run's shape.
      num_references: K.
      classes: rows of the logits that the labels of the dataset refer to; None for all.
      temperature: of temperature scaling; None for none.
      keep_probs: whether the table has the probabilities.
      encoded: references to use in place of the first K of the run, see `CompiledNetwork.encode_shown`.

    Raises:
      UserError: a prediction is NaN or infinite.
    """
    batches = with_progress(stream, predictor, stream.name, num_references)
    then = _rows_at(temperature, keep_probs)
    rows = predictor.stream(batches, num_references, then=then, classes=classes, encoded=encoded)
    return _finite(tree_concatenate(rows), stream)


def predict_pairs(
    predictor: Predictor,
    stream: EvalDataset,
    *,
    classes: tuple[int, ...] | None = None,
    temperature: float | None = None,
    keep_probs: bool = False,
) -> PredictionTable:
    """Predict a dataset whose batches are `(images, references, labels)`; see `predict_dataset`."""
    batches = with_progress(stream, predictor, f"{stream.name}, transduction", 1)
    rows = predictor.stream_pairs(batches, then=_rows_at(temperature, keep_probs), classes=classes)
    return _finite(tree_concatenate(rows), stream)


def main_scores(table: PredictionTable, num_bins: int, **fields: Any) -> list[Score]:
    """Return the scores of `METRICS`, with temperature scaling also those of the scaled prediction.

    Args:
      table: of one dataset.
      num_bins: of the calibration errors.
      **fields: of every `Score`, such as its dataset.
    """
    scores = _scores_of(table, "mean_probs", num_bins, **fields)
    return scores + (_scores_of(table, "scaled", num_bins, **fields) if table.scaled else [])


def all_scores(table: PredictionTable, num_bins: int, **fields: Any) -> list[Score]:
    """Return all scores of a dataset; see `main_scores`."""
    scores = make_scores(metrics.summarize(table.mean_probs, num_bins), **fields)
    scores += _scores_of(table, "scaled", num_bins, **fields) if table.scaled else []
    scores += _scores_of(table, "mean_logits", num_bins, **fields)
    means = {name: np.mean(getattr(table, name)) for name in ("entropy", "mutual_information", "agreement")}
    return scores + make_scores(means, **fields)


def to_arrays(table: PredictionTable) -> dict[str, np.ndarray]:
    """Return the columns of a table by name, as they are stored."""
    kept = {name: getattr(table.mean_probs, name) for name in ("confidence", "correct", "nll", "brier")}
    return kept | {name: column for name, column in table._asdict().items() if isinstance(column, np.ndarray)}


def _scores_of(table: PredictionTable, prediction: Prediction, num_bins: int, **fields: Any) -> list[Score]:
    values = metrics.summarize(getattr(table, prediction), num_bins)
    return make_scores({name: values[name] for name in METRICS}, prediction=prediction, **fields)


def check_finite(values: Column, name: str) -> None:
    """Raise if a number of some examples `[N]` is NaN or infinite.

    Args:
      values: floating `[N]`.
      name: of their dataset.

    Raises:
      UserError: the checkpoint has diverged.
    """
    wrong = ~np.isfinite(np.asarray(values))
    if wrong.any():
        raise UserError(
            f"{wrong.sum():,} of {len(wrong):,} predictions on '{name}' are NaN or infinite: the checkpoint has "
            "diverged; evaluate an earlier one (--checkpoint)"
        )


def _finite(table: PredictionTable, stream: EvalDataset) -> PredictionTable:
    check_finite(np.asarray(table.energy) + np.asarray(table.mean_probs.confidence), stream.name)
    return table


def _rows_at(temperature: float | None, keep_probs: bool) -> Callable[..., PredictionTable]:
    of_temperature = None if temperature is None else np.float32(temperature)
    return partial(prediction_rows, of_temperature, keep_probs=keep_probs)


@partial(jax.jit, static_argnames="keep_probs")
def prediction_rows(
    temperature: Column | np.float32 | None, voted: VotedClassification, labels: Column, *, keep_probs: bool = False
) -> PredictionTable:
    """Return the rows of one batch."""
    answer = voted.classification
    scores = anomaly_scores(voted)
    scaled = None if temperature is None else jax.nn.softmax(answer.logits / temperature)
    return PredictionTable(
        label=labels,
        predicted=jnp.argmax(answer.probs, axis=-1).astype(jnp.int32),
        mean_probs=metrics.per_example_scores(answer.probs, labels),
        mean_logits=metrics.per_example_scores(jax.nn.softmax(answer.logits), labels),
        scaled=None if scaled is None else metrics.per_example_scores(scaled, labels),
        entropy=answer.entropy,
        mutual_information=answer.mutual_information,
        spread=scores.get("spread", jnp.zeros(len(labels))),
        agreement=voted.agreement,
        max_logit=-scores["max_logit"],
        energy=scores["energy"],
        probs=answer.probs if keep_probs else None,
    )
