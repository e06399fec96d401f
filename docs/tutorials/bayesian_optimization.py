"""Maximize an expensive function by expected improvement, with the uncertainty of an anchored network.

    python docs/tutorials/bayesian_optimization.py FOLDER

The function sin x · cos 5x · cos 22x has many local maxima on [-1, 2]. It is evaluated at ten random points, and then
sequentially where the expected improvement is largest: where the network's mean is high or its references disagree. At
each step, an anchored network is trained from scratch on all points so far. This search finds the global maximum; not
every search does (benchmarks/regression/bayesopt.py runs twenty). The plot is written to
FOLDER/bayesian_optimization.png. The script takes seconds.
"""

import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import anchor_jax as aj
from anchor_jax import regression

SETTINGS = regression.Settings(noise=False, hidden=(128, 128), steps=400, learning_rate=3e-3)
NUM_INITIAL, NUM_STEPS = 10, 20
GRID = np.linspace(-1, 2, 601)
FREQUENCIES = np.random.default_rng(1).uniform(-4, 4, (32, 1))  # periods per unit, as fast as the function


def function(x: np.ndarray) -> np.ndarray:
    """Evaluate the objective."""
    return np.sin(x) * np.cos(5 * x) * np.cos(22 * x)


def main(folder: str) -> dict[str, float]:
    """Run the search and plot it; return the best initial value, the best value, and the global maximum."""
    x = np.random.default_rng(0).uniform(-1, 2, NUM_INITIAL)
    for step in range(NUM_STEPS):
        prediction = fit_and_predict(x, step)
        improvement = aj.expected_improvement(prediction.mean, prediction.std, float(function(x).max()))
        x = np.append(x, GRID[np.argmax(improvement)])
    plot(fit_and_predict(x, NUM_STEPS), x, Path(folder) / "bayesian_optimization.png")
    values = function(x)
    maxima = {"initial": values[:NUM_INITIAL].max(), "best": values.max(), "global maximum": function(GRID).max()}
    for name, value in maxima.items():
        print(f"{name}: {value:.3f}")
    return {name: float(value) for name, value in maxima.items()}


def fit_and_predict(x: np.ndarray, step: int) -> regression.Regression:
    """Train a network on the points so far and predict on the grid."""
    # repeat the points up to a fixed number of rows, so that all steps share one compiled program
    rows = np.resize(x, NUM_INITIAL + NUM_STEPS)
    fit_key, predict_key = jax.random.split(jax.random.key(step))
    network = regression.fit(fit_key, features(rows), function(rows), SETTINGS)
    return regression.predict(predict_key, network, features(GRID), num=10)


def features(x: np.ndarray) -> jax.Array:
    """Return Fourier features; the network is anchored on these."""
    return regression.fourier_features(FREQUENCIES, x[:, None])


def plot(prediction: regression.Regression, x: np.ndarray, path: Path) -> None:
    """Plot the final prediction and the evaluated points."""
    figure, axes = plt.subplots(figsize=(9.6, 3.6), layout="constrained")
    mean, std = np.asarray(prediction.mean), np.asarray(prediction.std)
    axes.fill_between(GRID, mean - 2 * std, mean + 2 * std, color="C0", alpha=0.2, label="±2 std")
    axes.plot(GRID, mean, color="C0", label="mean over references")
    axes.plot(GRID, function(GRID), "--", color="gray", linewidth=1, label="objective")
    axes.plot(x[:NUM_INITIAL], function(x[:NUM_INITIAL]), "o", color="black", markersize=4, label="initial points")
    axes.plot(x[NUM_INITIAL:], function(x[NUM_INITIAL:]), "o", color="C1", markersize=4, label="chosen points")
    axes.set(xlabel="x", ylabel="y")
    figure.legend(loc="outside lower center", ncols=5)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main(sys.argv[1])
