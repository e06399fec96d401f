"""Suites: what is asked of a trained run. Each looks at every example of its data once."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.progress import track

from anchor_jax import metrics
from anchor_jax.data import Dataset, load_test
from anchor_jax.inference import Classification
from anchor_jax.predictor import Predictor
from anchor_jax.training.run import Run


class Evaluation(NamedTuple):
    """What a suite found with one number of references."""

    metrics: dict[str, float]
    predictions: Classification  # of NumPy arrays, N rows
    labels: np.ndarray  # int32 [N]


def clean(run: Run, predictor: Predictor, num_references: tuple[int, ...]) -> dict[int, Evaluation]:
    """The test set as it is: number of references -> evaluation."""
    test = load_test(run.config.data, run.label_names, run.image_shape)
    return {num: _evaluate(predictor, test, num, run.config.evaluation.num_bins) for num in num_references}


SUITES: dict[str, Callable[..., dict[int, Evaluation]]] = {"clean": clean}


def _evaluate(predictor: Predictor, dataset: Dataset, num_references: int, num_bins: int) -> Evaluation:
    predictions = _predict(predictor, dataset.images, num_references)
    # the mean of the softmaxes is the prediction; the softmax of the mean logits, the released code's, stands beside it
    of_logits = metrics.summary(jax.nn.softmax(predictions.logits), dataset.labels, num_bins)
    scores = {
        **metrics.summary(predictions.probs, dataset.labels, num_bins),
        **{f"mean_logits_{name}": score for name, score in of_logits.items()},
        "entropy": predictions.entropy.mean(),
        "mutual_information": predictions.mutual_information.mean(),
    }
    return Evaluation({name: float(score) for name, score in scores.items()}, predictions, dataset.labels)


def _predict(predictor: Predictor, images: np.ndarray, num_references: int) -> Classification:
    """Predictions for all images, with a progress bar on a terminal."""
    console = Console()
    batches = track(
        predictor.batches(images, num_references),
        total=math.ceil(len(images) / predictor.batch_size),
        description=f"{len(images):,} images, {num_references} references",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
