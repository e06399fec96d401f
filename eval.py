"""Evaluate a trained run: python eval.py --workdir runs/digits --suites clean,corruptions,ood --num_references 1,10."""

from absl import flags

from anchor_jax.cli import app
from anchor_jax.evaluation import PROTOCOLS, SUITES, Options, evaluate

DEFAULT = Options()

WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
SUITES_ASKED = flags.DEFINE_list("suites", ["clean"], f"What to evaluate: {', '.join(SUITES)}.")
NUM_REFERENCES = flags.DEFINE_list("num_references", ["1", "10"], "Numbers of references, one evaluation for each.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "A step, 'latest' or 'best'.")
CHUNK_SIZE = flags.DEFINE_integer("chunk_size", None, "References at once, 0: fill a batch; the run's own by default.")
NUM_BINS = flags.DEFINE_integer("num_bins", None, "Of the calibration errors; the run's own by default.")
PROFILE = flags.DEFINE_bool("profile", False, "Trace some batches into WORKDIR/profile, for TensorBoard or Perfetto.")
CORRUPTIONS = flags.DEFINE_list(
    "corruptions",
    list(DEFAULT.corruptions),
    "Corrupted sets: 'generated' (19, made from the test set), 'generated-c-bar' (10), tfds:cifar10_corrupted, "
    "npy:FOLDER (as CIFAR-10-C is published), folder:FOLDER (as ImageNet-C is).",
)
SHIFT = flags.DEFINE_list("shift", list(DEFAULT.shift), "Sets of the run's classes, such as tfds:imagenet_r.")
OOD = flags.DEFINE_list(
    "ood", list(DEFAULT.ood), "Sets of anomalies, such as near=tfds:cifar100,far=images:FOLDER; for digits photographs."
)
PROBE = flags.DEFINE_list(
    "probe", list(DEFAULT.probe), "The set that a linear probe is fitted to and tested on, then others that test it."
)
TEMPERATURE_SCALING = flags.DEFINE_bool(
    "temperature_scaling", DEFAULT.temperature_scaling, "Fit a temperature on training data that the run held out."
)
PROTOCOL = flags.DEFINE_enum(
    "protocol", DEFAULT.protocol, PROTOCOLS, "References: 'random', or for each image the one that BLT picks."
)
BLT_REFERENCES = flags.DEFINE_integer(
    "blt_references", DEFAULT.blt_references, "References among which BLT looks; 0: the whole bank.", lower_bound=0
)
DRAWS = flags.DEFINE_integer("draws", DEFAULT.draws, "Draws of references in the suite 'protocols'.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", DEFAULT.seed, "Of generated corruptions, BLT's draws and directions.")


def main() -> None:
    """Flags to values, then one call."""
    step = app.step("checkpoint", CHECKPOINT.value)
    num_references = tuple(app.integer("num_references", number) for number in NUM_REFERENCES.value)
    options = Options(
        corruptions=tuple(CORRUPTIONS.value),
        shift=tuple(SHIFT.value),
        ood=tuple(OOD.value),
        probe=tuple(PROBE.value),
        temperature_scaling=TEMPERATURE_SCALING.value,
        protocol=PROTOCOL.value,
        blt_references=BLT_REFERENCES.value,
        draws=DRAWS.value,
        seed=SEED.value,
    )
    evaluate(
        app.path("workdir", WORKDIR.value),
        tuple(SUITES_ASKED.value),
        num_references,
        step,
        options=options,
        num_bins=NUM_BINS.value,
        chunk_size=CHUNK_SIZE.value,
        profile=PROFILE.value,
    )


if __name__ == "__main__":
    app.run(main, distributed=True)
