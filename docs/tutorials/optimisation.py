"""Maximising a function that is dear to ask, by the spread of an anchored network: expected improvement.

    python docs/tutorials/optimisation.py FOLDER

sin x · cos 5x · cos 22x has many maxima on [-1, 2]. It is asked at ten random points, then, one after the other, where
an anchored network, trained anew on all that is known, expects the largest improvement: where its mean is high, or its
references disagree. This search ends at the largest maximum, as not every one does (benchmarks/optimisation.py has
twenty). The picture is FOLDER/optimisation.png. It takes seconds.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from anchor_jax.evaluation.report.pictures import FULL, GREY, INK, RIGHT, WRONG, picture
from anchor_jax.regression import Regression, Settings

import anchor_jax as aj
from anchor_jax import regression

SETTINGS = Settings(noise=False, hidden=(128, 128), steps=400, learning_rate=3e-3)
NUM_FIRST, NUM_STEPS = 10, 20
GRID = np.linspace(-1, 2, 601)
FREQUENCIES = np.random.default_rng(1).uniform(-4, 4, (32, 1))  # periods a unit, as fast as the function


def function(x: np.ndarray) -> np.ndarray:
    """What is to be maximised."""
    return np.sin(x) * np.cos(5 * x) * np.cos(22 * x)


def main(folder: str) -> dict[str, float]:
    """Search, draw; gives the best value at first, the best found, and the largest there is."""
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
    """What a network trained on the points so far says of the grid."""
    # as many rows in every step, the points in turn, so that one compiled program serves all of them
    rows = np.resize(x, NUM_FIRST + NUM_STEPS)
    fit_key, predict_key = jax.random.split(jax.random.key(step))
    network = regression.fit(fit_key, features(rows), function(rows), SETTINGS)
    return regression.predict(predict_key, network, features(GRID), num=10)


def features(x: np.ndarray) -> jax.Array:
    """Sines and cosines, on which the network is anchored."""
    return regression.fourier_features(FREQUENCIES, x[:, None])


def draw(asked: Regression, x: np.ndarray, path: Path) -> None:
    """What is believed in the end, and where the function was asked."""
    with picture(path, FULL, 3.6) as figure:
        axes = figure.subplots()
        mean, spread = np.asarray(asked.mean), np.asarray(asked.std)
        axes.fill_between(GRID, mean - 2 * spread, mean + 2 * spread, color=RIGHT, alpha=0.2, label="2 deviations")
        axes.plot(GRID, mean, color=RIGHT, label="mean over references")
        axes.plot(GRID, function(GRID), "--", color=GREY, linewidth=1, label="the function")
        axes.plot(x[:NUM_FIRST], function(x[:NUM_FIRST]), "o", color=INK, markersize=4, label="first points")
        axes.plot(x[NUM_FIRST:], function(x[NUM_FIRST:]), "o", color=WRONG, markersize=4, label="chosen")
        axes.set(xlabel="x", ylabel="y")
        figure.legend(loc="outside lower center", ncols=5)


if __name__ == "__main__":
    main(sys.argv[1])
