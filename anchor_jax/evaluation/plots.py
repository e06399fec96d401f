"""Pictures of an evaluation, as PNG."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from anchor_jax import metrics
from anchor_jax.evaluation.suites import Evaluation
from anchor_jax.files import replacing

BLUE, RED = "#8fb4dc", "#c8324a"


def reliability_diagram(evaluation: Evaluation, num_bins: int, title: str, path: Path) -> None:
    """How often predictions of a confidence are right; on the diagonal they keep what they promise."""
    bins = metrics.reliability(evaluation.predictions.probs, evaluation.labels, num_bins)
    count, accuracy, confidence = (np.asarray(values) for values in bins)
    centres, width, full = (np.arange(num_bins) + 0.5) / num_bins, 1 / num_bins, count > 0
    figure = Figure(figsize=(4.8, 6), layout="constrained")
    above, below = figure.subplots(2, height_ratios=(4, 1), sharex=True)
    above.bar(centres[full], accuracy[full], width, color=BLUE, edgecolor="white", label="accuracy")
    gap = (confidence - accuracy)[full]
    style = {"facecolor": "none", "edgecolor": RED, "hatch": "////", "linewidth": 0.8}
    above.bar(centres[full], gap, width, bottom=accuracy[full], label="gap to the confidence", **style)
    above.plot([0, 1], [0, 1], "--", color="black", linewidth=1, label="calibrated")
    above.set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1), title=f"{title}\nECE {evaluation.metrics['ece']:.2%}")
    below.bar(centres, count / count.sum(), width, color="gray", edgecolor="white")
    below.set(xlabel="confidence", ylabel="examples")
    below.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    _save(figure, path)


def uncertainty_histogram(evaluation: Evaluation, title: str, path: Path) -> None:
    """Entropy and mutual information of right and of wrong predictions; wrong ones should lie further right."""
    predictions = evaluation.predictions
    right = predictions.probs.argmax(-1) == evaluation.labels
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    scores = {
        "predictive entropy (nats)": predictions.entropy,
        "mutual information (nats)": predictions.mutual_information,
    }
    panels = figure.subplots(1, 2)
    for axes, (name, score) in zip(panels, scores.items(), strict=True):
        edges = np.linspace(0, max(float(score.max()), 1e-6), 31)
        for chosen, label, colour in ((right, "right", BLUE), (~right, "wrong", RED)):
            weights = np.full(chosen.sum(), 1 / max(chosen.sum(), 1))
            axes.hist(
                score[chosen], edges, weights=weights, color=colour, alpha=0.7, label=f"{label}: {chosen.sum():,}"
            )
        axes.set(xlabel=name, ylabel="share of the right, of the wrong")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.suptitle(title)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    _save(figure, path)


def _save(figure, path):
    with replacing(path) as file:
        figure.savefig(file, dpi=150)
