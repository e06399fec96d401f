"""Compare PAGER's risk regimes with the spread over references alone, on functions of one input.

    python -m benchmarks.regression.risk --seeds 10 --json risk.json

A network is trained on 32 inputs from two intervals and evaluated at 200 points of a wider one. Reports the errors of
`anchor_jax.pager.regime_errors`, and "auroc": how well one score (the spread, Score 1 or Score 2) detects the largest
fifth of the true errors. A seed determines inputs and network.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from sklearn.metrics import roc_auc_score

from anchor_jax.cli import app
from anchor_jax.contrib import pager, regression
from anchor_jax.contrib.pager import Regime
from anchor_jax.contrib.regression import Settings
from benchmarks.regression import functions
from benchmarks.report import Result, report

JSON = app.define_path("json", None, "Result file.", what="a new file")
SEEDS = flags.DEFINE_integer("seeds", 10, "Seeds per function.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 1_500, "Training steps.", lower_bound=1)

HIDDEN, LEARNING_RATE = (128, 128), 3e-3
NUM_TRAIN, NUM_TEST, NUM_REFERENCES = 32, 200, 20
WITHIN, LARGE = 0.95, 0.8  # quantiles: of the training scores, for the limits; of the errors, for "large"


class Problem(NamedTuple):
    """A function, its two training intervals and its test interval."""

    function: Callable[[jax.Array], jax.Array]
    train: tuple[tuple[float, float], tuple[float, float]]
    test: tuple[float, float]


class Scores(NamedTuple):
    """Predictions and scores, each `[N]`, computed without the targets."""

    mean: jax.Array
    spread: jax.Array  # of forward anchoring
    first: jax.Array  # Score 1 of reverse anchoring
    second: jax.Array  # Score 2


# the functions of one input in PAGER and Δ-UQ; the intervals of the sine are those of Δ-UQ, the others are our choice
PROBLEMS = {
    "square-with-pit": Problem(
        lambda x: x**2 - jnp.where((x >= 2.25) & (x <= 3.01), 20, 0), ((0.5, 2.2), (3.05, 4.5)), (0, 5)
    ),
    "sine": Problem(lambda x: jnp.sin(2 * jnp.pi * x), ((0, 0.5), (1.5, 2)), (-0.5, 2.5)),
    "ackley": Problem(lambda x: functions.ackley(x[:, None]), ((-3, -1), (0, 2)), (-5, 5)),
    "multi-optima": Problem(lambda x: functions.multi_optima(x[:, None]), ((-0.5, 0), (0.7, 1.2)), (-1, 2)),
}


def main() -> None:
    """Evaluate every function."""
    results = [
        Result(case, method, metric, "1", [float(value) for value in values])
        for case, problem in PROBLEMS.items()
        for (method, metric), values in measure(problem).items()
    ]
    facts = {"seeds": SEEDS.value, "training_inputs": NUM_TRAIN, "test_points": NUM_TEST, "references": NUM_REFERENCES}
    report("Risk", facts, results, JSON.value)


def measure(problem: Problem) -> dict[tuple[str, str], list[float]]:
    """Return a number per seed, by method and metric.

    Metrics of an empty regime are missing, and so are both confusions of the spread, which has two regimes only.
    """
    numbers: dict[tuple[str, str], list[float]] = {}
    for seed in range(SEEDS.value):
        train, test, errors = train_and_evaluate(problem, seed)
        is_large = errors > jnp.quantile(errors, LARGE)
        scores = {"spread": test.spread, "score-1": test.first, "score-2": test.second}
        for method, regimes in assign_regimes(train, test).items():
            regime_errors = pager.regime_errors(regimes, errors)._asdict()
            for metric, value in {**regime_errors, "auroc": roc_auc_score(is_large, scores[method])}.items():
                if np.isfinite(value):
                    numbers.setdefault((method, metric), []).append(float(value))
    return numbers


def train_and_evaluate(problem: Problem, seed: int) -> tuple[Scores, Scores, jax.Array]:
    """Train a network; return the scores of the training inputs and of the test points, and the errors at these."""
    rng, grid = np.random.default_rng(seed), jnp.linspace(*problem.test, NUM_TEST)
    x = jnp.concatenate([jnp.asarray(rng.uniform(*interval, NUM_TRAIN // 2)) for interval in problem.train])
    settings = Settings(noise=False, hidden=HIDDEN, steps=STEPS.value, learning_rate=LEARNING_RATE)
    fit_key, predict_key = jax.random.split(jax.random.key(seed))
    network = regression.fit(fit_key, x[:, None], problem.function(x), settings)

    def scores_of(inputs):
        predicted = regression.predict(predict_key, network, inputs[:, None], num=NUM_REFERENCES)
        assert predicted.epistemic is not None
        reverse = [regression.nonconformity(network, inputs[:, None], refined=refined) for refined in (False, True)]
        return Scores(predicted.mean, predicted.epistemic, *reverse)

    test = scores_of(grid)
    return scores_of(x), test, jnp.abs(test.mean - problem.function(grid))


def assign_regimes(train: Scores, test: Scores) -> dict[str, jax.Array]:
    """Return the regime of each test point, by method; limits are quantiles of the training scores.

    "spread" uses uncertainty alone: ID up to its limit, HIGH above. "score-1" and "score-2" are `anchor_jax.pager` with
    a score of reverse anchoring, which alone decides whether a prediction is trusted, and the spread, which divides
    both groups once more.
    """
    spread, first, second = (float(jnp.quantile(score, WITHIN)) for score in train[1:])
    return {
        "spread": jnp.where(test.spread > spread, Regime.HIGH, Regime.ID),
        "score-1": pager.risk_regimes(test.spread, test.first, spread, first),
        "score-2": pager.risk_regimes(test.spread, test.second, spread, second),
    }


if __name__ == "__main__":
    app.run(main)
