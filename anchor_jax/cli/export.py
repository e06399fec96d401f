"""Export a run to a single file that JAX alone can run, or ONNX."""

from absl import flags

from anchor_jax.cli import app
from anchor_jax.export import write
from anchor_jax.runtime.object_storage import size_of

WORKDIR = app.define_path("workdir", None, "Folder of the run.", required=True, buckets=True)
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Checkpoint to export: a step, 'latest' or 'best'.")
NUM_REFERENCES = flags.DEFINE_integer(
    "num_references", 10, "Number of references in the file; ignored for a standard network.", lower_bound=1
)
PLATFORMS = flags.DEFINE_list(
    "platforms",
    list(write.DEFAULT_PLATFORMS),
    f"Platforms that the file runs on, comma-separated, of {', '.join(write.PLATFORMS)}; not for .onnx.",
)
CHUNK_SIZE = flags.DEFINE_integer(
    "chunk_size",
    None,
    "References computed at once; by default evaluation.chunk_size of the config, or all if that is 0; not for .onnx.",
    lower_bound=1,
)

USAGE = app.Usage(
    description=app.COMMANDS["export"],
    synopsis="--workdir=WORKDIR [flags] FILE",
    groups={"Run": (WORKDIR, CHECKPOINT), "File": (NUM_REFERENCES, PLATFORMS, CHUNK_SIZE)},
    examples={
        "ten references, for CPU, GPU and TPU": "--workdir runs/c10 --num_references 10 c10.zip",
        "for ONNX Runtime and others": "--workdir runs/c10 --num_references 10 c10.onnx",
    },
)


def main(*arguments: str) -> None:
    """Call `export` with the values of the flags and print what was written."""
    out = app.only_path(arguments, "a new file")
    metadata = write.export(
        WORKDIR.value,
        out,
        step=app.step("checkpoint", CHECKPOINT.value),
        num_references=NUM_REFERENCES.value,
        platforms=tuple(PLATFORMS.value),
        chunk_size=CHUNK_SIZE.value,
    )
    references = f"{metadata.num_references or 'no'} references"
    platforms, size = ", ".join(metadata.platforms) or "ONNX runtimes", size_of(out) / 1e6
    print(f"exported step {metadata.step} with {references} for {platforms} to {out}, {size:.1f} MB")


def run() -> None:
    """Run the command line."""
    app.run(main, arguments=True, usage=USAGE)


if __name__ == "__main__":  # python -m anchor_jax.export
    run()
