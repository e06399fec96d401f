"""Evaluate a trained run: python eval.py --workdir runs/digits --suites clean --num_references 1,10."""

from pathlib import Path

from absl import flags

from anchor_jax import command
from anchor_jax.evaluation import evaluate

WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
SUITES = flags.DEFINE_list("suites", ["clean"], "What to evaluate.")
NUM_REFERENCES = flags.DEFINE_list("num_references", ["1", "10"], "Numbers of references, one evaluation for each.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "A step, 'latest' or 'best'.")
CHUNK_SIZE = flags.DEFINE_integer("chunk_size", None, "References at once, 0: fill a batch; the run's own by default.")
NUM_BINS = flags.DEFINE_integer("num_bins", None, "Of the calibration errors; the run's own by default.")
PROFILE = flags.DEFINE_bool("profile", False, "Trace some batches into WORKDIR/profile, for TensorBoard or Perfetto.")


def main() -> None:
    """Flags to values, then one call."""
    step = (
        CHECKPOINT.value if CHECKPOINT.value in ("latest", "best") else command.integer("checkpoint", CHECKPOINT.value)
    )
    num_references = tuple(command.integer("num_references", number) for number in NUM_REFERENCES.value)
    evaluate(
        Path(WORKDIR.value),
        tuple(SUITES.value),
        num_references,
        step,
        num_bins=NUM_BINS.value,
        chunk_size=CHUNK_SIZE.value,
        profile=PROFILE.value,
    )


if __name__ == "__main__":
    command.run(main)
