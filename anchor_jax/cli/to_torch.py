"""Write the weights of a run for PyTorch."""

from absl import flags

from anchor_jax.cli import app
from anchor_jax.models import SOURCES
from anchor_jax.models.pytorch import to_arrays
from anchor_jax.models.pytorch.files import write_state_dict
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import load_checkpoint

WORKDIR = app.define_path("workdir", None, "Folder of the run.", required=True, buckets=True)
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Checkpoint to convert: a step, 'latest' or 'best'.")
OUT = app.define_path(
    "out", None, "New file: .safetensors, or .pth for torch.load.", what="a new file", required=True, buckets=True
)
SOURCE = flags.DEFINE_enum("source", "torchvision", SOURCES, "Library whose network will load the weights.")

USAGE = app.Usage(
    description=app.COMMANDS["to-torch"],
    synopsis="--workdir=WORKDIR --out=OUT [flags]",
    groups={"Run": (WORKDIR, CHECKPOINT), "File": (OUT, SOURCE)},
    examples={"for torchvision": "--workdir runs/c10 --out c10.safetensors"},
)


def main() -> None:
    """Convert the checkpoint, write the file and print what was written."""
    this_run = run_record.load(WORKDIR.value)
    step, predictor = load_checkpoint(this_run, app.step("checkpoint", CHECKPOINT.value))
    config = this_run.config.model
    tensors = to_arrays(config.name, predictor.variables, SOURCE.value, **config.options)
    write_state_dict(OUT.value, tensors)
    average = ", the moving average," if this_run.config.training.ema_decay else ""
    print(f"wrote {len(tensors):,} tensors of step {step}{average} to {OUT.value}")


def run() -> None:
    """Run the command line."""
    app.run(main, usage=USAGE)


if __name__ == "__main__":  # python -m anchor_jax.to_torch
    run()
