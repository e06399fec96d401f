"""What a suite is: one evaluation of a run, with its options, its scores, and the tables and figures of them."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from anchor_jax.data import CorruptedSet, EvalDataset
from anchor_jax.evaluation.context import EvalContext
from anchor_jax.evaluation.options import SuiteOptions
from anchor_jax.evaluation.presentation import Figure, Highlight, Table
from anchor_jax.evaluation.results import Results, SuiteResult

# facts on the evaluated data; results that differ in one of them are not comparable
DATA_FACTS = (
    "source",
    "members",
    "groups",
    "averages",
    "num_examples",
    "severities",
    "seed",
    "in_distribution",
    "target",
    "calibrated_on",
)

Prepared = TypeVar("Prepared")


class Suite(Protocol[Prepared]):
    """One evaluation of a trained run.

    Attributes:
      name: for `--suites` and `metrics.json`.
      title: heading of its section in the report.
      question: what it answers, one sentence.
      reading: how to read its numbers.
      options: class of its options; each field is a flag of `eval.py`.
      supports_blt: whether it can use the references that bilinear transduction chooses.
      records_predictions: whether `measure` predicts images with `EvalContext.predict_recorded`, once per number of
        references.
      title_of_other: what precedes the name of a dataset that takes the place of the test set, in a heading.
    """

    name: str
    title: str
    question: str = ""
    reading: str = ""
    options: type[SuiteOptions] = SuiteOptions
    supports_blt: bool = False
    records_predictions: bool = False
    title_of_other: str = "Other set"

    def prepare_all(self, context: EvalContext) -> dict[str, Prepared]:
        """Prepare everything that has results of its own: storage name -> what `prepare` returns.

        By default, this is the suite itself.
        """
        return {self.name: self.prepare(context)}

    def prepare(self, context: EvalContext) -> Prepared:
        """Open and check everything that `measure` needs, once for all numbers of references.

        Raises:
          UserError: the run or the options do not allow this evaluation. Nothing has been measured yet.
        """
        ...

    def datasets(self, context: EvalContext, prepared: Prepared) -> Sequence[EvalDataset | CorruptedSet]:
        """Return the datasets that `measure` reads; results on different data are never mixed.

        By default, this is the test set of the run.

        Args:
          context: what is evaluated.
          prepared: what `prepare` returned.
        """
        del prepared
        return (context.test,)

    def num_predictions(self, prepared: Prepared, num_references: int) -> int:
        """Return how many images `measure` predicts, each counted once per reference, for the progress bar.

        Return 0 if it is unknown; then each dataset has a bar of its own.
        """
        del prepared, num_references
        return 0

    def measure(self, prepared: Prepared, num_references: int) -> SuiteResult:
        """Evaluate with one number of references.

        Args:
          prepared: what `prepare` returned.
          num_references: K; 0 for a standard network.
        """
        ...

    def tables(self, results: Results) -> list[Table]:
        """Return the tables of the report; the first one is also printed on the terminal."""
        ...

    def figures(self, results: Results, clean: Results) -> list[Figure]:
        """Return the figures of the report.

        Args:
          results: of this suite, by number of references.
          clean: those of the suite clean, to compare with; may be empty.
        """
        del results, clean
        return []

    def highlights(self, result: SuiteResult) -> list[Highlight]:
        """Return the numbers at the top of the report."""
        del result
        return []
