"""Push a run to the Hugging Face Hub, with a model card."""

import json
import tempfile
from pathlib import Path

from absl import flags

from anchor_jax.cli import app
from anchor_jax.cli.console import USAGE_STATUS, exit_with_error
from anchor_jax.evaluation.storage import METRICS
from anchor_jax.reporting.model_card import CARD, model_card, read_metrics
from anchor_jax.runs import hub, published
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import load_checkpoint

WORKDIR = app.define_path("workdir", None, "Folder of the run.", required=True, buckets=True)
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Checkpoint to push: a step, 'latest' or 'best'.")
LICENSE = flags.DEFINE_string(
    "license", "unknown", "License of the weights and the references, by its name on the Hub, such as apache-2.0."
)
PRIVATE = flags.DEFINE_boolean("private", False, "Make a new model private.")

USAGE = app.Usage(
    description=app.COMMANDS["push"],
    synopsis="--workdir=WORKDIR [flags] ORG/NAME",
    groups={"Run": (WORKDIR, CHECKPOINT), "Model": (LICENSE, PRIVATE)},
    examples={"the best checkpoint": "--workdir runs/c10 --checkpoint best --license apache-2.0 me/c10"},
    notes={"Log in": "hf auth login, or a token in HF_TOKEN. HF_ENDPOINT names another Hub."},
)


def main(*arguments: str) -> None:
    """Write the files of a run and its card to a folder, upload them, and print their address."""
    if len(arguments) != 1:
        exit_with_error(
            USAGE_STATUS, f"expected one argument besides the flags, the model ORG/NAME; got {list(arguments)}"
        )
    (name,) = arguments
    hub.check_name(name)
    hub.import_hub()
    this_run = run_record.load(WORKDIR.value)
    step, predictor = load_checkpoint(this_run, app.step("checkpoint", CHECKPOINT.value))
    metrics = read_metrics(this_run, step)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        published.write(folder, this_run, step, predictor.variables)
        (folder / CARD).write_text(model_card(this_run, step, name, LICENSE.value, metrics), encoding="utf-8")
        if metrics:
            (folder / METRICS).write_text(json.dumps(metrics, indent=2) + "\n")
        else:
            print(f"note: step {step} is not evaluated; its card has no numbers")
        url = hub.upload(folder, name, private=PRIVATE.value, message=f"Push step {step} with anchor_jax")
    num = 0 if this_run.references is None else len(this_run.references)
    print(f"pushed step {step}" + f", with {num} images of the training set as references," * (num > 0) + f" to {url}")


def run() -> None:
    """Run the command line."""
    app.run(main, arguments=True, usage=USAGE)
