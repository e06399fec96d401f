"""Regression with uncertainty away from the data: the one-dimensional example of Δ-UQ (arXiv 2207.07235).

    python docs/tutorials/regression.py FOLDER

A single network is trained on samples of a sine from two intervals, [0, 0.5] and [1.5, 2], and evaluated from -0.5 to
2.5 with 20 of its training inputs as references. The references agree where there is data, and disagree between and
beyond the intervals. As in the released code, the network is anchored on Fourier features of the input. The plot is
written to FOLDER/regression.png.
"""

import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from anchor_jax import regression

SETTINGS = regression.Settings(noise=False, hidden=(128, 128), steps=1_000, learning_rate=3e-3)
FREQUENCIES = np.random.default_rng(0).uniform(-0.5, 0.5, (32, 1))  # periods per unit


def main(folder: str) -> dict[str, float]:
    """Train, predict and plot; return the mean spread where there is data, between the intervals, and beyond them."""
    x, y = examples()
    network = regression.fit(jax.random.key(0), features(x), y, SETTINGS)
    grid = np.linspace(-0.5, 2.5, 301)
    prediction = regression.predict(jax.random.key(1), network, features(grid), num=20)
    plot(grid, prediction, x, y, Path(folder) / "regression.png")
    spreads = mean_spread_by_region(grid, np.asarray(prediction.epistemic))
    for region, spread in spreads.items():
        print(f"{region}: mean spread over references {spread:.3f}")
    return spreads


def examples() -> tuple[np.ndarray, np.ndarray]:
    """Return 32 noise-free samples of the sine, from two intervals."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(0, 0.5, 16), rng.uniform(1.5, 2, 16)])
    return x, np.sin(2 * np.pi * x)


def features(x: np.ndarray) -> jax.Array:
    """Return Fourier features of the inputs; the network is anchored on these."""
    return regression.fourier_features(FREQUENCIES, x[:, None])


def mean_spread_by_region(grid: np.ndarray, spread: np.ndarray) -> dict[str, float]:
    """Return the mean spread in each region of the grid."""
    inside = ((grid >= 0) & (grid <= 0.5)) | ((grid >= 1.5) & (grid <= 2))
    between = (grid > 0.5) & (grid < 1.5)
    regions = {"inside the intervals": inside, "between them": between, "beyond them": ~inside & ~between}
    return {region: float(spread[rows].mean()) for region, rows in regions.items()}


def plot(grid: np.ndarray, prediction: regression.Regression, x: np.ndarray, y: np.ndarray, path: Path) -> None:
    """Plot the mean over references ± 2 standard deviations, together with the sine."""
    figure, axes = plt.subplots(figsize=(9.6, 3.6), layout="constrained")
    mean, spread = np.asarray(prediction.mean), np.asarray(prediction.epistemic)
    label = "±2 std over references"
    axes.fill_between(grid, mean - 2 * spread, mean + 2 * spread, color="C0", alpha=0.2, label=label)
    axes.plot(grid, mean, color="C0", label="mean over references")
    axes.plot(grid, np.sin(2 * np.pi * grid), "--", color="gray", linewidth=1, label="target function")
    axes.plot(x, y, "o", color="black", markersize=4, label="training examples")
    axes.set(xlabel="x", ylabel="y", ylim=(-3, 3))
    figure.legend(loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main(sys.argv[1])
