"""The smallest study, for the tiny form of the campaign: a run on scikit-learn's digits.

python -m benchmarks.campaign.study --out DIR
"""

from absl import flags

from anchor_jax.cli import app
from studies.measuring import measure
from studies.study import CLEAN, MASKED, Evaluation, FigureSpec, Row, Size, Study

SIZE = Size(
    "tiny",
    {
        "model.options.width": 4,
        "model.options.stage_sizes": (1,),
        "training.total_epochs": 0.5,
        "evaluation.saved_references": 10,
    },
    "a ResNet of one block on handwritten digits, half an epoch",
)
STUDY = Study(
    rows=[Row("masked", "digits", MASKED, seeds=1)],
    evaluations=[Evaluation(("clean",), (1,))],
    columns=(CLEAN,),
    figure=FigureSpec("accuracy, one reference", ("clean",)),
    size=SIZE,
)

OUT = app.define_path("out", None, "Folder of all runs, tables and figures.", required=True)
ONLY_REPORT = flags.DEFINE_bool("only_report", False, "Report existing results; train and evaluate nothing.")


def main() -> None:
    """Run the study."""
    measure({"tiny": STUDY}, SIZE, OUT.value.absolute(), at_once=1, only_report=ONLY_REPORT.value)


if __name__ == "__main__":
    app.run(main)
