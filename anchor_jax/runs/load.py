"""Load the model and the predictor of a run."""

# JAX has partly unknown types.
# pyright: reportUnknownMemberType=false

import os

import jax
from jax.sharding import Mesh

from anchor_jax import models
from anchor_jax.data import Normalization
from anchor_jax.data.preprocessing import Preprocessing
from anchor_jax.models.layers import Classifier
from anchor_jax.runs import checkpoint, hub, published, state
from anchor_jax.runs import record as run_record
from anchor_jax.runs.network import CompiledNetwork
from anchor_jax.runs.predictor import Predictor
from anchor_jax.runs.record import Run
from anchor_jax.runs.state import Variables
from anchor_jax.runtime import mesh as mesh_lib
from anchor_jax.runtime.settings import with_own_settings


@with_own_settings
def load_predictor(workdir: str | os.PathLike[str], step: int | str | None = None) -> Predictor:
    """Load the predictor of a trained run: pictures or raw uint8 images in, `Classification` out.

    >>> import pathlib, tempfile
    >>> import anchor_jax as aj
    >>> from anchor_jax.config import base
    >>> from anchor_jax.training.loop import train
    >>> config = base()  # handwritten digits
    >>> config.model.name, config.training.total_epochs = "mlp", 0.1
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = train(config, pathlib.Path(folder.name))  # doctest: +ELLIPSIS
    devices ...
    >>> predictor = aj.load_predictor(folder.name)
    >>> images = aj.data.load("digits", "test").images[:5]  # uint8 [5, 8, 8, 1]
    >>> predictor(images, num_references=10).probs.shape
    (5, 10)
    >>> from PIL import Image
    >>> Image.new("RGB", (500, 300)).save(folder.name + "/picture.jpg")
    >>> predictor(folder.name + "/picture.jpg").probs.shape
    (1, 10)
    >>> folder.cleanup()

    Args:
      workdir: the run's folder; or a model on the Hugging Face Hub that `anchor-jax push` wrote, hf://ORG/NAME or
        hf://ORG/NAME@REVISION, which needs the extra `hub`.
      step: step of the checkpoint, "latest" or "best"; the latest by default. "best" has the highest accuracy in the
        evaluations during training. Those use the test set, unless `config.data.validation_fraction` is set.

    Raises:
      UserTypeError: `workdir` is not a path, or `step` is neither an integer nor a string.
      UserError: there is no run or no such checkpoint, or it is corrupt; or the model cannot be downloaded.
    """
    run = published.load(hub.download(hub.parse(workdir))) if hub.is_address(workdir) else run_record.load(workdir)
    _, predictor = load_checkpoint(run, step)
    return predictor


def load_checkpoint(run: Run, step: int | str | None) -> tuple[int, Predictor]:
    """Return the step and the predictor of a checkpoint; the arguments are those of `load_predictor`."""
    mesh = mesh_lib.mesh()
    model = create_model(run)
    shapes = jax.eval_shape(lambda: state.init_variables(model, jax.random.key(0), run.input_shape))
    like = mesh_lib.replicated_shapes(shapes, mesh)
    which = "latest" if step is None else step
    if published.is_published(run.workdir):
        published_step, variables = published.read_variables(run.workdir, like, which)
        return published_step, create_predictor(run, mesh_lib.replicate(variables, mesh), mesh)
    restored_step, variables = checkpoint.restore_variables(run.workdir, run.config, like, which)
    return restored_step, create_predictor(run, variables, mesh)


def create_model(run: Run, axis_name: str | None = None) -> Classifier:
    """Create the untrained model of a run.

    Args:
      run: the run.
      axis_name: the mapped axis of training. Without it, the model is for inference, and `config.model.remat` has no
        effect.
    """
    model_config = run.config.model
    return models.create(
        model_config.name,
        len(run.label_names),
        dtype=model_config.dtype,
        axis_name=axis_name,
        remat=model_config.remat and axis_name is not None,
        **dict(model_config.options),
    )


def create_predictor(run: Run, variables: Variables | None, mesh: Mesh) -> Predictor:
    """Create a predictor of a run.

    Args:
      run: the run.
      variables: trained variables of its model, replicated on the mesh; None if they are set later.
      mesh: the devices.
    """
    eval_config = run.config.evaluation
    network = CompiledNetwork(
        create_model(run),
        run_normalization(run),
        mesh,
        anchored=run.config.anchoring.enabled,
        inputs_at_once=eval_config.batch_size // mesh.size,
        chunk_size=eval_config.chunk_size or None,
    )
    return Predictor(
        variables,
        run.references,
        run.label_names,
        run.image_shape,
        network,
        num_devices=mesh.size,
        batch_size=eval_config.batch_size,
        preprocessing=run_preprocessing(run),
    )


def run_preprocessing(run: Run) -> Preprocessing:
    """Return the steps from pictures to images like those that the run was evaluated on."""
    data = run.config.data
    height, width, channels = run.image_shape
    return Preprocessing(
        height,
        width,
        channels,
        crop_fraction=data.crop_fraction,
        interpolation=data.interpolation,
        resizing=data.resizing,
        orientation=data.orientation,
        resize=data.image_size > 0,
    )


def run_normalization(run: Run) -> Normalization:
    """Return the normalization of a run's inputs."""
    return Normalization(run.config.data.mean, run.config.data.std)
