"""Compare evaluated runs: python -m anchor_jax.compare runs/standard runs/anchored --out runs/comparison."""

from pathlib import Path

from absl import flags

from anchor_jax.cli import app
from anchor_jax.reporting.comparison import compare

OUT = flags.DEFINE_string("out", None, "The folder of the report.", required=True)
SUITES = flags.DEFINE_list("suites", [], "What to compare; all that the runs have in common by default.")
NUM_REFERENCES = flags.DEFINE_integer(
    "num_references", None, "Of the anchored runs; the most that all have by default.", lower_bound=1
)


def main(*runs: str) -> None:
    """Flags to values, then one call."""
    compare(tuple(map(Path, runs)), app.path("out", OUT.value), tuple(SUITES.value), NUM_REFERENCES.value)


if __name__ == "__main__":
    app.run(main, arguments=True)
