"""Export a run to a single file that runs with JAX alone."""

import contextlib
import os
from collections.abc import Iterator

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
from anchor_jax.runtime.paths import local_path
from anchor_jax.runtime.settings import with_own_settings

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
DEFAULT_PLATFORMS = ("cpu", "cuda", "tpu")


@with_own_settings
def export(
    workdir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    step: int | str = "latest",
    num_references: int = 10,
    platforms: tuple[str, ...] = DEFAULT_PLATFORMS,
    chunk_size: int | None = None,
) -> Metadata:
    """Export a checkpoint of a run to a new file, which `load_exported` reads.

    Args:
      workdir: the run's folder.
      out: path of the new file.
      step: step of the checkpoint, "latest" or "best".
      num_references: K, from 1 to the number of references saved with the run; ignored for a standard model.
      platforms: platforms that the program runs on, a subset of `PLATFORMS`.
      chunk_size: number of references evaluated at once; by default `config.evaluation.chunk_size`, or all references
        if that is 0.

    Returns:
      The metadata stored in the file.

    Raises:
      UserTypeError: `num_references` or `chunk_size` is not an integer.
      UserError: the file exists or cannot be written, the run or the checkpoint does not exist or is corrupt,
        `num_references` or `chunk_size` is out of range, or a platform is unknown.
    """
    workdir, out = local_path("workdir", workdir), local_path("out", out)
    check_does_not_exist(out)
    platforms = tuple(dict.fromkeys(checks.several("platforms", platforms)))
    for platform in platforms:
        checks.known("platform", platform, PLATFORMS)
    if not platforms:
        raise UserError(f"platforms must name at least one of {', '.join(PLATFORMS)}; got none")
    this_run = run_record.load(workdir)
    checkpoint_step, predictor = load_checkpoint(this_run, step)
    program = export_program(this_run, predictor, num_references, platforms, chunk_size)
    metadata = Metadata(
        label_names=this_run.label_names,
        image_shape=this_run.image_shape,
        model=this_run.config.model.name,
        step=checkpoint_step,
        num_references=None if predictor.references is None else num_references,
        outputs=tuple(jax.tree.unflatten(program.out_tree, program.out_avals)),
        platforms=program.platforms,
        versions=run_record.package_versions(),
        preprocessing=predictor.preprocess,
    )
    write_archive(out, program, metadata)
    return metadata


def export_program(
    this_run: Run, predictor: Predictor, num_references: int, platforms: tuple[str, ...], chunk_size: int | None
) -> Exported:
    """Export the program of a predictor: uint8 `[b, H, W, C]`, b symbolic, -> fields of a `Classification` by name.

    Parameters, normalization and the first layer's outputs for the references are constants of the program.
    """
    model, normalization = create_model(this_run), run_normalization(this_run)
    chunk_size = chunk_size or this_run.config.evaluation.chunk_size or None
    encoded = predictor.network.encode(predictor.variables, predictor.first_references(num_references))
    variables, references = mesh_lib.device_get_global((predictor.variables, encoded))

    def classify(images: jax.Array) -> dict[str, jax.Array]:
        votes = classify_images(model, normalization, variables, references, images, chunk_size=chunk_size)
        return {name: array for name, array in votes.classification._asdict().items() if array is not None}

    shape = jax.export.symbolic_shape(f"b, {', '.join(map(str, this_run.image_shape))}")
    with _no_source_locations():
        return jax.export.export(jax.jit(classify), platforms=platforms)(jax.ShapeDtypeStruct(shape, jnp.uint8))


@contextlib.contextmanager
def _no_source_locations() -> Iterator[None]:
    """Lower programs without the paths and line numbers of the source code."""
    name = "jax_traceback_in_locations_limit"
    before = jax.config.values[name]
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)
