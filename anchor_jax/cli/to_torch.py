"""Weights of a run for PyTorch: python -m anchor_jax.to_torch --workdir runs/c10 --out c10.safetensors."""

from absl import flags

from anchor_jax.cli import app
from anchor_jax.models import SOURCES
from anchor_jax.models.pytorch import to_arrays
from anchor_jax.models.pytorch.files import write_state_dict
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import load_checkpoint

WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
SOURCE = flags.DEFINE_enum("source", "torchvision", SOURCES, "Whose network is to take the weights.")
OUT = flags.DEFINE_string("out", None, "The new file: .safetensors, or what torch.load takes.", required=True)
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "A step, 'latest' or 'best'.")


def main() -> None:
    """Flags to values, then one call."""
    out = app.path("out", OUT.value, "a new file")
    this_run = run_record.load(app.path("workdir", WORKDIR.value))
    step, predictor = load_checkpoint(this_run, app.step("checkpoint", CHECKPOINT.value))
    config = this_run.config.model
    tensors = to_arrays(config.name, predictor.variables, SOURCE.value, **config.options)
    write_state_dict(out, tensors)
    print(f"{len(tensors):,} tensors of step {step} in {out}")


if __name__ == "__main__":
    app.run(main)
