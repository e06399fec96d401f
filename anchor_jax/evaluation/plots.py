"""Pictures of an evaluation, as PNG."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from anchor_jax import metrics
from anchor_jax.evaluation.suites import Evaluation
from anchor_jax.files import replacing

ACCURACY, GAP, RIGHT, WRONG = "#3b6fb6", "#d1495b", "#3b6fb6", "#d1495b"


def reliability_diagram(evaluation: Evaluation, num_bins: int, title: str, path: Path) -> None:
    """How often predictions of a confidence are right; on the diagonal they keep what they promise."""
    bins = metrics.reliability(evaluation.predictions.probs, evaluation.labels, num_bins)
    count, accuracy, confidence = (np.asarray(values) for values in bins)
    figure = Figure(figsize=(4.6, 5.4), layout="constrained")
    above, below = figure.subplots(2, height_ratios=(4, 1), sharex=True)
    centres, full = (np.arange(num_bins) + 0.5) / num_bins, count > 0
    above.bar(centres[full], accuracy[full], 1 / num_bins, color=ACCURACY, edgecolor="white", label="accuracy")
    gap = (confidence - accuracy)[full]
    above.bar(
        centres[full],
        gap,
        1 / num_bins,
        bottom=accuracy[full],
        color=GAP,
        alpha=0.35,
        edgecolor="white",
        label="gap to the confidence",
    )
    above.plot([0, 1], [0, 1], "--", color="black", linewidth=1, label="calibrated")
    above.set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1), title=f"{title}\nECE {evaluation.metrics['ece']:.2%}")
    above.legend(loc="upper left", frameon=False)
    below.bar(centres, count / count.sum(), 1 / num_bins, color="gray", edgecolor="white")
    below.set(xlabel="confidence", ylabel="examples")
    below.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _save(figure, path)


def uncertainty_histogram(evaluation: Evaluation, title: str, path: Path) -> None:
    """Entropy and mutual information of right and of wrong predictions; wrong ones should lie further right."""
    predictions = evaluation.predictions
    right = predictions.probs.argmax(-1) == evaluation.labels
    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    scores = {
        "predictive entropy (nats)": predictions.entropy,
        "mutual information (nats)": predictions.mutual_information,
    }
    for axes, (name, score) in zip(figure.subplots(1, 2), scores.items(), strict=True):
        edges = np.linspace(0, max(float(score.max()), 1e-6), 31)
        for chosen, label, colour in ((right, "right", RIGHT), (~right, "wrong", WRONG)):
            weights = np.full(chosen.sum(), 1 / max(chosen.sum(), 1))
            axes.hist(
                score[chosen],
                edges,
                weights=weights,
                color=colour,
                alpha=0.6,
                label=f"{label} ({chosen.sum():,})",
            )
        axes.set(xlabel=name, ylabel="share of right, of wrong")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend(frameon=False)
    figure.suptitle(title)
    _save(figure, path)


def _save(figure, path):
    with replacing(path) as file:
        figure.savefig(file, dpi=150)
