"""Maximize an expensive function by expected improvement, with the uncertainty of an anchored network.

    python docs/tutorials/optimisation.py FOLDER

The function sin x · cos 5x · cos 22x has many local maxima on [-1, 2]. It is evaluated at ten random points, and then
sequentially where the expected improvement is largest: where the network's mean is high or its references disagree. At
each step, an anchored network is retrained on all points so far. This search finds the global maximum; not every search
does (benchmarks/optimisation.py runs twenty). The plot is written to FOLDER/optimisation.png. The script takes seconds.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from anchor_jax.regression import Regression, Settings

import anchor_jax as aj
from anchor_jax import regression
from anchor_jax.reporting.style import FULL, GREY, INK, RIGHT, WRONG, new_figure

SETTINGS = Settings(noise=False, hidden=(128, 128), steps=400, learning_rate=3e-3)
NUM_FIRST, NUM_STEPS = 10, 20
GRID = np.linspace(-1, 2, 601)
FREQUENCIES = np.random.default_rng(1).uniform(-4, 4, (32, 1))  # periods per unit, as fast as the function


def function(x: np.ndarray) -> np.ndarray:
    """Evaluate the objective."""
    return np.sin(x) * np.cos(5 * x) * np.cos(22 * x)


def main(folder: str) -> dict[str, float]:
    """Run the search and plot it; return the best initial value, the best value found, and the global maximum."""
    x = np.random.default_rng(0).uniform(-1, 2, NUM_FIRST)
    for step in range(NUM_STEPS):
        asked = believed(x, step)
        improvement = aj.expected_improvement(asked.mean, asked.std, float(function(x).max()))
        x = np.append(x, GRID[np.argmax(improvement)])
    draw(believed(x, NUM_STEPS), x, Path(folder) / "optimisation.png")
    values = function(x)
    found = {"at first": values[:NUM_FIRST].max(), "found": values.max(), "largest": function(GRID).max()}
    for name, value in found.items():
        print(f"{name}: {value:.3f}")
    return {name: float(value) for name, value in found.items()}


def believed(x: np.ndarray, step: int) -> Regression:
    """Train a network on the points so far and predict on the grid."""
    # repeat the points up to a fixed number of rows, so that all steps share one compiled program
    rows = np.resize(x, NUM_FIRST + NUM_STEPS)
    fit_key, predict_key = jax.random.split(jax.random.key(step))
    network = regression.fit(fit_key, features(rows), function(rows), SETTINGS)
    return regression.predict(predict_key, network, features(GRID), num=10)


def features(x: np.ndarray) -> jax.Array:
    """Return Fourier features; the network is anchored on these."""
    return regression.fourier_features(FREQUENCIES, x[:, None])


def draw(asked: Regression, x: np.ndarray, path: Path) -> None:
    """Plot the final prediction and the evaluated points."""
    with new_figure(path, FULL, 3.6) as figure:
        axes = figure.subplots()
        mean, spread = np.asarray(asked.mean), np.asarray(asked.std)
        axes.fill_between(GRID, mean - 2 * spread, mean + 2 * spread, color=RIGHT, alpha=0.2, label="±2 std")
        axes.plot(GRID, mean, color=RIGHT, label="mean over references")
        axes.plot(GRID, function(GRID), "--", color=GREY, linewidth=1, label="objective")
        axes.plot(x[:NUM_FIRST], function(x[:NUM_FIRST]), "o", color=INK, markersize=4, label="initial points")
        axes.plot(x[NUM_FIRST:], function(x[NUM_FIRST:]), "o", color=WRONG, markersize=4, label="chosen points")
        axes.set(xlabel="x", ylabel="y")
        figure.legend(loc="outside lower center", ncols=5)


if __name__ == "__main__":
    main(sys.argv[1])
