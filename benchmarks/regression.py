"""Regression on vectors: an anchored network beside MC dropout and deep ensembles, at equal cost.

    python benchmarks/regression.py --json docs/results/regression_cpu.json

Every network is the same multi-layer perceptron with a Gaussian likelihood, trained by `anchor_jax.contrib.regression.fit`; an
anchored one has twice the inputs. Cost is counted in passes of one example through one network: in training steps times
batch, in inference how often each input is asked. Against 1,000 steps and 5 passes (5 references, or 5 draws of what is
dropped) stand two ensembles of 5: "ensemble-equal-training" has 200 steps for each member, and costs the same in both
ways; "ensemble-equal-inference" has 1,000 for each, five times the training. "single" is a plain network, asked once.

Every method has, for each case, its own weight decay out of the same five, by the NLL on a fifth of the training
examples, the mean over seeds; it is then trained on all of them. A seed is that of a split of the data, or of the data
themselves.

Cases have 300 examples of 10 features to train on, and 142 to test: "diabetes" (Efron et al. 2004), "friedman1"
(Friedman 1991, noise 1), and "friedman1-beyond", which is trained where the fourth feature is below 0.7, and tested
above, where the target goes on rising. Targets are standardised by the training examples: errors are in units of their
deviation, likelihoods in nats of it.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from sklearn.datasets import load_diabetes, make_friedman1
from timing import Result, report

from anchor_jax import metrics
from anchor_jax.cli import app
from anchor_jax.contrib import regression as regressions
from anchor_jax.contrib.regression import Regression, Settings
from anchor_jax.core import checks

JSON = flags.DEFINE_string("json", None, "Where the numbers go.")
SEEDS = flags.DEFINE_integer("seeds", 10, "Seeds of each case.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 1_000, "Steps of training, of all members together or of each.", lower_bound=5)
METHODS = flags.DEFINE_list("methods", None, "Those compared, with commas between; all by default.")

MEMBERS = PASSES = 5
NUM_TRAIN, NUM_TEST = 300, 142
WEIGHT_DECAYS = (0.0, 1.0, 3.0, 10.0, 30.0)
LEVEL = np.array([0.9], np.float32)


class Examples(NamedTuple):
    """Training and test sets of all cases and seeds."""

    x: jax.Array  # float32 [S, N, C]
    y: jax.Array  # float32 [S, N]
    x_test: jax.Array  # float32 [S, T, C]
    y_test: jax.Array  # float32 [S, T]


class Method(NamedTuple):
    """What is trained, and how often it is asked."""

    settings: Settings
    members: int = 1
    passes: int = PASSES  # of each member


def methods(steps: int) -> dict[str, Method]:
    """Those compared."""
    anchored, plain = Settings(steps=steps), Settings(steps=steps, references=False)
    masked, dropout = replace(anchored, mask_prob=0.25), replace(plain, dropout=0.1)
    return {
        "single": Method(plain, passes=1),
        "anchored": Method(anchored),
        "anchored-masked": Method(masked),
        "dropout": Method(dropout),
        "ensemble-equal-training": Method(replace(plain, steps=steps // MEMBERS), MEMBERS, 1),
        "ensemble-equal-inference": Method(plain, MEMBERS, 1),
        "anchored-50": Method(anchored, passes=50),
        "dropout-50": Method(dropout, passes=50),
    }


def main() -> None:
    """Measure, print a table, write the file."""
    drawn = [draw(seed) for draw in CASES.values() for seed in range(SEEDS.value)]
    examples = Examples(*map(jnp.stack, zip(*drawn, strict=True)))
    results, costs = [], {}
    known = methods(STEPS.value)
    for name in METHODS.value or known:
        checks.known("method", name, known)
        method = known[name]
        decays = weight_decays(method, examples)
        predictions = {decay: prediction(changed(method, decay), examples) for decay in set(decays.values())}
        for case, decay in decays.items():
            rows, predicted = rows_of(case), predictions[decay]
            results += results_of(case, name, predicted.mean[rows], predicted.std[rows], examples.y_test[rows])
        costs[name] = {
            "training_passes": method.members * method.settings.steps * method.settings.batch_size,
            "inference_passes": method.members * method.passes,
            "weight_decay": decays,
        }
    results.sort(key=lambda result: list(CASES).index(result.case))
    facts = {"seeds": SEEDS.value, "training_examples": NUM_TRAIN, "test_examples": NUM_TEST, "costs": costs}
    report("Regression", facts, results, JSON.value)


def diabetes(seed: int) -> Examples:
    """A random split of the 442 patients of scikit-learn."""
    x, y = map(np.asarray, load_diabetes(return_X_y=True))
    order = np.random.default_rng(seed).permutation(len(x))
    return divided(x[order], y[order])


def friedman1(seed: int) -> Examples:
    """Examples of their own for each seed."""
    return divided(*make_friedman1(NUM_TRAIN + NUM_TEST, n_features=10, noise=1.0, random_state=seed))


def friedman1_beyond(seed: int) -> Examples:
    """As `friedman1`, tested where no example was."""
    x, y = make_friedman1(3 * (NUM_TRAIN + NUM_TEST), n_features=10, noise=1.0, random_state=seed)
    below, above = np.flatnonzero(x[:, 3] < 0.7)[:NUM_TRAIN], np.flatnonzero(x[:, 3] >= 0.7)[:NUM_TEST]
    rows = np.concatenate([below, above])
    return divided(x[rows], y[rows])


CASES = {"diabetes": diabetes, "friedman1": friedman1, "friedman1-beyond": friedman1_beyond}


def divided(x: np.ndarray, y: np.ndarray) -> Examples:
    """The first examples are trained on, by which the targets are standardised."""
    standardised = (y - y[:NUM_TRAIN].mean()) / y[:NUM_TRAIN].std()
    inputs, targets = jnp.asarray(x, jnp.float32), jnp.asarray(standardised, jnp.float32)
    return Examples(inputs[:NUM_TRAIN], targets[:NUM_TRAIN], inputs[NUM_TRAIN:], targets[NUM_TRAIN:])


def rows_of(case: str) -> slice:
    """Where the seeds of a case are among all of them."""
    place = list(CASES).index(case)
    return slice(place * SEEDS.value, (place + 1) * SEEDS.value)


def weight_decays(method: Method, examples: Examples) -> dict[str, float]:
    """For each case the weight decay that serves the method best, judged without the test examples of its seed."""
    num = NUM_TRAIN * 4 // 5
    parts = Examples(examples.x[:, :num], examples.y[:, :num], examples.x[:, num:], examples.y[:, num:])
    predictions = {decay: prediction(changed(method, decay), parts) for decay in WEIGHT_DECAYS}

    def nll(case, decay):
        rows, predicted = rows_of(case), predictions[decay]
        return float(metrics.gaussian_nll(predicted.mean[rows], predicted.std[rows], parts.y_test[rows]))

    return {case: min(WEIGHT_DECAYS, key=partial(nll, case)) for case in CASES}


def changed(method: Method, decay: float) -> Method:
    """The method with another weight decay."""
    return method._replace(settings=replace(method.settings, weight_decay=decay))


def prediction(method: Method, examples: Examples) -> Regression:
    """What a method says of the test examples, `[S, T]`."""
    members = [member(method, seed, examples) for seed in range(method.members)]
    if method.members == 1:
        return members[0]
    return regressions.combine_members(jax.tree.map(lambda *parts: jnp.stack(parts), *members))


def member(method: Method, seed: int, examples: Examples) -> Regression:
    """What one network of a method says."""
    fit_keys, predict_keys = (jax.random.split(key, len(examples.x)) for key in jax.random.split(jax.random.key(seed)))
    fit = partial(regressions.fit, settings=method.settings)
    networks = jax.vmap(fit)(fit_keys, examples.x, examples.y)
    return jax.vmap(partial(regressions.predict, num=method.passes))(predict_keys, networks, examples.x_test)


def results_of(case: str, name: str, mean: jax.Array, std: jax.Array, targets: jax.Array) -> list[Result]:
    """Every metric, a sample for each seed."""
    given = mean, std, targets
    numbers = {
        ("rmse", "std"): jax.vmap(metrics.rmse)(mean, targets),
        ("nll", "nats"): jax.vmap(metrics.gaussian_nll)(*given),
        ("coverage_90", "1"): jax.vmap(partial(metrics.interval_coverage, levels=LEVEL))(*given)[:, 0],
        ("coverage_error", "1"): jax.vmap(metrics.coverage_error)(*given),
        ("spread", "std"): std.mean(axis=1),
    }
    return [
        Result(case, name, metric, unit, [float(value) for value in values])
        for (metric, unit), values in numbers.items()
    ]


if __name__ == "__main__":
    app.run(main)
