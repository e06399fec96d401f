"""One pass of a network over images, kept as a table: all that a suite needs to know of each example."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import track

from anchor_jax import metrics
from anchor_jax.core.errors import UserError
from anchor_jax.core.inference import VotedClassification
from anchor_jax.core.uncertainty import energy
from anchor_jax.data import EvalDataset
from anchor_jax.runs.predictor import Predictor, tree_concatenate
from anchor_jax.runtime import multihost

Column = jax.Array | np.ndarray

# of a set of many, and of the other predictions of one set; the metrics of a prediction itself are all of `summary_of`
METRICS = ("accuracy", "nll", "brier", "ece", "rms_ece", "smooth_ece")


class PredictionTable(NamedTuple):
    """A row for each example, in the order of the data; NumPy arrays `[N]` once they are fetched."""

    label: Column  # int32
    predicted: Column  # int32
    outcomes: metrics.PerExampleScores  # of the mean of the softmaxes, which is the prediction
    of_mean_logits: metrics.PerExampleScores  # of the softmax of the mean logits, the released code's prediction
    scaled: metrics.PerExampleScores | None  # of the softmax of the mean logits over the temperature, if there is one
    entropy: Column  # float32, nats
    mutual_information: Column  # float32, nats
    spread: Column  # float32, standard deviation over references of the probabilities, mean over classes; 0 for one
    agreement: Column  # float32, largest share of references that say one class
    max_logit: Column  # float32, of the mean logits
    energy: Column  # float32, of the mean logits


def predict_dataset(
    predictor: Predictor,
    stream: EvalDataset,
    num_references: int,
    *,
    classes: tuple[int, ...] | None = None,
    temperature: float | None = None,
) -> PredictionTable:
    """The table of a stream of images, each seen once.

    Args:
      predictor: of the run.
      stream: labelled images of the run's shape.
      num_references: K.
      classes: the run's classes that the stream's labels count, where they are not all of them.
      temperature: of temperature scaling, see `Examples.scaled`.
    """
    batches = with_progress(stream, predictor, f"{stream.name}, {num_references} references")
    return _finite(
        tree_concatenate(predictor.stream(batches, num_references, then=_then(temperature), classes=classes)), stream
    )


def predict_pairs(
    predictor: Predictor,
    stream: EvalDataset,
    *,
    classes: tuple[int, ...] | None = None,
    temperature: float | None = None,
) -> PredictionTable:
    """As `examine`, of a stream whose batches have a reference for each image: `(images, references, labels)`."""
    batches = with_progress(stream, predictor, f"{stream.name}, a reference for each")
    return _finite(tree_concatenate(predictor.stream_pairs(batches, then=_then(temperature), classes=classes)), stream)


def with_progress(stream: EvalDataset, predictor: Predictor, title: str) -> Iterator[tuple[Any, ...]]:
    """The batches of a stream, of the predictor's size, with a progress bar on a terminal."""
    size, console = predictor.size_for(stream.num_examples), Console()
    return iter(
        track(
            stream.batches(size),
            total=-(-stream.num_examples // size),
            description=title,
            console=console,
            transient=True,
            disable=not (console.is_terminal and multihost.is_primary()),
        )
    )


def main_scores(examples: PredictionTable, num_bins: int) -> dict[str, float]:
    """The metrics of `METRICS`, by name, and with temperature scaling those of the scaled prediction."""
    found = _of_outcomes(examples.outcomes, num_bins)
    if examples.scaled is not None:
        found |= {f"scaled_{name}": value for name, value in _of_outcomes(examples.scaled, num_bins).items()}
    return found


def all_scores(examples: PredictionTable, num_bins: int) -> dict[str, float]:
    """All metrics of a table, by name."""
    found = {name: float(value) for name, value in metrics.summarize(examples.outcomes, num_bins).items()}
    found |= main_scores(examples, num_bins)
    of_mean_logits = _of_outcomes(examples.of_mean_logits, num_bins)
    found |= {f"mean_logits_{name}": value for name, value in of_mean_logits.items()}
    for name in ("entropy", "mutual_information", "agreement"):
        found[name] = float(np.mean(getattr(examples, name)))
    return found


def columns(examples: PredictionTable) -> dict[str, np.ndarray]:
    """The table under flat names, as it is kept on disk."""
    judged = examples.outcomes
    kept = {name: getattr(judged, name) for name in ("confidence", "correct", "nll", "brier")}
    unnested = {name: value for name, value in examples._asdict().items() if isinstance(value, np.ndarray)}
    return kept | unnested


def _of_outcomes(outcomes: metrics.PerExampleScores, num_bins: int) -> dict[str, float]:
    found = metrics.summarize(outcomes, num_bins)
    return {name: float(found[name]) for name in METRICS}


def _finite(examples: PredictionTable, stream: EvalDataset) -> PredictionTable:
    wrong = ~np.isfinite(np.asarray(examples.energy)) | ~np.isfinite(np.asarray(examples.outcomes.confidence))
    if wrong.any():
        raise UserError(
            f"{wrong.sum():,} of {len(wrong):,} predictions on '{stream.name}' are no finite numbers: the checkpoint "
            "has diverged; evaluate an earlier one (--checkpoint)"
        )
    return examples


def _then(temperature):
    return partial(rows, None if temperature is None else np.float32(temperature))


@jax.jit
def rows(temperature: Column | np.float32 | None, poll: VotedClassification, labels: Column) -> PredictionTable:
    """The rows of one batch."""
    answer = poll.classification
    spread = jnp.zeros(len(labels)) if answer.probs_std is None else jnp.mean(answer.probs_std, axis=-1)
    scaled = None if temperature is None else jax.nn.softmax(answer.logits / temperature)
    return PredictionTable(
        label=labels,
        predicted=jnp.argmax(answer.probs, axis=-1).astype(jnp.int32),
        outcomes=metrics.per_example_scores(answer.probs, labels),
        of_mean_logits=metrics.per_example_scores(jax.nn.softmax(answer.logits), labels),
        scaled=None if scaled is None else metrics.per_example_scores(scaled, labels),
        entropy=answer.entropy,
        mutual_information=answer.mutual_information,
        spread=spread,
        agreement=poll.agreement,
        max_logit=jnp.max(answer.logits, axis=-1),
        energy=energy(answer.logits),
    )
