"""Protocols: one random reference, K random ones, bilinear transduction; and how much the draw matters."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from anchor_jax.data import Dataset, EvalDataset, eval_dataset
from anchor_jax.evaluation.context import EvalContext, Finding
from anchor_jax.evaluation.predictions import METRICS, PredictionTable, main_scores, predict_dataset

_TIMED, _TIMES = 1_000, 3  # examples, and how often
_CURVE = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)  # numbers of references

Ask = Callable[[EvalDataset], PredictionTable]


def check(subject: EvalContext) -> None:
    """Refuse a run whose training data, among which transduction looks, cannot be had."""
    if subject.run.references is not None:
        _ = subject.transduction


def measure(subject: EvalContext, num_references: int) -> Finding:
    """Accuracy, calibration and time of each protocol; accuracy of every draw and number of references."""
    facts = {"num_examples": subject.test.num_examples, "timed_examples": min(_TIMED, subject.test.num_examples)}
    references = subject.run.references
    if references is None:
        return Finding(_measured(subject, "standard", partial(subject.predict, num_references=0)), {}, facts)

    found, draws = {}, {}
    for num in sorted({num for num in _CURVE if num < num_references} | {1, num_references}):
        draws[num] = min(subject.options.draws, len(references) // num)
        for draw in range(draws[num]):
            of_draw = main_scores(_ask_drawn(subject, references, draw, num)(subject.test), subject.num_bins)
            found |= {f"draws/{draw}/{num}/{name}": value for name, value in of_draw.items()}
    for protocol, num in (("random1", 1), ("randomK", num_references)):
        for name in METRICS:
            values = [found[f"draws/{draw}/{num}/{name}"] for draw in range(draws[num])]
            found[f"{protocol}/{name}"] = float(np.mean(values))
        found[f"{protocol}/seconds_per_1000"] = _seconds_per_1000(subject, _ask_drawn(subject, references, 0, num))
    found |= _measured(subject, "blt", subject.predict_transduced)
    facts |= {
        "draws": {str(num): count for num, count in draws.items()},
        "blt_references": len(subject.transduction.references),
        "blt_residuals": len(subject.transduction.residuals),
    }
    return Finding(found, {}, facts)


def _ask_drawn(subject: EvalContext, references: np.ndarray, draw: int, num_references: int) -> Ask:
    """The network with a part of its saved references that no other draw of so many has."""
    its_own_first = np.roll(references, -draw * num_references, axis=0)
    predictor = dataclasses.replace(subject.predictor, references=its_own_first)
    return partial(predict_dataset, predictor, num_references=num_references)


def _measured(subject: EvalContext, protocol: str, ask: Ask) -> dict[str, float]:
    found = main_scores(ask(subject.test), subject.num_bins)
    found["seconds_per_1000"] = _seconds_per_1000(subject, ask)
    return {f"{protocol}/{name}": value for name, value in found.items()}


def _seconds_per_1000(subject: EvalContext, ask: Ask) -> float:
    """Time for 1,000 images from host memory to the table, once all is compiled; the median of some."""
    images, labels = subject.test.first(_TIMED)
    few = eval_dataset(Dataset(np.asarray(images), labels, subject.run.label_names), "timed")
    ask(few)
    times = []
    for _ in range(_TIMES):
        started = time.perf_counter()
        ask(few)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1_000 / len(labels)
