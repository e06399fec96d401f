"""Shift: the classes of the run, or some of them, from another distribution."""

import dataclasses
from typing import NamedTuple

import numpy as np

from anchor_jax.core.errors import UserError
from anchor_jax.data import EvalDataset
from anchor_jax.evaluation.context import EvalContext
from anchor_jax.evaluation.known_sets import KnownSet, open_known_sets
from anchor_jax.evaluation.options import ShiftedSetsOption, TemperatureOption
from anchor_jax.evaluation.predictions import METRICS, all_scores, to_arrays
from anchor_jax.evaluation.presentation import Figure, Highlight, Table
from anchor_jax.evaluation.results import Results, Score, SuiteResult, column_name
from anchor_jax.evaluation.suite import Suite
from anchor_jax.evaluation.suites import common


@dataclasses.dataclass(frozen=True)
class ShiftOptions(ShiftedSetsOption, TemperatureOption):
    """The shifted datasets, and how they are evaluated."""


class PreparedShift(NamedTuple):
    """The opened datasets."""

    context: EvalContext
    sets: list[KnownSet]


class Shift(Suite[PreparedShift]):
    """Evaluate datasets with the classes of the run, or some of them."""

    name = "shift"
    title = "Shifted sets"
    question = "Does the model generalize to the same classes in other images?"
    reading = "Compare with the clean test set: the difference is the cost of the shift."
    options = ShiftOptions
    supports_blt = True
    records_predictions = True

    def prepare(self, context: EvalContext) -> PreparedShift:
        """Open the datasets.

        Raises:
          UserError: there are none, or one has classes that the run does not have.
        """
        specs = context.options_of(ShiftOptions).shift
        if not specs:
            raise UserError(
                "suite 'shift' needs datasets with the run's classes; give them as --shift, such as "
                "--shift=tfds:imagenet_r"
            )
        return PreparedShift(context, open_known_sets(context, specs))

    def datasets(self, context: EvalContext, prepared: PreparedShift) -> list[EvalDataset]:
        """Return the shifted sets."""
        return [stream for stream, _ in prepared.sets]

    def num_predictions(self, prepared: PreparedShift, num_references: int) -> int:
        """Return the number of images in all datasets, once per reference."""
        return max(num_references, 1) * sum(of.stream.num_examples for of in prepared.sets)

    def measure(self, prepared: PreparedShift, num_references: int) -> SuiteResult:
        """Score each dataset as in the suite clean, and average over the datasets.

        Where a dataset has only some of the run's classes, the logits are restricted to them before anything else.
        """
        context, sets = prepared
        temperature = context.temperature(num_references)
        scores: list[Score] = []
        arrays = {}
        for stream, classes in sets:
            table = context.predict_recorded(stream, num_references, classes=classes, temperature=temperature)
            scores += all_scores(table, context.num_bins, dataset=stream.name)
            scores.append(Score("num_examples", len(table.label), dataset=stream.name))
            arrays |= {column_name(name, stream.name): column for name, column in to_arrays(table).items()}
        for metric in METRICS:
            values = [s.value for s in scores if (s.metric, s.prediction) == (metric, "mean_probs")]
            scores.append(Score(metric, float(np.mean(values))))
        facts = {"members": [stream.name for stream, _ in sets]}
        return SuiteResult(self.name, num_references, tuple(scores), arrays, facts)

    def tables(self, results: Results) -> list[Table]:
        """Return the means over the datasets, and all metrics of each."""
        result = common.newest(results)
        names = ("accuracy", "top5_accuracy", *METRICS[1:], "aurc", "num_examples")
        return [
            *common.by_references("Mean over sets", results, common.quantities(), notes=common.mean_notes(result)),
            *common.by_dataset(result, common.quantities(names)),
        ]

    def highlights(self, result: SuiteResult) -> list[Highlight]:
        """Return the mean accuracy."""
        return common.highlights(self.title, result, ("accuracy",), "mean over sets")

    def figures(self, results: Results, clean: Results) -> list[Figure]:
        """Return the accuracy on each dataset, and reliability diagrams."""
        result = common.newest(results)
        figures = common.accuracy_bars(
            results, "Accuracy of each set", "One bar per number of references.", "accuracy", {}
        )
        panels = {name: common.judged(result, name) for name in common.members(result)}
        panels = {name: judged for name, judged in panels.items() if judged}
        return figures + ([common.reliability_figure(panels, result.facts["num_bins"])] if panels else [])
