"""Sequential optimisation by expected improvement: an anchored network beside a Gaussian process and random search.

    python benchmarks/optimisation.py --json docs/results/optimisation_cpu.json

To be maximised are `functions.multi_optima` on [-1, 2] and `functions.ackley` of two inputs on [-5, 5]. All begin with
the same random points; every step takes, of the same random candidates, the one with the largest expected improvement,
and asks the function there. "regret" is what the best value found so far falls short of the largest there is, after
half of the steps ("regret_halfway") and all.

The anchored network sees Fourier features, and is trained anew in every step, on as many rows as there are points in
the end: those that there are, in turn, so that one compiled program serves all steps. So some points are there once
more than others, and may be a reference twice. Its spread is that over references. The highest frequency of the first
function's features is about that of the function; for the other it is the best of 0.1, 0.25 and 0.5, on 6 other seeds.

The Gaussian process is scikit-learn's, with a Matérn kernel (ν = 2.5), whose length and amplitude are those of the
largest likelihood in every step. A seed is that of points, candidates, frequencies and networks.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import functions
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern
from timing import Result, report

import anchor_jax as aj
from anchor_jax.cli import app
from anchor_jax.contrib import regression
from anchor_jax.contrib.regression import Settings

JSON = flags.DEFINE_string("json", None, "Where the numbers go.")
SEEDS = flags.DEFINE_integer("seeds", 20, "Seeds of each function.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 20, "Points that are chosen.", lower_bound=2)
CANDIDATES = flags.DEFINE_integer("candidates", 1_000, "Random points that each is chosen from.", lower_bound=2)

SETTINGS = Settings(noise=False, hidden=(128, 128), steps=400, learning_rate=3e-3)
NUM_FREQUENCIES, NUM_REFERENCES, NUM_FIRST = 32, 10, 10


class Problem(NamedTuple):
    """A function to be maximised inside a cube."""

    function: Callable[[jax.Array], jax.Array]  # [B, C] -> [B]
    num_inputs: int
    low: float
    high: float
    largest: float
    frequency: float  # the highest of the Fourier features, periods a unit


PROBLEMS = {
    "multi-optima": Problem(functions.multi_optima, 1, -1, 2, 0.949895, 4.0),
    "ackley": Problem(functions.ackley, 2, -5, 5, 0.0, 0.1),
}

# how points and values, [S, N, C] and [S, N], make one of the candidates, [S, M, C], the next: its row, [S]
Choice = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


def main() -> None:
    """Measure, print a table, write the file."""
    results = []
    for case, problem in PROBLEMS.items():
        for name, choice in choices(problem).items():
            found = best_found(problem, choice)
            for metric, step in (("regret_halfway", STEPS.value // 2), ("regret", STEPS.value)):
                regrets = np.maximum(problem.largest - found[:, step], 0)  # below 0 by rounding
                results.append(Result(case, name, metric, "1", [float(regret) for regret in regrets]))
    facts = {"seeds": SEEDS.value, "first_points": NUM_FIRST, "steps": STEPS.value, "candidates": CANDIDATES.value}
    report("Optimisation", facts, results, JSON.value)


def choices(problem: Problem) -> dict[str, Choice]:
    """Those compared."""
    return {"anchored": partial(by_network, problem), "gaussian-process": by_process, "random": by_chance}


def best_found(problem: Problem, choice: Choice) -> np.ndarray:
    """The best value after each number of steps, `[S, steps + 1]`."""
    generators = [np.random.default_rng(seed) for seed in range(SEEDS.value)]

    def drawn(num):
        return np.stack([rng.uniform(problem.low, problem.high, (num, problem.num_inputs)) for rng in generators])

    points = drawn(NUM_FIRST)
    values = values_at(problem, points)
    for step in range(STEPS.value):
        candidates = drawn(CANDIDATES.value)
        rows = choice(points, values, candidates, step)
        chosen = np.take_along_axis(candidates, rows[:, None, None], axis=1)
        points = np.concatenate([points, chosen], axis=1)
        values = np.concatenate([values, values_at(problem, chosen)], axis=1)
    return np.maximum.accumulate(values, axis=1)[:, NUM_FIRST - 1 :]


def values_at(problem: Problem, points: np.ndarray) -> np.ndarray:
    """The function at points of all seeds, `[S, N, C]`: `[S, N]`."""
    return np.asarray(jax.vmap(problem.function)(jnp.asarray(points)))


def by_network(
    problem: Problem, points: np.ndarray, values: np.ndarray, candidates: np.ndarray, step: int
) -> np.ndarray:
    """The largest expected improvement to an anchored network."""
    rows = np.arange(NUM_FIRST + STEPS.value) % points.shape[1]
    keys = jax.vmap(jax.random.split)(jax.random.split(jax.random.key(step), len(points)))
    scaled = jnp.stack([frequencies(problem, seed) for seed in range(len(points))])
    features = jax.vmap(regression.fourier_features)
    networks = jax.vmap(partial(regression.fit, settings=SETTINGS))(
        keys[:, 0], features(scaled, jnp.asarray(points[:, rows])), jnp.asarray(values[:, rows])
    )
    predict = jax.vmap(partial(regression.predict, num=NUM_REFERENCES))
    asked = predict(keys[:, 1], networks, features(scaled, jnp.asarray(candidates)))
    improvement = jax.vmap(aj.expected_improvement)(asked.mean, asked.std, values.max(axis=1))
    return np.asarray(improvement).argmax(axis=1)


def frequencies(problem: Problem, seed: int) -> jax.Array:
    """Of the Fourier features, `[F, C]`."""
    shape, largest = (NUM_FREQUENCIES, problem.num_inputs), problem.frequency
    return jnp.asarray(np.random.default_rng((seed, 1)).uniform(-largest, largest, shape))


def by_process(points: np.ndarray, values: np.ndarray, candidates: np.ndarray, step: int) -> np.ndarray:
    """The largest expected improvement to a Gaussian process."""
    del step

    def of_one_seed(x, y, asked):
        process = GaussianProcessRegressor(ConstantKernel() * Matern(nu=2.5), alpha=1e-6, normalize_y=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of a length at the end of its range
            predicted: Any = process.fit(x, y).predict(asked, return_std=True)
        mean, std = map(jnp.asarray, predicted)
        return int(np.argmax(aj.expected_improvement(mean, std, float(y.max()))))

    return np.array([of_one_seed(*given) for given in zip(points, values, candidates, strict=True)])


def by_chance(points: np.ndarray, values: np.ndarray, candidates: np.ndarray, step: int) -> np.ndarray:
    """The first of the candidates, which are random."""
    del values, candidates, step
    return np.zeros(len(points), int)


if __name__ == "__main__":
    app.run(main)
