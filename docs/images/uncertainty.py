"""Plot the figure of the README from two tutorials: what a single anchored network is uncertain about.

    python docs/images/uncertainty.py FOLDER

Left, the network of docs/tutorials/regression.py; right, that of docs/tutorials/classification.py. The figure is
written to FOLDER/uncertainty.png. Takes half a minute on 2 CPU cores.
"""

import runpy
import sys
from pathlib import Path

import jax
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TUTORIALS = Path(__file__).parents[1] / "tutorials"
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "font.size": 9,
    "grid.color": "0.92",
    "legend.frameon": False,
}
BLUE, ORANGE, GRAY = "#0072b2", "#d55e00", "0.5"
NUM_REFERENCES = 20


def main(folder: str) -> None:
    """Run the tutorials, plot their results and write the figure."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(5, 4))
        plot_regression(left)
        plot_classification(right)
        figure.savefig(Path(folder) / "uncertainty.png", dpi=150)


def plot_regression(axes: Axes) -> None:
    """Plot the mean over references ± 2 standard deviations, around and between the training examples."""
    tutorial = runpy.run_path(str(TUTORIALS / "regression.py"))
    regression, features = tutorial["regression"], tutorial["features"]
    x, y = tutorial["examples"]()
    network = regression.fit(jax.random.key(0), features(x), y, tutorial["SETTINGS"])
    grid = np.linspace(-0.5, 2.5, 301)
    prediction = regression.predict(jax.random.key(1), network, features(grid), num=NUM_REFERENCES)
    mean, spread = np.asarray(prediction.mean), np.asarray(prediction.epistemic)
    axes.fill_between(grid, mean - 2 * spread, mean + 2 * spread, color=BLUE, alpha=0.2, label="±2 std over references")
    axes.plot(grid, mean, color=BLUE, label="mean over references")
    axes.plot(grid, np.sin(2 * np.pi * grid), "--", color=GRAY, linewidth=1, label="target")
    axes.plot(x, y, "o", color="black", markersize=3, label="training examples")
    axes.set(title="Regression: uncertain away from the training data", xlabel="x", ylabel="y", ylim=(-2.2, 2.8))
    axes.legend(loc="upper center", ncols=2)


def plot_classification(axes: Axes) -> None:
    """Plot the disagreement of references on digits of known and of unknown classes."""
    tutorial = runpy.run_path(str(TUTORIALS / "classification.py"))
    scores, is_known = tutorial["scores"]["mutual information"], tutorial["is_known"]
    auroc = tutorial["aurocs"]["mutual information"]
    bins = np.geomspace(1e-4, 1, 25)
    for rows, color, label in (
        (is_known, BLUE, "digits 0 to 7, as in training"),
        (~is_known, ORANGE, "digits 8 and 9, unseen"),
    ):
        values = np.clip(scores[rows], bins[0], bins[-1])
        axes.hist(values, bins, weights=np.full(len(values), 1 / len(values)), color=color, alpha=0.6, label=label)
    axes.set(
        title=f"Digits: uncertain about unseen classes (AUROC {auroc:.2f})",
        xlabel="mutual information over references, nats",
        ylabel="share of test images",
        xscale="log",
    )
    axes.legend(loc="upper left")


if __name__ == "__main__":
    main(sys.argv[1])
