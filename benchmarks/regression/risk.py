"""Compare PAGER's risk regimes with the spread over references alone, on functions of one input.

    python -m benchmarks.regression.risk --seeds 10 --json risk.json

A network is trained on 32 inputs from two intervals and evaluated at 200 points of a wider one; all training examples
are references of Score 1 and Score 2, the latter with an anchored autoencoder and without. Reports the errors of
`anchor_jax.pager.regime_errors`, and "auroc": how well one score (the spread, Score 1 or Score 2) detects the largest
fifth of the true errors. A seed determines inputs and networks.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from sklearn.metrics import roc_auc_score

from anchor_jax.cli import app
from anchor_jax.contrib import pager, regression
from anchor_jax.contrib.regression import Settings
from anchor_jax.core.errors import unknown
from benchmarks.regression import functions
from benchmarks.report import Result, report

JSON = app.define_path("json", None, "Result file.", what="a new file")
SEEDS = flags.DEFINE_integer("seeds", 10, "Seeds per function.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 1_500, "Training steps.", lower_bound=1)

HIDDEN, AUTOENCODER_HIDDEN, LEARNING_RATE = (128, 128), (64, 2, 64), 3e-3
NUM_TRAIN, NUM_TEST, NUM_REFERENCES = 32, 200, 20
LARGE = 0.8  # quantile of the errors above which they count as large


class Problem(NamedTuple):
    """A function, its two training intervals and its test interval."""

    function: Callable[[jax.Array], jax.Array]
    train: tuple[tuple[float, float], tuple[float, float]]
    test: tuple[float, float]


# the functions of one input in PAGER and Δ-UQ; the intervals of the sine are those of Δ-UQ, the others are our choice
PROBLEMS = {
    "square-with-pit": Problem(
        lambda x: x**2 - jnp.where((x >= 2.25) & (x <= 3.01), 20, 0), ((0.5, 2.2), (3.05, 4.5)), (0, 5)
    ),
    "sine": Problem(lambda x: jnp.sin(2 * jnp.pi * x), ((0, 0.5), (1.5, 2)), (-0.5, 2.5)),
    "ackley": Problem(lambda x: functions.ackley(x[:, None]), ((-3, -1), (0, 2)), (-5, 5)),
    "multi-optima": Problem(lambda x: functions.multi_optima(x[:, None]), ((-0.5, 0), (0.7, 1.2)), (-1, 2)),
}


CASE_NAMES = flags.DEFINE_list("cases", list(PROBLEMS), f"Comma-separated, of {', '.join(PROBLEMS)}.")


def main() -> None:
    """Evaluate every function."""
    for case in CASE_NAMES.value:
        if case not in PROBLEMS:
            raise unknown("case", case, PROBLEMS)
    results = [
        Result(case, method, metric, "1", [float(value) for value in values])
        for case in CASE_NAMES.value
        for (method, metric), values in measure(PROBLEMS[case]).items()
    ]
    facts = {"seeds": SEEDS.value, "training_inputs": NUM_TRAIN, "test_points": NUM_TEST, "references": NUM_REFERENCES}
    report("Risk", facts, results, JSON.value)


def measure(problem: Problem) -> dict[tuple[str, str], list[float]]:
    """Return a number per seed, by method and metric; metrics of an empty regime are missing."""
    numbers: dict[tuple[str, str], list[float]] = {}
    for seed in range(SEEDS.value):
        scores, errors = train_and_evaluate(problem, seed)
        is_large = errors > jnp.quantile(errors, LARGE)
        for method, score in scores.items():
            regimes = quarters(score) if method == "spread" else pager.risk_regimes(scores["spread"], score)
            regime_errors = pager.regime_errors(regimes, errors)._asdict()
            for metric, value in {**regime_errors, "auroc": roc_auc_score(is_large, score)}.items():
                if np.isfinite(value):
                    numbers.setdefault((method, metric), []).append(float(value))
    return numbers


def train_and_evaluate(problem: Problem, seed: int) -> tuple[dict[str, jax.Array], jax.Array]:
    """Train the networks; return the scores of the test points by method, and their errors, `[N]` each."""
    rng, grid = np.random.default_rng(seed), jnp.linspace(*problem.test, NUM_TEST)
    x = jnp.concatenate([jnp.asarray(rng.uniform(*interval, NUM_TRAIN // 2)) for interval in problem.train])
    settings = Settings(noise=False, hidden=HIDDEN, steps=STEPS.value, learning_rate=LEARNING_RATE)
    fit_key, autoencoder_key, predict_key = jax.random.split(jax.random.key(seed), 3)
    inputs, train_inputs = grid[:, None], x[:, None]
    network = regression.fit(fit_key, train_inputs, problem.function(x), settings)
    autoencoder = regression.fit(
        autoencoder_key, train_inputs, train_inputs, dataclasses.replace(settings, hidden=AUTOENCODER_HIDDEN)
    )
    predicted = regression.predict(predict_key, network, inputs, num=NUM_REFERENCES)
    assert predicted.epistemic is not None
    scores = {
        "spread": jnp.asarray(predicted.epistemic),
        "score-1": regression.nonconformity(network, inputs),
        "score-2": regression.nonconformity(network, inputs, refined=True, autoencoder=autoencoder),
        "score-2-free": regression.nonconformity(network, inputs, refined=True),
    }
    return scores, jnp.abs(predicted.mean - problem.function(grid))


def quarters(scores: jax.Array) -> jax.Array:
    """Return a regime for each quarter of the scores, from ID for the smallest to HIGH for the largest."""
    return jnp.digitize(scores, jnp.quantile(scores, jnp.array([0.25, 0.5, 0.75])))


if __name__ == "__main__":
    app.run(main)
