"""Write the weights of a run for PyTorch, and a module that runs them."""

from absl import flags

from anchor_jax.cli import app
from anchor_jax.models import SOURCES
from anchor_jax.models.pytorch import to_arrays
from anchor_jax.models.pytorch.files import write_state_dict
from anchor_jax.models.pytorch.module import (
    ModuleFacts,
    module_file,
    module_text,
    needed_network,
    references_file,
)
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import create_model, load_checkpoint
from anchor_jax.runtime.atomic_files import check_does_not_exist, write_new_file

WORKDIR = app.define_path("workdir", None, "Folder of the run.", required=True, buckets=True)
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Checkpoint to convert: a step, 'latest' or 'best'.")
OUT = app.define_path(
    "out",
    None,
    "New file: .safetensors, or .pth for torch.load. A module .py and the references are written beside it.",
    what="a new file",
    required=True,
    buckets=True,
)
SOURCE = flags.DEFINE_enum("source", "torchvision", SOURCES, "Library whose network will load the weights.")

USAGE = app.Usage(
    description=app.COMMANDS["to-torch"],
    synopsis="--workdir=WORKDIR --out=OUT [flags]",
    groups={"Run": (WORKDIR, CHECKPOINT), "File": (OUT, SOURCE)},
    examples={"for torchvision": "--workdir runs/c10 --out c10.safetensors"},
)


def main() -> None:
    """Convert the checkpoint, write the files and print what was written."""
    this_run = run_record.load(WORKDIR.value)
    step, predictor = load_checkpoint(this_run, app.step("checkpoint", CHECKPOINT.value))
    config = this_run.config.model
    tensors = to_arrays(config.name, predictor.variables, SOURCE.value, **config.options)
    code, references = module_file(OUT.value), references_file(OUT.value)
    for file in (OUT.value, code, references):
        check_does_not_exist(file)
    write_state_dict(OUT.value, tensors)
    if this_run.references is not None:
        write_state_dict(references, {"images": this_run.references})
    facts = ModuleFacts(
        model=config.name,
        step=step,
        label_names=this_run.label_names,
        image_shape=this_run.image_shape,
        mean=this_run.config.data.mean,
        std=this_run.config.data.std,
        is_anchored=this_run.references is not None,
        source=SOURCE.value,
    )
    model = create_model(this_run)
    with write_new_file(code) as file:
        file.write_text(module_text(OUT.value, model, facts), encoding="utf-8")
    average = ", the moving average," if this_run.config.training.ema_decay else ""
    print(f"wrote {len(tensors):,} tensors of step {step}{average} to {OUT.value}")
    beside = f" with {len(this_run.references)} references in {references}" if this_run.references is not None else ""
    needed = needed_network(model, facts)
    print(f"wrote {code}, which runs them in PyTorch{beside}" + (f"; {needed}" if needed else ""))


def run() -> None:
    """Run the command line."""
    app.run(main, usage=USAGE)


if __name__ == "__main__":  # python -m anchor_jax.to_torch
    run()
