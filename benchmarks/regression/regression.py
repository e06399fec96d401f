"""Compare anchored networks, MC dropout and deep ensembles in regression on vectors, at equal cost.

    python -m benchmarks.regression.regression --seeds 10 --json regression.json

All networks are the same multi-layer perceptron with a Gaussian likelihood. The cost is the number of passes of one
example through one network: training steps times batch size, and in inference the passes per input. Each method's
weight decay is selected on a fifth of the training examples. A seed is a split of the data, or a sample of it.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from sklearn.datasets import load_diabetes, make_friedman1

from anchor_jax import metrics
from anchor_jax.cli import app
from anchor_jax.contrib import regression
from anchor_jax.contrib.regression import Regression, Settings
from anchor_jax.core import checks
from benchmarks.report import Result, report

JSON = app.define_path("json", None, "Result file.", what="a new file")
SEEDS = flags.DEFINE_integer("seeds", 10, "Seeds per case.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 1_000, "Training steps of a network, or of all members.", lower_bound=5)
METHODS = flags.DEFINE_list("methods", None, "Comma-separated names; all by default.")

MEMBERS = PASSES = 5
NUM_TRAIN, NUM_TEST = 300, 142
WEIGHT_DECAYS = (0.0, 1.0, 3.0, 10.0, 30.0)
LEVEL = np.array([0.9], np.float32)


class Examples(NamedTuple):
    """Training and test sets of S cases and seeds."""

    x: jax.Array  # float32 [S, N, C]
    y: jax.Array  # float32 [S, N]
    x_test: jax.Array  # float32 [S, T, C]
    y_test: jax.Array  # float32 [S, T]


class Method(NamedTuple):
    """Settings of training and prediction."""

    settings: Settings
    members: int = 1
    passes: int = PASSES  # of each member, per input


def methods(steps: int) -> dict[str, Method]:
    """Return the methods to compare.

    "single" is a plain network with one pass. An anchored network, with twice the inputs, takes 5 passes (5
    references), and so does MC dropout (5 dropout masks). Of the ensembles of 5, "ensemble-equal-training" trains each
    member for a fifth of the steps, which costs the same in training and inference; "ensemble-equal-inference" trains
    each member for all steps, five times the training.
    """
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
    """Run every method on every case."""
    drawn = [draw(seed) for draw in CASES.values() for seed in range(SEEDS.value)]
    examples = Examples(*map(jnp.stack, zip(*drawn, strict=True)))
    results, costs = [], {}
    available = methods(STEPS.value)
    for name in METHODS.value or available:
        checks.known("method", name, available)
        method = available[name]
        decays = select_weight_decays(method, examples)
        predictions = {decay: predict(with_weight_decay(method, decay), examples) for decay in set(decays.values())}
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
    """Return a random split of the diabetes data (Efron et al. 2004): 442 patients, 10 features."""
    x, y = map(np.asarray, load_diabetes(return_X_y=True))
    order = np.random.default_rng(seed).permutation(len(x))
    return split(x[order], y[order])


def friedman1(seed: int) -> Examples:
    """Return a sample of Friedman's first function (Friedman 1991) with noise 1."""
    return split(*make_friedman1(NUM_TRAIN + NUM_TEST, n_features=10, noise=1.0, random_state=seed))


def friedman1_beyond(seed: int) -> Examples:
    """Return `friedman1` with the fourth feature below 0.7 in training and above it in the test set.

    The target continues to increase there.
    """
    x, y = make_friedman1(3 * (NUM_TRAIN + NUM_TEST), n_features=10, noise=1.0, random_state=seed)
    below, above = np.flatnonzero(x[:, 3] < 0.7)[:NUM_TRAIN], np.flatnonzero(x[:, 3] >= 0.7)[:NUM_TEST]
    rows = np.concatenate([below, above])
    return split(x[rows], y[rows])


CASES = {"diabetes": diabetes, "friedman1": friedman1, "friedman1-beyond": friedman1_beyond}


def split(x: np.ndarray, y: np.ndarray) -> Examples:
    """Split off the training examples, the first rows, and standardize all targets by their mean and deviation.

    Errors are therefore in units of the deviation of the training targets.
    """
    standardized = (y - y[:NUM_TRAIN].mean()) / y[:NUM_TRAIN].std()
    inputs, targets = jnp.asarray(x, jnp.float32), jnp.asarray(standardized, jnp.float32)
    return Examples(inputs[:NUM_TRAIN], targets[:NUM_TRAIN], inputs[NUM_TRAIN:], targets[NUM_TRAIN:])


def rows_of(case: str) -> slice:
    """Return the rows of a case's seeds in `Examples`."""
    index = list(CASES).index(case)
    return slice(index * SEEDS.value, (index + 1) * SEEDS.value)


def select_weight_decays(method: Method, examples: Examples) -> dict[str, float]:
    """Select for each case the weight decay with the lowest mean validation NLL over seeds.

    The validation examples are a fifth of the training examples; the test examples are not used.
    """
    num = NUM_TRAIN * 4 // 5
    parts = Examples(examples.x[:, :num], examples.y[:, :num], examples.x[:, num:], examples.y[:, num:])
    predictions = {decay: predict(with_weight_decay(method, decay), parts) for decay in WEIGHT_DECAYS}

    def nll(case, decay):
        rows, predicted = rows_of(case), predictions[decay]
        return float(metrics.gaussian_nll(predicted.mean[rows], predicted.std[rows], parts.y_test[rows]))

    return {case: min(WEIGHT_DECAYS, key=partial(nll, case)) for case in CASES}


def with_weight_decay(method: Method, decay: float) -> Method:
    """Return the method with another weight decay."""
    return method._replace(settings=replace(method.settings, weight_decay=decay))


def predict(method: Method, examples: Examples) -> Regression:
    """Train a method and predict the test examples, `[S, T]`."""
    members = [predict_member(method, seed, examples) for seed in range(method.members)]
    if method.members == 1:
        return members[0]
    return regression.combine_members(jax.tree.map(lambda *arrays: jnp.stack(arrays), *members))


def predict_member(method: Method, seed: int, examples: Examples) -> Regression:
    """Train one network for each row of `examples` and predict the test examples, `[S, T]`."""
    fit_keys, predict_keys = (jax.random.split(key, len(examples.x)) for key in jax.random.split(jax.random.key(seed)))
    fit = partial(regression.fit, settings=method.settings)
    networks = jax.vmap(fit)(fit_keys, examples.x, examples.y)
    return jax.vmap(partial(regression.predict, num=method.passes))(predict_keys, networks, examples.x_test)


def results_of(case: str, name: str, mean: jax.Array, std: jax.Array, targets: jax.Array) -> list[Result]:
    """Return every metric, with one sample per seed."""
    prediction = mean, std, targets
    numbers = {
        ("rmse", "std"): jax.vmap(metrics.rmse)(mean, targets),
        ("nll", "nats"): jax.vmap(metrics.gaussian_nll)(*prediction),
        ("coverage_90", "1"): jax.vmap(partial(metrics.interval_coverage, levels=LEVEL))(*prediction)[:, 0],
        ("coverage_error", "1"): jax.vmap(metrics.coverage_error)(*prediction),
        ("spread", "std"): std.mean(axis=1),
    }
    return [
        Result(case, name, metric, unit, [float(value) for value in values])
        for (metric, unit), values in numbers.items()
    ]


if __name__ == "__main__":
    app.run(main)
