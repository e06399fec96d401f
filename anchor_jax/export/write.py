"""From a run to one file that JAX alone runs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.export import Exported

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.export.format import Metadata, write_archive
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import create_model, load_checkpoint, run_normalization
from anchor_jax.runs.network import classify_images
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runs.record import Run
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.runtime.atomic_files import check_does_not_exist

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
DEFAULT_PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    workdir: Path,
    out: Path,
    *,
    step: int | str = "latest",
    num_references: int = 10,
    platforms: tuple[str, ...] = DEFAULT_PLATFORMS,
    chunk_size: int | None = None,
) -> Metadata:
    """Write a checkpoint of a run to one new file, which `load_exported` reads; what is in the file besides.

    Args:
      workdir: the run's folder.
      out: the file.
      step: of the checkpoint, "latest" or "best".
      num_references: K, from 1 to the number saved with the run; a standard network takes none.
      platforms: of `PLATFORMS`, on which the program runs.
      chunk_size: references at once; `config.evaluation.chunk_size` by default, and else all.

    Raises:
      UserTypeError: K or `chunk_size` is no integer.
      UserError: the file is there already or cannot be written, there is no such run or checkpoint, or it is damaged;
        K or `chunk_size` is out of range, or a platform unknown.
    """
    check_does_not_exist(out)
    platforms = tuple(dict.fromkeys(platforms))
    for platform in platforms:
        checks.known("platform", platform, PLATFORMS)
    if not platforms:
        raise UserError(f"platforms must name at least one of {', '.join(PLATFORMS)}; got none")
    this_run = run_record.load(workdir)
    found, predictor = load_checkpoint(this_run, step)
    program = program_of(this_run, predictor, num_references, platforms, chunk_size)
    metadata = Metadata(
        label_names=this_run.label_names,
        image_shape=this_run.image_shape,
        model=this_run.config.model.name,
        step=found,
        num_references=None if predictor.references is None else num_references,
        outputs=tuple(jax.tree.unflatten(program.out_tree, program.out_avals)),
        platforms=program.platforms,
        versions=run_record.package_versions(),
    )
    write_archive(out, program, metadata)
    return metadata


def program_of(
    this_run: Run, predictor: Predictor, num_references: int, platforms: tuple[str, ...], chunk_size: int | None
) -> Exported:
    """The program of `export`: uint8 `[b, H, W, C]`, b symbolic, -> a `Classification` as a dictionary.

    Parameters, normalisation, and what the first layer makes of the references are constants in it.
    """
    model, normalization = create_model(this_run), run_normalization(this_run)
    chunk_size = chunk_size or this_run.config.evaluation.chunk_size or None
    encoded = predictor.network.encode(predictor.variables, predictor.first_references(num_references))
    variables, references = mesh_lib.device_get_global(
        (predictor.variables, encoded)
    )  # however many devices they were on

    def classify(images: jax.Array) -> dict[str, jax.Array]:
        answer = classify_images(
            model, normalization, variables, references, images, chunk_size=chunk_size
        ).classification
        return {name: array for name, array in answer._asdict().items() if array is not None}

    shape = jax.export.symbolic_shape(f"b, {', '.join(map(str, this_run.image_shape))}")
    with _without_locations():
        return jax.export.export(jax.jit(classify), platforms=platforms)(jax.ShapeDtypeStruct(shape, jnp.uint8))


@contextlib.contextmanager
def _without_locations() -> Iterator[None]:
    """What is lowered does not tell from which files and lines it came, which are nobody else's concern."""
    name = "jax_traceback_in_locations_limit"
    before = jax.config.values[name]
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)
