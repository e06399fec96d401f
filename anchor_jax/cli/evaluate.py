"""Evaluate a run: accuracy, calibration, robustness, anomaly detection."""

from absl import flags

from anchor_jax.cli import app
from anchor_jax.evaluation import PROTOCOLS, SUITES, Options, evaluate

DEFAULT = Options()

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Checkpoint to evaluate: a step, 'latest' or 'best'.")
PROFILE = flags.DEFINE_bool("profile", False, "Trace some batches into WORKDIR/profile, for TensorBoard or Perfetto.")

SUITE_NAMES = flags.DEFINE_list("suites", ["clean"], f"Suites, comma-separated: {', '.join(SUITES)}.")
CORRUPTIONS = flags.DEFINE_list(
    "corruptions",
    list(DEFAULT.corruptions),
    "Corrupted test sets of the suite 'corruptions': 'generated' (the 19 corruptions of ImageNet-C, applied to the "
    "test set), 'generated-c-bar' (the 10 of C-bar), tfds:NAME, npy:FOLDER (the layout of CIFAR-10-C), folder:FOLDER "
    "(the layout of ImageNet-C).",
)
SHIFT = flags.DEFINE_list(
    "shift", list(DEFAULT.shift), "Datasets of the suite 'shift', with the run's classes, such as tfds:imagenet_r."
)
OOD = flags.DEFINE_list(
    "ood",
    list(DEFAULT.ood),
    "Anomaly datasets of the suite 'ood', such as near=tfds:cifar100,far=images:FOLDER. A run on digits uses "
    "photographs by default.",
)
PROBE = flags.DEFINE_list(
    "probe",
    list(DEFAULT.probe),
    "Datasets of the suite 'probe': the first trains and tests the linear probe, the others only test it.",
)
TEMPERATURE_SCALING = flags.DEFINE_bool(
    "temperature_scaling",
    DEFAULT.temperature_scaling,
    "Also report metrics after temperature scaling, fitted on the training data that the run held out.",
)
NUM_BINS = flags.DEFINE_integer("num_bins", None, "Bins of the calibration errors; by default those of the config.")
SEED = flags.DEFINE_integer(
    "seed", DEFAULT.seed, "Seed of generated corruptions, of the candidates of BLT and of the landscape's directions."
)

NUM_REFERENCES = flags.DEFINE_list(
    "num_references", ["1", "10"], "Numbers of references, comma-separated; each is evaluated separately."
)
PROTOCOL = flags.DEFINE_enum(
    "protocol",
    DEFAULT.protocol,
    PROTOCOLS,
    "How references are chosen: the random ones saved with the run, or one per image by bilinear transduction (BLT).",
)
BLT_REFERENCES = flags.DEFINE_integer(
    "blt_references",
    DEFAULT.blt_references,
    "Number of references among which BLT chooses; 0 uses the complete bank.",
    lower_bound=0,
)
DRAWS = flags.DEFINE_integer(
    "draws", DEFAULT.draws, "Number of draws of references in the suite 'protocols'.", lower_bound=1
)
CHUNK_SIZE = flags.DEFINE_integer(
    "chunk_size",
    None,
    "References computed at once; 0 computes as many as fill a batch. By default that of the config.",
)

USAGE = app.Usage(
    description=f"{__doc__}\nPrints tables and writes WORKDIR/eval/: an HTML report, CSV and JSON.",
    synopsis="--workdir=WORKDIR [--suites=SUITES] [--num_references=K] [flags]",
    groups={
        "Run": (WORKDIR, CHECKPOINT, PROFILE),
        "Suites": (SUITE_NAMES, CORRUPTIONS, SHIFT, OOD, PROBE, TEMPERATURE_SCALING, NUM_BINS, SEED),
        "References": (NUM_REFERENCES, PROTOCOL, BLT_REFERENCES, DRAWS, CHUNK_SIZE),
    },
    examples={
        "accuracy and calibration on the test set, with 1 and with 10 references": "--workdir runs/c10",
        "robustness and anomaly detection": (
            "--workdir runs/c10 --suites clean,corruptions,ood --num_references 10 --ood near=tfds:cifar100"
        ),
    },
)


def main() -> None:
    """Call `evaluate` with the values of the flags."""
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
        tuple(SUITE_NAMES.value),
        num_references,
        step,
        options=options,
        num_bins=NUM_BINS.value,
        chunk_size=CHUNK_SIZE.value,
        profile=PROFILE.value,
    )


def run() -> None:
    """Run the command line."""
    app.run(main, distributed=True, usage=USAGE)
