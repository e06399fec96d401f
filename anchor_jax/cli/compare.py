"""Compare evaluated runs side by side."""

from absl import flags

from anchor_jax.cli import app
from anchor_jax.reporting.comparison import compare

OUT = app.define_path("out", None, "Folder of the report.", required=True, buckets=True)
SUITES = flags.DEFINE_list("suites", [], "Suites to compare, comma-separated; by default all that the runs share.")
NUM_REFERENCES = flags.DEFINE_integer(
    "num_references",
    None,
    "Number of references of the anchored runs; by default the largest that all runs share.",
    lower_bound=1,
)
LIMIT = flags.DEFINE_integer(
    "limit", 0, "Compare results of eval.py --limit=N, with the same N; 0: those on all images.", lower_bound=0
)

USAGE = app.Usage(
    description=f"{app.COMMANDS['compare']} Runs that differ only in their seed count as one method.\n"
    "Prints tables and writes compare.html, compare.json and compare.csv.",
    synopsis="RUN RUN... --out=OUT [flags]",
    groups={"Comparison": (OUT, SUITES, NUM_REFERENCES, LIMIT)},
    examples={"a standard and an anchored network": "runs/c10-standard runs/c10 --out runs/comparison"},
)


def main(*runs: str) -> None:
    """Call `compare` with the positional arguments and the values of the flags."""
    compare(runs, OUT.value, tuple(SUITES.value), NUM_REFERENCES.value, LIMIT.value)


def run() -> None:
    """Run the command line."""
    app.run(main, arguments=True, usage=USAGE)


if __name__ == "__main__":  # python -m anchor_jax.compare
    run()
