"""Protocols: one random reference, K random ones, bilinear transduction; and how much the draw matters."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from anchor_jax.data import Dataset, EvalDataset, eval_dataset
from anchor_jax.evaluation.context import EvalContext
from anchor_jax.evaluation.options import SeedOption, TransductionOption, option
from anchor_jax.evaluation.predictions import METRICS, PredictionTable, main_scores, predict_dataset
from anchor_jax.evaluation.presentation import (
    DotPanel,
    DotPlots,
    Dots,
    Figure,
    Line,
    LinePanel,
    LinePlots,
    Table,
    describe_transduction,
)
from anchor_jax.evaluation.results import Results, Score, SuiteResult
from anchor_jax.evaluation.suite import Suite
from anchor_jax.evaluation.suites import common
from anchor_jax.metrics import specs

_NUM_TIMED, _REPEATS = 1_000, 3  # examples that are timed, and how often
_CURVE = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)  # numbers of references

PredictSet = Callable[[EvalDataset], PredictionTable]


@dataclasses.dataclass(frozen=True)
class ProtocolsOptions(TransductionOption, SeedOption):
    """The draws of references."""

    draws: int = option(5, "Number of draws of references in the suite 'protocols'.", minimum=1)


class PreparedProtocols(NamedTuple):
    """The images that are timed, and the number of draws."""

    context: EvalContext
    timed: EvalDataset
    num_draws: int


class Row(NamedTuple):
    """A row of the paper's table: a protocol, where it was measured, and the accuracies of its draws."""

    protocol: str
    result: SuiteResult
    draws: np.ndarray


class Protocols(Suite[PreparedProtocols]):
    """Evaluate the test set with each protocol, and with several draws of references."""

    name = "protocols"
    title = "Protocols"
    question = "How much do the number and the choice of references matter, and what do they cost?"
    reading = (
        "One random reference, K random references, or for each image the one that transduction chooses (BLT). If the "
        "rows hardly differ, the cheapest protocol is enough."
    )
    options = ProtocolsOptions

    def prepare(self, context: EvalContext) -> PreparedProtocols:
        """Read the images that are timed, and the training data that transduction chooses from."""
        if context.run.references is not None:
            _ = context.transduction
        images, labels = context.test.first(_NUM_TIMED)
        repeated = Dataset(np.asarray(images), labels, context.run.label_names)
        timed = eval_dataset(repeated, "timed", channels=images.shape[-1])
        return PreparedProtocols(context, timed, context.options_of(ProtocolsOptions).draws)

    def num_predictions(self, prepared: PreparedProtocols, num_references: int) -> int:
        """Return the number of images in all draws and timings, once per reference."""
        num_test, timed = prepared.context.test.num_examples, (1 + _REPEATS) * prepared.timed.num_examples
        draws = _num_draws(prepared, num_references)
        if not draws:
            return num_test + timed
        return num_test * (1 + sum(num * count for num, count in draws.items())) + timed * (2 + num_references)

    def measure(self, prepared: PreparedProtocols, num_references: int) -> SuiteResult:
        """Score and time each protocol, and score every draw and number of references."""
        context, timed, _ = prepared
        facts = {"num_examples": context.test.num_examples, "timed_examples": timed.num_examples}
        references = context.run.references
        if references is None:
            scores = _measured(prepared, "standard", partial(context.predict, num_references=0))
            return SuiteResult(self.name, num_references, tuple(scores), {}, facts)

        scores: list[Score] = []
        means: dict[int, dict[str, float]] = {}
        num_draws = _num_draws(prepared, num_references)
        for num, count in num_draws.items():
            of_draws = []
            for draw in range(count):
                table = _with_draw(context, references, draw, num)(context.test)
                of_draws.append(main_scores(table, context.num_bins, draw=draw, draw_size=num))
                scores += of_draws[-1]
            means[num] = {
                same[0].metric: float(np.mean([score.value for score in same])) for same in zip(*of_draws, strict=True)
            }
        for protocol, num in (("random1", 1), ("randomK", num_references)):
            scores += [Score(name, means[num][name], protocol=protocol) for name in METRICS]
            seconds = _seconds_per_1000(timed, _with_draw(context, references, 0, num))
            scores.append(Score("seconds_per_1000", seconds, protocol=protocol))
        scores += _measured(prepared, "blt", context.predict_transduced)
        facts |= {"draws": {str(num): count for num, count in num_draws.items()}, **context.transduction.facts()}
        return SuiteResult(self.name, num_references, tuple(scores), {}, facts)

    def tables(self, results: Results) -> list[Table]:
        """Return the paper's table: one row per protocol."""
        rows = {title: (row.result, {"protocol": row.protocol}) for title, row in protocol_rows(results).items()}
        columns = common.quantities((*METRICS, "seconds_per_1000"))
        facts = common.newest(results).facts
        counts = ", ".join(f"{count} of {num}" for num, count in facts.get("draws", {}).items())
        note = f"Random references: mean of the scores of several draws ({counts}); the suite clean has one draw."
        notes = [note] if counts else []
        return common.score_table("", rows, columns, notes=[*notes, *describe_transduction(facts)])

    def figures(self, results: Results, clean: Results) -> list[Figure]:
        """Return accuracy and time of each protocol, and accuracy against the number of references."""
        rows = protocol_rows(results)
        return [*_protocol_dots(rows), *_accuracy_against_references(results)] if rows else []


