"""Evaluate a trained run: python eval.py --workdir runs/digits --suites clean,corruptions,ood --num_references 1,10."""

import dataclasses
from typing import Any

from absl import flags

from anchor_jax.cli import app
from anchor_jax.evaluation import SUITES, Options, evaluate
from anchor_jax.reporting import Reporter

WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
SUITES_ASKED = flags.DEFINE_list("suites", ["clean"], f"What to evaluate: {', '.join(SUITES)}.")
NUM_REFERENCES = flags.DEFINE_list("num_references", ["1", "10"], "Numbers of references, one evaluation for each.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "A step, 'latest' or 'best'.")
CHUNK_SIZE = flags.DEFINE_integer("chunk_size", None, "References at once, 0: fill a batch; the run's own by default.")
NUM_BINS = flags.DEFINE_integer("num_bins", None, "Of the calibration errors; the run's own by default.")
PROFILE = flags.DEFINE_bool("profile", False, "Trace some batches into WORKDIR/profile, for TensorBoard or Perfetto.")


def _define(field: dataclasses.Field) -> flags.FlagHolder:
    """Define the flag of an option; see `anchor_jax.evaluation.options`."""
    name, help, default = field.name, field.metadata["help"], field.default
    if isinstance(default, tuple):
        return flags.DEFINE_list(name, list(default), help)
    if isinstance(default, bool):
        return flags.DEFINE_bool(name, default, help)
    if isinstance(default, int):
        return flags.DEFINE_integer(name, default, help, lower_bound=field.metadata["minimum"])
    return flags.DEFINE_enum(name, str(default), field.metadata["choices"], help)


OPTIONS = {field.name: _define(field) for field in dataclasses.fields(Options)}


def main() -> None:
    """Flags to values, then one call."""
    step = app.step("checkpoint", CHECKPOINT.value)
    num_references = tuple(app.integer("num_references", number) for number in NUM_REFERENCES.value)
    values: dict[str, Any] = {name: flag.value for name, flag in OPTIONS.items()}
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    evaluate(
        app.path("workdir", WORKDIR.value),
        tuple(SUITES_ASKED.value),
        num_references,
        step,
        options=Options(**values),
        num_bins=NUM_BINS.value,
        chunk_size=CHUNK_SIZE.value,
        profile=PROFILE.value,
        report=Reporter(),
    )


if __name__ == "__main__":
    app.run(main, distributed=True)
