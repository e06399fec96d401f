"""Export a run to a single file that runs with JAX alone, or as an ONNX file with an ONNX runtime."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.export import Exported

from anchor_jax.core import checks
from anchor_jax.core.errors import UserError
from anchor_jax.core.inference import Classification
from anchor_jax.export import onnx_file
from anchor_jax.export.format import OPTIONAL_OUTPUT, Metadata, write_archive
from anchor_jax.export.frozen import frozen_classifier
from anchor_jax.runs import record as run_record
from anchor_jax.runs.load import create_predictor, load_checkpoint
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runs.record import Run
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.runtime.atomic_files import check_does_not_exist
from anchor_jax.runtime.paths import storage_path
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
    """Export a checkpoint of a run to a new file, which `load_exported` reads, or ONNX Runtime (`.onnx`).

    Args:
      workdir: the run's folder.
      out: path of the new file; with the suffix `.onnx`, an ONNX file, which needs the extra `onnx`.
      step: step of the checkpoint, "latest" or "best".
      num_references: K, from 1 to the number of references saved with the run; ignored for a standard model.
      platforms: platforms that the program runs on, a subset of `PLATFORMS`; an ONNX file has none.
      chunk_size: number of references evaluated at once; by default `config.evaluation.chunk_size`, or all references
        if that is 0. An ONNX file evaluates all at once.

    Returns:
      The metadata stored in the file.

    Raises:
      UserTypeError: `num_references` or `chunk_size` is not an integer.
      UserError: the file exists or cannot be written, the run or the checkpoint does not exist or is corrupt,
        `num_references` or `chunk_size` is out of range, a platform is unknown, or an option or a missing package
        rules out an ONNX file.
    """
    workdir, out = storage_path("workdir", workdir), storage_path("out", out)
    check_does_not_exist(out)
    platforms = tuple(dict.fromkeys(checks.several("platforms", platforms)))
    for platform in platforms:
        checks.known("platform", platform, PLATFORMS)
    if not platforms:
        raise UserError(f"platforms must name at least one of {', '.join(PLATFORMS)}; got none")
    is_onnx = out.suffix.lower() == onnx_file.SUFFIX
    if is_onnx:
        _check_onnx_options(platforms, chunk_size)
    this_run = run_record.load(workdir)
    checkpoint_step, predictor = load_checkpoint(this_run, step)
    if is_onnx:
        return export_onnx(this_run, predictor, out, checkpoint_step, num_references)
    program = export_program(this_run, predictor, num_references, platforms, chunk_size)
    outputs = tuple(jax.tree.unflatten(program.out_tree, program.out_avals))
    metadata = _metadata(this_run, predictor, checkpoint_step, num_references, outputs, program.platforms)
    write_archive(out, program, metadata)
    return metadata


def export_onnx(this_run: Run, predictor: Predictor, out: Path, step: int, num_references: int) -> Metadata:
    """Write a predictor to an ONNX file, which computes in float32, and return its metadata."""
    dtype = this_run.config.model.dtype
    if dtype != "float32":
        warnings.warn(f"the ONNX file computes in float32, because few runtimes can in {dtype}", stacklevel=2)
        config = this_run.config.copy_and_resolve_references()
        config.model.dtype = "float32"
        this_run = dataclasses.replace(this_run, config=config)
        predictor = create_predictor(this_run, predictor.variables, mesh_lib.mesh())
    has_spread = this_run.config.anchoring.enabled and num_references > 1
    outputs = tuple(name for name in Classification._fields if has_spread or name != OPTIONAL_OUTPUT)
    metadata = _metadata(this_run, predictor, step, num_references, outputs, ())
    onnx_file.write_onnx(out, predictor, num_references, metadata)
    return metadata


def _check_onnx_options(platforms: tuple[str, ...], chunk_size: int | None) -> None:
    for option, is_given in (("platforms", platforms != DEFAULT_PLATFORMS), ("chunk_size", chunk_size is not None)):
        if is_given:
            raise UserError(f"{option} is no option of an ONNX file; leave it out, or choose a name without .onnx")
    onnx_file.check_installed()


def _metadata(
    this_run: Run,
    predictor: Predictor,
    step: int,
    num_references: int,
    outputs: tuple[str, ...],
    platforms: tuple[str, ...],
) -> Metadata:
    return Metadata(
        label_names=this_run.label_names,
        image_shape=this_run.image_shape,
        model=this_run.config.model.name,
        step=step,
        num_references=None if predictor.references is None else num_references,
        outputs=outputs,
        platforms=platforms,
        versions=run_record.package_versions(),
        preprocessing=predictor.preprocess,
    )


def export_program(
    this_run: Run, predictor: Predictor, num_references: int, platforms: tuple[str, ...], chunk_size: int | None
) -> Exported:
    """Export the program of a predictor: uint8 `[b, H, W, C]`, b symbolic, -> fields of a `Classification` by name.

    What `frozen_classifier` names are constants of the program.
    """
    chunk_size = chunk_size or this_run.config.evaluation.chunk_size or None
    classify_frozen = frozen_classifier(predictor, num_references, chunk_size=chunk_size)

    def classify(images: jax.Array) -> dict[str, jax.Array]:
        return {name: array for name, array in classify_frozen(images)._asdict().items() if array is not None}

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
