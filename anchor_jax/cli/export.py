"""A run as one file that JAX alone runs: python -m anchor_jax.export --workdir runs/c10 c10.zip."""

from absl import flags

from anchor_jax.cli import app
from anchor_jax.export import write

WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
NUM_REFERENCES = flags.DEFINE_integer(
    "num_references", 10, "References in the file; a standard network has none.", lower_bound=1
)
PLATFORMS = flags.DEFINE_list(
    "platforms", list(write.DEFAULT_PLATFORMS), f"Where it is to run: some of {', '.join(write.PLATFORMS)}."
)
CHUNK_SIZE = flags.DEFINE_integer(
    "chunk_size", None, "References at once; config.evaluation.chunk_size by default, and else all.", lower_bound=1
)
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "A step, 'latest' or 'best'.")


def main(*arguments: str) -> None:
    """Flags to values, then one call."""
    out = app.only_path(arguments, "a new file")
    metadata = write.export(
        app.path("workdir", WORKDIR.value),
        out,
        step=app.step("checkpoint", CHECKPOINT.value),
        num_references=NUM_REFERENCES.value,
        platforms=tuple(PLATFORMS.value),
        chunk_size=CHUNK_SIZE.value,
    )
    references = f"{metadata.num_references or 'no'} references"
    platforms, size = ", ".join(metadata.platforms), out.stat().st_size / 1e6
    print(f"step {metadata.step} with {references} for {platforms} in {out}, {size:.1f} MB")


if __name__ == "__main__":
    app.run(main, arguments=True)