def _num_draws(prepared: PreparedProtocols, num_references: int) -> dict[int, int]:
    """Return size -> number of draws, of references that no other draw of this size has; empty without references."""
    references = prepared.context.run.references
    if references is None:
        return {}
    sizes = sorted({num for num in _CURVE if num < num_references} | {1, num_references})
    return {num: min(prepared.num_draws, len(references) // num) for num in sizes}


def protocol_rows(results: Results) -> dict[str, Row]:
    """Return the rows of the paper's table by title."""
    newest, rows = common.newest(results), {}
    for title, protocol, num in (("no reference", "standard", 0), ("1 random", "random1", 1)):
        rows[title] = Row(protocol, newest, _accuracies_of_draws(newest, num))
    for num, result in results.items():
        if num > 1:
            rows[f"{num:,} random"] = Row("randomK", result, _accuracies_of_draws(result, num))
    rows["BLT"] = Row("blt", newest, np.empty(0))
    return {
        title: row for title, row in rows.items() if row.result.value("accuracy", protocol=row.protocol) is not None
    }


def _accuracies_of_draws(result: SuiteResult, draw_size: int) -> np.ndarray:
    scores = (s for s in result.scores if (s.metric, s.prediction) == ("accuracy", "mean_probs"))
    return np.array([score.value for score in scores if score.draw_size == draw_size])


def _protocol_dots(rows: dict[str, Row]) -> list[Figure]:
    panels = []
    for metric in ("accuracy", "seconds_per_1000"):
        dots = {}
        for title, row in rows.items():
            value = row.result.value(metric, protocol=row.protocol)
            if value is not None:
                is_accuracy = metric == "accuracy"
                text = "" if is_accuracy else specs.get(metric).text(value)
                dots[title] = [Dots(value, row.draws if is_accuracy else (), text=text)]
        panels += [DotPanel(specs.get(metric).title, dots, specs.get(metric))] if dots else []
    return [
        Figure(
            "accuracy",
            "Accuracy and cost of each protocol",
            "Each grey tick is one draw of references, the dot is the mean of all draws. If the ticks lie close "
            "together, the choice hardly matters. BLT uses, for each image, the reference whose residual is most "
            "similar to those of training.",
            DotPlots(list(rows), panels),
        )
    ]


def _accuracy_against_references(results: Results) -> list[Figure]:
    sizes = sorted({s.draw_size for result in results.values() for s in result.scores if s.draw_size})
    if not sizes:
        return []
    # several results have draws of the same size; those of the most references are shown
    by_size = {size: [_accuracies_of_draws(result, size) for result in results.values()] for size in sizes}
    draws = {size: next(found for found in reversed(of_size) if len(found)) for size, of_size in by_size.items()}
    x = np.concatenate([np.full(len(values), size) for size, values in draws.items()])
    lines = [
        Line("one draw", x, np.concatenate(list(draws.values())), style="faint", markers="only"),
        Line("mean", sizes, [float(values.mean()) for values in draws.values()], style="ordered", markers=True),
    ]
    ticks = {size: str(size) for place, size in enumerate(sizes) if place == 0 or size / sizes[place - 1] > 1.35}
    panel = LinePanel("", lines, xlabel="references", ylabel="accuracy", percent="y", xticks=ticks, log_x=True)
    caption = "Mean and draws of references of each size."
    return [Figure("references", "Accuracy against the number of references", caption, LinePlots([panel]))]


def _with_draw(context: EvalContext, references: np.ndarray, draw: int, num_references: int) -> PredictSet:
    """Return predictions with a part of the saved references that no other draw of the same size uses."""
    own_first = np.roll(references, -draw * num_references, axis=0)
    predictor = dataclasses.replace(context.predictor, references=own_first)
    return partial(predict_dataset, predictor, num_references=num_references)


def _measured(prepared: PreparedProtocols, protocol: str, predict: PredictSet) -> list[Score]:
    context = prepared.context
    scores = main_scores(predict(context.test), context.num_bins, protocol=protocol)
    return [*scores, Score("seconds_per_1000", _seconds_per_1000(prepared.timed, predict), protocol=protocol)]


def _seconds_per_1000(timed: EvalDataset, predict: PredictSet) -> float:
    """Time 1,000 images from host memory to the table, after compilation; the median of several repeats."""
    predict(timed)
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        predict(timed)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1_000 / timed.num_examples
