"""Where a regression fails: risk regimes of PAGER beside the spread alone, on functions of one input.

    python benchmarks/risk.py --json docs/results/risk_cpu.json

A network is trained on 32 inputs of two pieces of a line, and asked over more than they span, at 200 points. Regimes
are those of three ways: "spread" knows uncertainty alone (ID up to its limit, HIGH above), "score-1" and "score-2" are
`anchor_jax.contrib.pager` with one score of reverse anchoring, which alone decides what is trusted, and the spread, which
divides both sides once more. Limits are the 95 % quantiles of
the training inputs. Measured is what `pager.regime_errors` gives; and "auroc", how well the largest fifth of the true
errors is told from the others by one number: the spread, Score 1 or Score 2. What asks for a regime that is empty is
absent, as are both confusions of the spread, which knows two regimes. A seed is that of inputs and network.

The functions are those of one input in PAGER and Δ-UQ; the pieces of the sine are those of Δ-UQ, the others are chosen
here.
"""

from collections.abc import Callable
from typing import NamedTuple

import functions
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from sklearn.metrics import roc_auc_score
from timing import Result, report

from anchor_jax.cli import app
from anchor_jax.contrib import pager, regression
from anchor_jax.contrib.pager import Regime
from anchor_jax.contrib.regression import Settings

JSON = flags.DEFINE_string("json", None, "Where the numbers go.")
SEEDS = flags.DEFINE_integer("seeds", 10, "Seeds of each function.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 1_500, "Steps of training.", lower_bound=1)

HIDDEN, LEARNING_RATE = (128, 128), 3e-3
NUM_SEEN, NUM_ASKED, NUM_REFERENCES = 32, 200, 20
WITHIN, LARGE = 0.95, 0.8  # quantiles: of the training inputs below a limit, of the errors that are not large


class Problem(NamedTuple):
    """A function, where it is seen, and where it is asked."""

    function: Callable[[jax.Array], jax.Array]
    pieces: tuple[tuple[float, float], tuple[float, float]]
    asked: tuple[float, float]


class Scores(NamedTuple):
    """What is known of inputs without their targets."""

    mean: jax.Array
    spread: jax.Array  # of forward anchoring
    first: jax.Array  # Score 1 of reverse anchoring
    second: jax.Array  # Score 2


PROBLEMS = {
    "square-with-pit": Problem(
        lambda x: x**2 - jnp.where((x >= 2.25) & (x <= 3.01), 20, 0), ((0.5, 2.2), (3.05, 4.5)), (0, 5)
    ),
    "sine": Problem(lambda x: jnp.sin(2 * jnp.pi * x), ((0, 0.5), (1.5, 2)), (-0.5, 2.5)),
    "ackley": Problem(lambda x: functions.ackley(x[:, None]), ((-3, -1), (0, 2)), (-5, 5)),
    "multi-optima": Problem(lambda x: functions.multi_optima(x[:, None]), ((-0.5, 0), (0.7, 1.2)), (-1, 2)),
}


def main() -> None:
    """Measure, print a table, write the file."""
    results = [
        Result(case, way, metric, "1", [float(value) for value in values])
        for case, problem in PROBLEMS.items()
        for (way, metric), values in measured(problem).items()
    ]
    facts = {"seeds": SEEDS.value, "seen": NUM_SEEN, "asked": NUM_ASKED, "references": NUM_REFERENCES}
    report("Risk", facts, results, JSON.value)


def measured(problem: Problem) -> dict[tuple[str, str], list[float]]:
    """Way and metric -> a number for each seed in which it has one."""
    numbers: dict[tuple[str, str], list[float]] = {}
    for seed in range(SEEDS.value):
        known, asked, errors = trained_and_asked(problem, seed)
        is_large = errors > jnp.quantile(errors, LARGE)
        scores = {"spread": asked.spread, "score-1": asked.first, "score-2": asked.second}
        for way, regimes in regimes_of(known, asked).items():
            of_regimes = pager.regime_errors(regimes, errors)._asdict()
            for metric, value in {**of_regimes, "auroc": roc_auc_score(is_large, scores[way])}.items():
                if np.isfinite(value):
                    numbers.setdefault((way, metric), []).append(float(value))
    return numbers


def trained_and_asked(problem: Problem, seed: int) -> tuple[Scores, Scores, jax.Array]:
    """Scores of the training inputs and of those asked, and the true errors of these."""
    rng, grid = np.random.default_rng(seed), jnp.linspace(*problem.asked, NUM_ASKED)
    x = jnp.concatenate([jnp.asarray(rng.uniform(*piece, NUM_SEEN // 2)) for piece in problem.pieces])
    settings = Settings(noise=False, hidden=HIDDEN, steps=STEPS.value, learning_rate=LEARNING_RATE)
    fit_key, predict_key = jax.random.split(jax.random.key(seed))
    network = regression.fit(fit_key, x[:, None], problem.function(x), settings)

    def scores_of(inputs):
        predicted = regression.predict(predict_key, network, inputs[:, None], num=NUM_REFERENCES)
        assert predicted.epistemic is not None
        strange = [regression.nonconformity(network, inputs[:, None], refined=refined) for refined in (False, True)]
        return Scores(predicted.mean, predicted.epistemic, *strange)

    asked = scores_of(grid)
    return scores_of(x), asked, jnp.abs(asked.mean - problem.function(grid))


def regimes_of(known: Scores, asked: Scores) -> dict[str, jax.Array]:
    """The regime of each input asked, by each way."""
    spread, first, second = (float(jnp.quantile(score, WITHIN)) for score in known[1:])
    return {
        "spread": jnp.where(asked.spread > spread, Regime.HIGH, Regime.ID),
        "score-1": pager.risk_regimes(asked.spread, asked.first, spread, first),
        "score-2": pager.risk_regimes(asked.spread, asked.second, spread, second),
    }


if __name__ == "__main__":
    app.run(main)
