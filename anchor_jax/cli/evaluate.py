"""Evaluate a run: accuracy, calibration, robustness, anomaly detection."""

import dataclasses
from typing import Any

from absl import flags

from anchor_jax.cli import app
from anchor_jax.evaluation import SUITES, Options, evaluate
from anchor_jax.reporting import Reporter

WORKDIR = app.define_path("workdir", None, "Folder of the run.", required=True, buckets=True)
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Checkpoint to evaluate: a step, 'latest' or 'best'.")
DATA_PATH = app.define_path(
    "data_path",
    None,
    "Where the data of the run are now, if they have moved.",
    what="the data",
    buckets=True,
)
OUT = app.define_path("out", None, "Folder of the results; by default WORKDIR/eval.", buckets=True)
PREDICTIONS = flags.DEFINE_bool(
    "predictions",
    None,
    "Write the prediction for every image as Parquet and CSV; by default if the CSV takes at most 100 MB.",
)
TRACKER = flags.DEFINE_list(
    "tracker",
    [],
    "Also send scores to: tensorboard, wandb, mlflow.",
)
PROFILE = flags.DEFINE_bool("profile", False, "Trace some batches, for TensorBoard or Perfetto, into profile/.")

SUITE_NAMES = flags.DEFINE_list("suites", ["clean"], f"Suites, comma-separated: {', '.join(SUITES)}.")
NUM_BINS = flags.DEFINE_integer("num_bins", None, "Bins of the calibration errors; by default those of the config.")

NUM_REFERENCES = flags.DEFINE_list("num_references", ["1", "10"], "Numbers of references, each evaluated separately.")
CHUNK_SIZE = flags.DEFINE_integer(
    "chunk_size",
    None,
    "References at once; 0: as many as fill a batch. By default the config's.",
)


def _define(field: dataclasses.Field[Any]) -> flags.FlagHolder[Any]:
    """Define the flag of a suite's option; see `anchor_jax.evaluation.options`."""
    name, help, default = field.name, field.metadata["help"], field.default
    if isinstance(default, tuple):
        return flags.DEFINE_list(name, list(default), help)
    if isinstance(default, bool):
        return flags.DEFINE_bool(name, default, help)
    if isinstance(default, float):
        return flags.DEFINE_float(name, default, help, lower_bound=0, upper_bound=1)
    if isinstance(default, int):
        return flags.DEFINE_integer(name, default, help, lower_bound=field.metadata["minimum"])
    return flags.DEFINE_enum(name, str(default), field.metadata["choices"], help)


OPTIONS = {field.name: _define(field) for field in dataclasses.fields(Options)}
_OF_DATASETS = ("limit", "data", "corruptions", "shift", "ood", "probe")
_OF_REFERENCES = ("protocol", "blt_references", "draws")

USAGE = app.Usage(
    description=(
        f"{app.COMMANDS['evaluate']}\nPrints tables and writes WORKDIR/eval/ or OUT/: an HTML report, Parquet, CSV and "
        "JSON."
    ),
    synopsis="--workdir=WORKDIR [--suites=SUITES] [--num_references=K] [flags]",
    groups={
        "Run": (WORKDIR, CHECKPOINT, DATA_PATH),
        "Output": (OUT, PREDICTIONS, TRACKER, PROFILE),
        "Suites": (
            SUITE_NAMES,
            *(flag for name, flag in OPTIONS.items() if name not in (*_OF_DATASETS, *_OF_REFERENCES)),
            NUM_BINS,
        ),
        "Datasets": tuple(OPTIONS[name] for name in _OF_DATASETS),
        "References": (NUM_REFERENCES, *(OPTIONS[name] for name in _OF_REFERENCES), CHUNK_SIZE),
    },
    examples={
        "accuracy and calibration on the test set, with 1 and with 10 references": "--workdir runs/c10",
        "a quick look: at most 500 images of each dataset": (
            "--workdir runs/c10 --suites clean,corruptions --limit 500"
        ),
        "accuracy and calibration on images of one's own, one folder per class": (
            "--workdir runs/c10 --suites clean --data folder:PATH"
        ),
        "robustness and anomaly detection": (
            "--workdir runs/c10 --suites clean,corruptions,ood --num_references 10 --ood near=tfds:cifar100"
        ),
    },
)


def main() -> None:
    """Call `evaluate` with the values of the flags."""
    step = app.step("checkpoint", CHECKPOINT.value)
    num_references = tuple(app.integer("num_references", number) for number in NUM_REFERENCES.value)
    values: dict[str, Any] = {name: flag.value for name, flag in OPTIONS.items()}
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    evaluate(
        WORKDIR.value,
        tuple(SUITE_NAMES.value),
        num_references,
        step,
        options=Options(**values),
        num_bins=NUM_BINS.value,
        chunk_size=CHUNK_SIZE.value,
        data_path=DATA_PATH.value,
        out=OUT.value,
        profile=PROFILE.value,
        predictions=PREDICTIONS.value,
        report=Reporter(tuple(TRACKER.value)),
    )


def run() -> None:
    """Run the command line."""
    app.run(main, distributed=True, usage=USAGE)
