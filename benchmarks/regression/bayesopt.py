"""Compare Bayesian optimization with an anchored network, with a Gaussian process, and random search.

    python -m benchmarks.regression.bayesopt --seeds 20 --json bayesopt.json

All methods start from the same random points. At each step they evaluate the function at the candidate with the largest
expected improvement, among the same random candidates. "regret" is the maximum of the function minus the best value so
far, after half of the steps ("regret_halfway") and after all. A seed determines points, candidates, Fourier frequencies
and networks.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

import anchor_jax as aj
from anchor_jax.cli import app
from anchor_jax.contrib import regression
from anchor_jax.contrib.regression import Settings
from benchmarks.regression import functions
from benchmarks.report import Result, report

JSON = app.define_path("json", None, "Result file.", what="a new file")
SEEDS = flags.DEFINE_integer("seeds", 20, "Seeds per function.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 20, "Points to choose after the initial ones.", lower_bound=2)
CANDIDATES = flags.DEFINE_integer("candidates", 1_000, "Random candidates per step.", lower_bound=2)

SETTINGS = Settings(noise=False, hidden=(128, 128), steps=400, learning_rate=3e-3)
NUM_FREQUENCIES, NUM_REFERENCES, NUM_INITIAL = 32, 10, 10


class Problem(NamedTuple):
    """A function to maximize in a cube."""

    function: Callable[[jax.Array], jax.Array]  # [B, C] -> [B]
    num_inputs: int
    low: float
    high: float
    maximum: float
    frequency: float  # the highest Fourier frequency, in periods per unit


PROBLEMS = {
    # about the highest frequency of the function
    "multi-optima": Problem(functions.multi_optima, 1, -1, 2, 0.949895, 4.0),
    # the best of 0.1, 0.25 and 0.5 on 6 other seeds
    "ackley": Problem(functions.ackley, 2, -5, 5, 0.0, 0.1),
}

# (points [S, N, C], values [S, N], candidates [S, M, C], step) -> index of the next candidate [S], for S seeds
Acquisition = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


def main() -> None:
    """Run all methods on all functions."""
    results = []
    for case, problem in PROBLEMS.items():
        for name, acquisition in acquisitions(problem).items():
            best = best_values(problem, acquisition)
            for metric, step in (("regret_halfway", STEPS.value // 2), ("regret", STEPS.value)):
                regrets = np.maximum(problem.maximum - best[:, step], 0)  # rounding can make them negative
                results.append(Result(case, name, metric, "1", [float(regret) for regret in regrets]))
    facts = {"seeds": SEEDS.value, "first_points": NUM_INITIAL, "steps": STEPS.value, "candidates": CANDIDATES.value}
    report("Bayesian optimization", facts, results, JSON.value)


def acquisitions(problem: Problem) -> dict[str, Acquisition]:
    """Return the methods to compare."""
    return {
        "anchored": partial(choose_by_network, problem),
        "gaussian-process": choose_by_gaussian_process,
        "random": choose_first,
    }


def best_values(problem: Problem, acquisition: Acquisition) -> np.ndarray:
    """Return the best value after each number of steps, `[S, steps + 1]`."""
    generators = [np.random.default_rng(seed) for seed in range(SEEDS.value)]

    def draw(num):
        return np.stack([rng.uniform(problem.low, problem.high, (num, problem.num_inputs)) for rng in generators])

    points = draw(NUM_INITIAL)
    values = evaluate(problem, points)
    for step in range(STEPS.value):
        candidates = draw(CANDIDATES.value)
        rows = acquisition(points, values, candidates, step)
        chosen = np.take_along_axis(candidates, rows[:, None, None], axis=1)
        points = np.concatenate([points, chosen], axis=1)
        values = np.concatenate([values, evaluate(problem, chosen)], axis=1)
    return np.maximum.accumulate(values, axis=1)[:, NUM_INITIAL - 1 :]


def evaluate(problem: Problem, points: np.ndarray) -> np.ndarray:
    """Return the function at points of all seeds, `[S, N, C]` -> `[S, N]`."""
    return np.asarray(jax.vmap(problem.function)(jnp.asarray(points)))


def choose_by_network(
    problem: Problem, points: np.ndarray, values: np.ndarray, candidates: np.ndarray, step: int
) -> np.ndarray:
    """Choose by the expected improvement of an anchored network; its spread is over references.

    The network is trained from scratch on Fourier features at each step. The points are repeated up to the final number
    of points, so that all steps share one compiled program; some therefore occur once more often than others, and a
    point may be a reference twice.
    """
    rows = np.arange(NUM_INITIAL + STEPS.value) % points.shape[1]
    keys = jax.vmap(jax.random.split)(jax.random.split(jax.random.key(step), len(points)))
    frequencies = jnp.stack([draw_frequencies(problem, seed) for seed in range(len(points))])
    features = jax.vmap(regression.fourier_features)
    networks = jax.vmap(partial(regression.fit, settings=SETTINGS))(
        keys[:, 0], features(frequencies, jnp.asarray(points[:, rows])), jnp.asarray(values[:, rows])
    )
    predict = jax.vmap(partial(regression.predict, num=NUM_REFERENCES))
    prediction = predict(keys[:, 1], networks, features(frequencies, jnp.asarray(candidates)))
    improvement = jax.vmap(aj.expected_improvement)(prediction.mean, prediction.std, values.max(axis=1))
    return np.asarray(improvement).argmax(axis=1)


def draw_frequencies(problem: Problem, seed: int) -> jax.Array:
    """Return the frequencies of the Fourier features, `[F, C]`."""
    shape, highest = (NUM_FREQUENCIES, problem.num_inputs), problem.frequency
    return jnp.asarray(np.random.default_rng((seed, 1)).uniform(-highest, highest, shape))


def choose_by_gaussian_process(points: np.ndarray, values: np.ndarray, candidates: np.ndarray, step: int) -> np.ndarray:
    """Choose by the expected improvement of scikit-learn's Gaussian process.

    The kernel is Matérn with ν = 2.5; at each step, its length scale and amplitude maximize the likelihood.
    """
    del step

    def choose(x, y, candidates):
        process = GaussianProcessRegressor(ConstantKernel() * Matern(nu=2.5), alpha=1e-6, normalize_y=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a length scale at the end of its range
            predicted: Any = process.fit(x, y).predict(candidates, return_std=True)
        mean, std = map(jnp.asarray, predicted)
        return int(np.argmax(aj.expected_improvement(mean, std, float(y.max()))))

    return np.array([choose(*seed) for seed in zip(points, values, candidates, strict=True)])


def choose_first(points: np.ndarray, values: np.ndarray, candidates: np.ndarray, step: int) -> np.ndarray:
    """Choose the first candidate, which is random."""
    del values, candidates, step
    return np.zeros(len(points), int)


if __name__ == "__main__":
    app.run(main)
