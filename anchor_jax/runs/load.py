"""From a run to its model and its predictor."""

import os
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from anchor_jax import models
from anchor_jax.core import checks
from anchor_jax.data import Normalization
from anchor_jax.models.layers import Classifier
from anchor_jax.runs import checkpoint, state
from anchor_jax.runs import record as run_record
from anchor_jax.runs.predictor import Predictor, compile_network
from anchor_jax.runs.record import Run
from anchor_jax.runtime import mesh as mesh_lib


def load_predictor(workdir: str | os.PathLike[str], step: int | str | None = None) -> Predictor:
    """The predictor of a trained run: raw uint8 images in, `Classification` out.

    Args:
      workdir: the run's folder.
      step: of the checkpoint, or "best"; the newest one by default. "best" is the one with the highest
        accuracy among the evaluations in training: on the test set, unless the run held some of its
        training set out.

    Raises:
      UserTypeError: `workdir` is no path, or `step` neither an integer nor a string.
      UserError: there is no run or no such checkpoint, or it is damaged.
    """
    checks.path("workdir", workdir)
    _, predictor = load_checkpoint(run_record.load(Path(workdir)), step)
    return predictor


def load_checkpoint(this_run: Run, step: int | str | None) -> tuple[int, Predictor]:
    """Step and predictor of a checkpoint, see `load_predictor`."""
    mesh = mesh_lib.mesh()
    model = create_model(this_run)
    shapes = jax.eval_shape(lambda: state.init_variables(model, jax.random.key(0), this_run.input_shape))
    like = mesh_lib.replicated_shapes(shapes, mesh)
    found, variables = checkpoint.restore_variables(
        this_run.workdir, this_run.config, like, "latest" if step is None else step
    )
    return found, create_predictor(this_run, variables, mesh)


def create_model(this_run: Run, axis_name: str | None = None) -> Classifier:
    """The untrained model; `axis_name` is the mapped axis of training, for which alone `config.model.remat` is."""
    config = this_run.config.model
    options = dict(config.options) | ({"axis_name": axis_name, "remat": config.remat} if axis_name else {})
    return models.create(config.name, len(this_run.label_names), dtype=config.dtype, **options)


def create_predictor(this_run: Run, variables: Any, mesh: Mesh) -> Predictor:
    """A predictor of the run with these variables."""
    config = this_run.config
    network = compile_network(
        create_model(this_run),
        run_normalization(this_run),
        mesh,
        anchored=config.anchoring.enabled,
        inputs_at_once=config.evaluation.batch_size // mesh.size,
        chunk_size=config.evaluation.chunk_size or None,
    )
    return Predictor(
        variables,
        this_run.references,
        this_run.label_names,
        this_run.image_shape,
        network,
        num_devices=mesh.size,
        batch_size=config.evaluation.batch_size,
    )


def run_normalization(this_run: Run) -> Normalization:
    """Of the run's config."""
    return Normalization(this_run.config.data.mean, this_run.config.data.std)
